#!/usr/bin/env bash
# A node whose power goes during pulls and creates, and comes back.
#
#   cut.sh before IMAGES SECONDS CORTEN.deb     works until the power goes; IMAGES is target/images
#   cut.sh again IMAGES SECONDS                 has come back, and works until the power goes once more
#   cut.sh after IMAGES
set -uo pipefail
. "$(dirname "$0")/lib.sh"
names=(busybox:1.29-2 nginx:1.14-2 nonewprivs:1.3)

it_is_installed() {
  install "$1"
  use_bridge
}

it_is_at_work() {
  local images=$1 seconds=$2
  systemctl is-active corten.service
  serve_images "$images"
  systemd-run --quiet --unit pulls bash "$(realpath "$0")" pulls
  systemd-run --quiet --unit creates bash "$(realpath "$0")" creates
  # Something has been done, and something is on its way.
  until_true 120 has_a_container
  sleep "$seconds"
}
has_a_container() { [ -n "$(corten ps --all --quiet)" ]; }

pulls() {
  while :; do
    for name in "${names[@]}"; do
      corten pull "registry.k8s.io/e2e-test-images/$name"
      [ "$name" = "${names[0]}" ] || corten rmi "registry.k8s.io/e2e-test-images/$name"
    done
  done
}

creates() {
  local round=0 id
  while :; do
    : $((round += 1))
    id=$(pod "cut-$$-$round") || continue
    container "cut-$$-$round" "$id" one 'echo x >/written; sleep 100000'
    [ $((round % 2)) = 0 ] || corten rmp --force "$id"
  done
}

it_starts_clean() {
  until_true 60 corten version
  expect 'restarts' "$(systemctl show --value -p NRestarts corten.service)" 0
  expect 'ready pods' "$(corten pods --state ready --quiet)" ''
  expect 'running' "$(corten ps --quiet)" ''
}

no_layer_is_bad() {
  corten images
  corten check-images
}

what_was_can_go() {
  local id
  for id in $(corten pods --quiet --no-trunc); do corten rmp --force "$id"; done
  expect 'pods' "$(corten pods --quiet)" ''
  expect 'writable layers' "$(ls /var/lib/corten/containers)" ''
  expect 'addresses' "$(find /var/lib/cni/networks -name '10.*')" ''
  expect 'results' "$(ls /var/lib/cni/results)" ''
}

it_works_as_before() {
  serve_images "$1"
  local name id made
  for name in "${names[@]}"; do corten pull "registry.k8s.io/e2e-test-images/$name"; done
  corten check-images
  id=$(pod after)
  made=$(container after "$id" after 'exec sleep 100000')
  expect 'a command' "$(corten exec --sync "$made" echo well)" well
  corten rmp --force "$id"
}

has_come_back() {
  check cut::the_daemon_starts_clean it_starts_clean
  check cut::no_layer_is_bad no_layer_is_bad
  check cut::what_was_begun_can_be_removed what_was_can_go
  check cut::pulls_and_pods_work_as_before it_works_as_before "$1"
}

case $1 in
  pulls) pulls ;;
  creates) creates ;;
  before)
    check cut::it_is_installed it_is_installed "$4"
    check cut::it_is_at_work it_is_at_work "$2" "$3"
    finish
    ;;
  again)
    has_come_back "$2"
    check cut::it_is_at_work_again it_is_at_work "$2" "$3"
    finish
    ;;
  after)
    has_come_back "$2"
    finish
    ;;
esac
