#!/usr/bin/env bash
# A burstable pod as a kubelet asks for it, below kubepods.slice: the units, the cgroups and what they say.
# Expected is what CRI-O gives for the same request, read from its source (1.36, with the properties of
# opencontainers/cgroups); what differs on purpose is in tests/README.md.
#
#   slices.sh CORTEN.deb IMAGE.tar
set -uo pipefail
. "$(dirname "$0")/lib.sh"

uid=0f2c1c9a_6f0a_4d0e_9a51_1d2f6a1c0b11
slice=kubepods-burstable-pod$uid.slice
path=/kubepods.slice/kubepods-burstable.slice/$slice
files=/sys/fs/cgroup$path

# Requests of 250m and 64 MiB, limits of 500m and 128 MiB: what the kubelet makes of them.
resources='{
  "cpu_period": 100000, "cpu_quota": 50000, "cpu_shares": 256, "oom_score_adj": 968,
  "memory_limit_in_bytes": 134217728, "memory_swap_limit_in_bytes": 134217728,
  "hugepage_limits": [{"page_size": "2MB", "limit": 0}], "unified": {"memory.oom.group": "1"}
}'

# slice NAME PROPERTY...: makes one over D-Bus as the kubelet does.
slice() {
  local name=$1; shift
  busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager \
    StartTransientUnit 'ssa(sv)a(sa(sv))' "$name" replace $((5 + $# / 3)) MemoryAccounting b true \
    CPUAccounting b true IOAccounting b true TasksAccounting b true DefaultDependencies b false "$@" 0
}

the_pod_runs() {
  install "$1"
  use_bridge
  corten import "$2"
  expect 'the driver' "$(corten runtime-config | grep -i 'cgroup driver')" 'cgroup driver: SYSTEMD'
  slice kubepods.slice
  slice kubepods-burstable.slice
  slice "$slice" CPUWeight t 35 CPUQuotaPerSecUSec t 500000 MemoryMax t 134217728 TasksMax t 1000
  until_true 30 test -d "$files"
  local id
  id=$(pod burstable "$path")
  container burstable "$id" limited 'sleep 100000 & exec sleep 100000' "$resources" >/run/limited
}

the_tree_is_crios() {
  local scope
  scope=corten-$(cat /run/limited).scope
  expect 'cgroups of the pod' "$(cd "$files" && find . -mindepth 1 -type d)" "./$scope"
  expect 'processes of the pod itself' "$(cat "$files/cgroup.procs")" ''
  expect 'processes of the container' "$(wc -l <"$files/$scope/cgroup.procs")" 2
  expect 'its first' "$(head -n 1 "$files/$scope/cgroup.procs")" "$(pid_of "$(cat /run/limited)")"
  systemctl status --no-pager "$slice" | tee /dev/stderr | grep -F "CGroup: $path"
  systemctl status --no-pager "$slice" | grep -F "$scope"
  systemctl status --no-pager "$scope" | tee /dev/stderr | grep -F 'Active: active (running)'
  systemctl status --no-pager "$scope" | grep -F "CGroup: $path/$scope"
}

the_units_properties_are_crios() {
  local scope is should
  scope=corten-$(cat /run/limited).scope
  should="Slice=$slice
ControlGroup=$path/$scope
Delegate=yes
CPUAccounting=yes
CPUWeight=35
CPUQuotaPerSecUSec=500ms
IOAccounting=yes
MemoryAccounting=yes
MemoryMin=0
MemoryLow=0
MemoryHigh=infinity
MemoryMax=134217728
MemorySwapMax=0
TasksAccounting=yes
TasksMax=infinity
DefaultDependencies=yes"
  is=$(while IFS== read -r name _; do systemctl show -p "$name" "$scope"; done <<<"$should")
  diff <(echo "$should") <(echo "$is")
  systemctl show --value -p After "$scope" | grep -w corten.service
}

oom_kills_the_whole_container() {
  expect 'memory.oom.group' "$(cat "$files/corten-$(cat /run/limited).scope/memory.oom.group")" 1
}

the_kernels_values_are_crios() {
  local scope should is
  scope=$files/corten-$(cat /run/limited).scope
  should='cpu.max 50000 100000
cpu.weight 35
cpuset.cpus 
cpuset.mems 
hugetlb.2MB.max 0
memory.high max
memory.low 0
memory.max 134217728
memory.min 0
memory.swap.max 0
pids.max max'
  is=$(while read -r file _; do echo "$file $(cat "$scope/$file")"; done <<<"$should")
  diff <(echo "$should") <(echo "$is")
  # And the kubelet's are as it left them.
  expect 'memory of the pod' "$(cat "$files/memory.max")" 134217728
  expect 'processes of the pod' "$(cat "$files/pids.max")" 1000
  expect 'the score' "$(cat "/proc/$(pid_of "$(cat /run/limited)")/oom_score_adj")" 968
}

a_reload_keeps_the_values() {
  systemctl daemon-reload
  the_units_properties_are_crios
  the_kernels_values_are_crios
  # Before 253 a scope has no word for it, and loses it.
  [ "$(systemctl --version | awk 'NR == 1 { print $2 }')" -lt 253 ] || oom_kills_the_whole_container
}

an_update_is_in_both() {
  local scope
  scope=corten-$(cat /run/limited).scope
  corten update --memory 100663296 --cpu-quota 25000 --cpu-period 50000 --cpu-share 512 "$(cat /run/limited)"
  expect 'memory.max' "$(cat "$files/$scope/memory.max")" 100663296
  expect 'MemoryMax' "$(systemctl show --value -p MemoryMax "$scope")" 100663296
  expect 'cpu.max' "$(cat "$files/$scope/cpu.max")" '25000 50000'
  expect 'cpu.weight' "$(cat "$files/$scope/cpu.weight")" 59
  systemctl daemon-reload
  expect 'memory.max after a reload' "$(cat "$files/$scope/memory.max")" 100663296
  expect 'cpu.max after a reload' "$(cat "$files/$scope/cpu.max")" '25000 50000'
}

nothing_of_it_is_left() {
  local id
  id=$(corten pods --name burstable --quiet --no-trunc)
  corten rmp --force "$id"
  expect 'cgroups' "$(cd "$files" && find . -mindepth 1 -type d)" ''
  expect 'units' "$(systemctl list-units --all --no-legend 'corten-*.scope' | grep -v corten-monitors)" ''
  systemctl stop kubepods.slice
  [ ! -e /sys/fs/cgroup/kubepods.slice ]
}

the_wrong_form_is_refused() {
  refute pod wrong /kubepods/burstable/pod1 2>/run/wrong
  grep -i slice /run/wrong
  refute pod wrong2 /kubepods.slice/other.slice 2>/run/wrong
  cat /run/wrong
  expect 'pods' "$(corten pods --name wrong --quiet)$(corten pods --name wrong2 --quiet)" ''
}

check slices::a_burstable_pod_runs the_pod_runs "$1" "$2"
check slices::the_tree_is_that_of_crio the_tree_is_crios
check slices::the_units_properties_are_those_of_crio the_units_properties_are_crios
check slices::the_kernels_values_are_those_of_crio the_kernels_values_are_crios
check slices::an_oom_kill_is_of_the_whole_container oom_kills_the_whole_container
check slices::a_reload_of_systemd_keeps_them a_reload_keeps_the_values
check slices::an_update_is_in_the_unit_and_in_the_kernel an_update_is_in_both
check slices::nothing_is_left_of_it nothing_of_it_is_left
check slices::a_parent_in_the_wrong_form_is_refused the_wrong_form_is_refused
finish
