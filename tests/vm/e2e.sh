#!/usr/bin/env bash
# The end-to-end tests, and the unit tests of control groups, on a node that has what some of them need: swap, and
# huge pages set aside.
#
#   e2e.sh NAME... [OPTION]...     as the test program takes them
set -euo pipefail

fallocate -l 256M /var/swap
chmod 600 /var/swap
mkswap --quiet /var/swap
swapon /var/swap
# 16 MiB.
echo 8 >/proc/sys/vm/nr_hugepages

status=0
unit cgroup:: || status=1
e2e "$@" || status=1
exit $status
