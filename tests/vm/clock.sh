#!/usr/bin/env bash
# A node whose clock is set a day on, and two days back, with pods running.
#
#   clock.sh CORTEN.deb IMAGE.tar
set -uo pipefail
. "$(dirname "$0")/lib.sh"

now() { cut -d. -f1 /proc/uptime; }

a_pod_runs() {
  install "$1"
  use_bridge
  corten import "$2"
  local id
  id=$(pod clock)
  container clock "$id" counts 'i=0; while :; do echo $((i += 1)); sleep 1; done' >/run/counts
  container clock "$id" stubborn "trap '' TERM; while :; do sleep 1; done" >/run/stubborn
}

# within LEAST MOST COMMAND...: how many seconds it may take, whatever the clock says.
within() {
  local least=$1 most=$2 began took; shift 2
  began=$(now)
  "$@" || true
  took=$(($(now) - began))
  [ "$took" -ge "$least" ] && [ "$took" -le "$most" ] || { echo "took $took s: $*"; return 1; }
}

# set_clock HOW...: with a deadline running.
deadlines_hold() {
  local began took
  began=$(now)
  corten exec --sync --timeout 6 "$(cat /run/counts)" sleep 1000 &
  sleep 2
  date -s "$1"
  refute wait $!
  took=$(($(now) - began))
  [ "$took" -ge 5 ] && [ "$took" -le 40 ] || { echo "a deadline of 6 s held for $took s"; return 1; }
  within 2 40 corten exec --sync --timeout 3 "$(cat /run/counts)" sleep 1000
}

statistics_go_on() {
  local one two
  one=$(cpu)
  until_true 30 more_than "$one"
  two=$(corten stats -o json | jq -r '.stats[0].cpu.timestamp')
  # Of now, as the clock has it.
  [ $((two / 1000000000 - $(date +%s))) -ge -60 ]
  [ $((two / 1000000000 - $(date +%s))) -le 60 ]
  corten statsp
  corten pods
  corten ps
}
cpu() {
  corten stats --id "$(cat /run/counts)" -o json | jq -r '.stats[0].cpu.usageCoreNanoSeconds.value'
}
more_than() { [ "$(cpu)" -gt "$1" ]; }

logs_go_on() {
  local file=/var/log/pods/clock/counts.log lines
  lines=$(wc -l <$file)
  until_true 30 longer_than "$lines" $file
  # With the time as it is now, and without a gap.
  tail -n 1 $file | grep "^$(date -u +%Y-%m-%d)T"
  awk '{ if ($4 != NR) { print "line " NR " is " $0; exit 1 } }' $file
  corten logs --tail 1 "$(cat /run/counts)"
}
longer_than() { [ "$(wc -l <"$2")" -gt "$1" ]; }

a_new_daemon_knows_all() {
  systemctl restart corten.service
  expect 'a command' "$(corten exec --sync "$(cat /run/counts)" echo well)" well
  statistics_go_on
}

a_grace_period_holds() {
  within 2 40 corten stop --timeout 3 "$(cat /run/stubborn)"
  corten inspect "$(cat /run/stubborn)" | jq -e '.status.exitCode == 137'
  # What happened later is not said to be earlier.
  corten inspect "$(cat /run/stubborn)" | jq -r '.status | .createdAt, .startedAt, .finishedAt'
}

check clock::a_pod_runs a_pod_runs "$1" "$2"
check clock::deadlines_hold_when_it_is_set_a_day_on deadlines_hold '+1 day'
check clock::statistics_go_on_after_that statistics_go_on
check clock::logs_go_on_after_that logs_go_on
check clock::deadlines_hold_when_it_is_set_two_days_back deadlines_hold '-2 days'
check clock::statistics_go_on_after_that_too statistics_go_on
check clock::logs_go_on_after_that_too logs_go_on
check clock::a_new_daemon_knows_all a_new_daemon_knows_all
check clock::a_grace_period_holds a_grace_period_holds
finish
