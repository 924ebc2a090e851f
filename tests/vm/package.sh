#!/usr/bin/env bash
# The package on a stock node: installed, hung, upgraded under ten pods, removed, purged.
#
#   package.sh OLD.deb NEW.deb IMAGE.tar
set -uo pipefail
. "$(dirname "$0")/lib.sh"
old=$1 new=$2 archive=$3

main_pid() { systemctl show --value -p MainPID corten.service; }

it_is_installed() {
  install "$old"
  systemctl is-active corten.service
  expect 'the unit' "$(systemctl is-enabled corten.service)" enabled
  expect 'its type' "$(systemctl show --value -p Type corten.service)" notify
  expect 'the watchdog' "$(systemctl show --value -p WatchdogUSec corten.service)" 1min
  expect 'restarts' "$(systemctl show --value -p NRestarts corten.service)" 0
  systemctl status --no-pager corten.service | grep -F 'Active: active (running)'
  systemd-analyze verify --man=no corten.service
  corten version
  corten info >/dev/null
  # By crictl's words and its configuration.
  grep -q corten.sock /etc/crictl.yaml
  # The example of a network is not the node's network.
  expect 'networks' "$(ls -A /etc/cni/net.d 2>/dev/null)" ''
  refute network_is_ready
}

the_profile_is_loaded() {
  grep '^corten-default (enforce)' /sys/kernel/security/apparmor/profiles
}

an_image_and_ten_pods() {
  use_bridge
  corten import "$archive"
  for number in 0 1 2 3 4 5 6 7 8 9; do
    id=$(pod "ten-$number")
    made=$(container "ten-$number" "$id" "c$number" 'i=0; while :; do echo $((i += 1)); sleep 1; done')
    echo "$made $(pid_of "$made")" >>/run/ten
  done
  ten_processes >/run/processes
}

monitors_have_a_scope() {
  local monitor
  monitor=$(pgrep -o -f '^corten-runtime monitor')
  expect 'their cgroup' "$(cat "/proc/$monitor/cgroup")" 0::/system.slice/corten-monitors.scope
  systemctl status --no-pager corten-monitors.scope | grep -F "Corten's monitors of pods"
  expect 'the service has' "$(cat /sys/fs/cgroup/system.slice/corten.service/cgroup.procs)" "$(main_pid)"
  [ ! -e /sys/fs/cgroup/corten ]
}

# The processes that are the containers, and when they began.
ten_processes() {
  local pid
  while read -r _ pid; do cut -d' ' -f1,22 "/proc/$pid/stat"; done </run/ten
}

# The same processes, known by the daemon as such; with how many of them to talk.
are_well() {
  local made
  expect 'processes' "$(ten_processes)" "$(cat /run/processes)"
  expect 'running' "$(corten ps --quiet --no-trunc | sort)" "$(cut -d' ' -f1 /run/ten | sort)"
  for made in $(head -n "$1" /run/ten | cut -d' ' -f1); do
    expect 'a command' "$(corten exec --sync "$made" echo well)" well
  done
}

a_reload_of_systemd_disturbs_nobody() {
  local before
  before=$(cat /sys/fs/cgroup/system.slice/corten-monitors.scope/cgroup.procs)
  systemctl daemon-reload
  systemctl daemon-reexec
  expect 'monitors' "$(cat /sys/fs/cgroup/system.slice/corten-monitors.scope/cgroup.procs)" "$before"
  are_well 1
}

an_upgrade_restarts_no_pod() {
  local before
  before=$(main_pid)
  install "$new"
  systemctl is-active corten.service
  [ "$(main_pid)" != "$before" ] || { echo 'the daemon is the old one'; return 1; }
  are_well 10
  expect 'scope' "$(systemctl is-active corten-monitors.scope)" active
}

a_stopped_service_leaves_the_pods() {
  systemctl stop corten.service
  expect 'processes' "$(ten_processes)" "$(cat /run/processes)"
  systemctl start corten.service
  are_well 1
}

a_daemon_that_hangs_is_replaced() {
  mkdir -p /run/systemd/system/corten.service.d
  printf '[Service]\nWatchdogSec=10\n' >/run/systemd/system/corten.service.d/quick.conf
  systemctl daemon-reload
  systemctl restart corten.service
  local before
  before=$(main_pid)
  kill -STOP "$before"
  until_true 120 is_another "$before"
  until_true 60 corten version
  expect 'the result' "$(journalctl -u corten.service --no-pager | grep -c 'Watchdog timeout')" 1
  are_well 1
}
is_another() { local now; now=$(main_pid); [ "$now" != 0 ] && [ "$now" != "$1" ]; }

a_removal_ends_the_pods_and_keeps_data() {
  DEBIAN_FRONTEND=noninteractive apt-get remove -y corten
  refute systemctl is-active corten.service
  local pid
  while read -r _ pid; do refute kill -0 "$pid" 2>/dev/null; done </run/ten
  until_true 20 no_monitor
  expect 'scopes' "$(find /sys/fs/cgroup -name 'corten*.scope')" ''
  expect 'interfaces' "$(find /sys/class/net -name 'veth*')" ''
  [ -e /etc/corten/config.toml ]
  [ -n "$(ls -A /var/lib/corten/images)" ]
}
no_monitor() { ! pgrep -f '^corten-runtime monitor'; }

a_later_install_has_the_images() {
  install "$new"
  corten images | grep e2e-test-images/busybox
}

a_purge_takes_all() {
  DEBIAN_FRONTEND=noninteractive apt-get purge -y corten
  for left in /var/lib/corten /run/corten /etc/corten /etc/crictl.yaml /etc/apparmor.d/corten-default \
    /lib/systemd/system/corten.service /usr/bin/corten; do
    [ ! -e "$left" ] || { echo "$left is left"; return 1; }
  done
  refute systemctl cat corten.service 2>/dev/null
  refute grep '^corten-default' /sys/kernel/security/apparmor/profiles
}

check package::it_is_installed_and_runs it_is_installed
check package::the_apparmor_profile_is_loaded the_profile_is_loaded
check package::ten_pods_run an_image_and_ten_pods
check package::monitors_are_in_a_scope_of_systemds monitors_have_a_scope
check package::a_reload_of_systemd_disturbs_nobody a_reload_of_systemd_disturbs_nobody
check package::an_upgrade_restarts_no_pod an_upgrade_restarts_no_pod
check package::a_stopped_service_leaves_the_pods a_stopped_service_leaves_the_pods
check package::a_daemon_that_hangs_is_replaced a_daemon_that_hangs_is_replaced
check package::a_removal_ends_the_pods_and_keeps_data a_removal_ends_the_pods_and_keeps_data
check package::a_later_install_has_the_images a_later_install_has_the_images
check package::a_purge_takes_all a_purge_takes_all
finish
