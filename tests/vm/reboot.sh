#!/usr/bin/env bash
# A node that is shut down with pods running, and started again with the same disk.
#
#   reboot.sh before CORTEN.deb IMAGE.tar     then the guest shuts down
#   reboot.sh after
set -uo pipefail
. "$(dirname "$0")/lib.sh"
notes=/root/reboot

it_is_prepared() {
  install "$1"
  use_bridge
  corten import "$2"
  mkdir -p $notes
  local id
  id=$(pod kept)
  echo "$id" >$notes/pod
  container kept "$id" running 'echo before; exec sleep 100000' >$notes/running
  container kept "$id" ended 'echo last words; exit 5' >$notes/ended
  until_true 30 has_ended "$(cat $notes/ended)"
  corten inspectp "$id" | jq -r .status.network.ip >$notes/ip
  timed_pod usual
  cp /run/timed $notes/usual
  ls /run/netns >$notes/netns
  cat /proc/sys/kernel/random/boot_id >$notes/boot
  # The next boot's first pod, as soon as the daemon is up.
  cat >/etc/systemd/system/first-pod.service <<UNIT
[Unit]
Requires=corten.service
After=corten.service
Before=kubelet.service
[Service]
Type=oneshot
ExecStart=/bin/bash $(realpath "$0") first
[Install]
WantedBy=multi-user.target
UNIT
  systemctl enable first-pod.service
}
has_ended() { [ "$(corten inspect "$1" | jq -r .status.state)" = CONTAINER_EXITED ]; }

first_pod() {
  set -e
  # Named after the boot: there may be another one.
  timed_pod "first-$(cut -c1-8 /proc/sys/kernel/random/boot_id)" >$notes/first
  cp /run/timed $notes/times
  # Before anybody stops them.
  corten pods --no-trunc >$notes/pods
  corten inspect "$(cat $notes/running)" >$notes/running.json
  corten inspect "$(cat $notes/ended)" >$notes/ended.json
}

# timed_pod NAME: a pod with a container, whose id is printed; when it was begun, was a pod and was done is in /run/timed.
timed_pod() {
  local id began between
  began=$(now)
  id=$(pod "$1")
  between=$(now)
  container "$1" "$id" "$1" 'exec sleep 100000'
  echo "$began $between $(now)" >/run/timed
}
now() { cut -d' ' -f1 /proc/uptime; }

first_pod_is_done() {
  systemctl show --value -p ActiveState first-pod.service | grep -E '^(inactive|failed)$'
}

it_is_another_boot() {
  until_true 180 first_pod_is_done
  [ "$(cat $notes/boot)" != "$(cat /proc/sys/kernel/random/boot_id)" ]
}

the_pod_is_not_ready() {
  grep "$(cat $notes/pod)" $notes/pods | grep -i notready
}

containers_have_ended_with_a_reason() {
  jq -r '.status | "\(.state) \(.exitCode) \(.reason) \(.message)"' $notes/running.json | tee /dev/stderr |
    grep -E '^CONTAINER_EXITED (255 Unknown .*restarted|143 Error|137 Error)'
  expect 'the other' "$(jq -r '.status | "\(.state) \(.exitCode)"' $notes/ended.json)" 'CONTAINER_EXITED 5'
}

addresses_are_given_back() {
  local id
  id=$(cat $notes/pod)
  corten stopp "$id"
  # The address of the old pod may be the new one's.
  expect 'addresses' "$(grep -l "^$id" /var/lib/cni/networks/bridge/* || true)" ''
  expect 'namespaces' "$(grep -Fxf $notes/netns <(ls /run/netns) || true)" ''
  expect 'results' "$(find /var/lib/cni/results -name "*$id*")" ''
}

images_and_logs_are_kept() {
  corten images | grep e2e-test-images/busybox
  grep 'stdout F last words' /var/log/pods/kept/ended.log
  grep 'stdout F before' /var/log/pods/kept/running.log
  expect 'logs' "$(corten logs "$(cat $notes/ended)")" 'last words'
  corten check-images
}

# Five seconds after the daemon is there; what has to be emulated takes as much longer as a pod without a reboot does.
the_first_pod_is_quick() {
  local up
  up=$(systemctl show --value -p ActiveEnterTimestampMonotonic corten.service)
  paste -d' ' $notes/usual $notes/times | awk -v up="$up" '{
    usual = $3 - $1; took = $6 - up / 1e6
    printf "first container %.1f s after the daemon: asked for after %.1f s, its pod there after %.1f s; %.1f s without a reboot\n",
      took, $4 - up / 1e6, $5 - up / 1e6, usual
    exit !(took < 5 || took < 3 * usual + 5)
  }' | tee $notes/figures
  expect 'a command' "$(corten exec --sync "$(cat $notes/first)" echo well)" well
}

the_old_pod_can_go() {
  corten rmp "$(cat $notes/pod)"
  refute grep "$(cat $notes/pod)" <(corten pods --no-trunc)
}

case $1 in
  first) first_pod ;;
  before)
    check reboot::a_pod_runs_before it_is_prepared "$2" "$3"
    finish
    ;;
  after)
    check reboot::it_is_another_boot it_is_another_boot
    check reboot::its_pods_are_not_ready the_pod_is_not_ready
    check reboot::their_containers_have_ended_with_a_reason containers_have_ended_with_a_reason
    check reboot::the_first_pod_comes_soon_after_the_daemon the_first_pod_is_quick
    check reboot::addresses_and_namespaces_are_given_back addresses_are_given_back
    check reboot::images_and_logs_are_kept images_and_logs_are_kept
    check reboot::the_old_pod_can_be_removed the_old_pod_can_go
    cat $notes/figures
    finish
    ;;
esac
