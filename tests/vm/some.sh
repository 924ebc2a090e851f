#!/usr/bin/env bash
# What hack/test runs in the guest at all times: limits by the systemd driver, and a kubelet's pod.
#
#   some.sh NAME...     of the end-to-end tests
set -uo pipefail
here=$(dirname "$0")

status=0
bash "$here/e2e.sh" "$@" || status=1
bash "$here/slices.sh" /root/package/corten.deb /root/package/image.tar || status=1
exit $status
