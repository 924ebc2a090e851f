# Sourced by the tests that run in the guest of hack/vm. Each is a function that `check` calls; what they say
# is what cargo's tests say, so that hack/test counts both in one way.
# shellcheck shell=bash

passed=0 failed=0 failures=()

# check NAME FUNCTION [ARG]...: one test. It fails with the first command that fails.
check() {
  local name=$1 status; shift
  # Not as a part of a condition, where -e would mean nothing.
  (set -euo pipefail; "$@") >/run/check.log 2>&1
  status=$?
  if [ $status = 0 ]; then
    passed=$((passed + 1))
    echo "test $name ... ok"
  else
    failed=$((failed + 1)) failures+=("$name")
    echo "test $name ... FAILED ($status)"
    sed 's/^/    | /' /run/check.log
  fi
}

# finish: the sum, and whether all passed.
finish() {
  if [ $failed -gt 0 ]; then
    printf '\nfailures:\n'
    printf '    %s\n' "${failures[@]}"
    printf '\ntest result: FAILED.'
  else
    printf '\ntest result: ok.'
  fi
  echo " $passed passed; $failed failed; 0 ignored; 0 measured; 0 filtered out"
  exit $((failed > 0))
}

# expect WHAT IS SHOULD: compares.
expect() {
  [ "$2" = "$3" ] || { echo "$1 is '$2' and should be '$3'"; return 1; }
}

# refute COMMAND...: must fail; to -e a command with ! never has.
refute() {
  if "$@"; then
    echo "should not succeed: $*"
    return 1
  fi
}

# until_true SECONDS COMMAND...: asks until it is so.
until_true() {
  local end=$((SECONDS + $1)); shift
  until "$@"; do
    [ $SECONDS -lt $end ] || { echo "waited in vain for: $*"; return 1; }
    sleep 0.1
  done
}

# install CORTEN.deb: as a person does it, without a network.
install() { DEBIAN_FRONTEND=noninteractive apt-get install -y "$1"; }

# The package's example of a network becomes the node's.
use_bridge() {
  mkdir -p /etc/cni/net.d
  cp /usr/share/corten/cni/10-bridge.conflist /etc/cni/net.d/
  until_true 60 network_is_ready
}
network_is_ready() {
  corten info --quiet | jq -e '.status.conditions | any(.type == "NetworkReady" and .status)' >/dev/null
}

# serve_images IMAGES: a registry with the stand-in images, of which IMAGES is target/images.
serve_images() {
  "$1/../../hack/images" conf 5000 >/etc/containers/registries.conf
  cat >/run/registry.yml <<YML
version: 0.1
log: { level: error, accesslog: { disabled: true } }
storage: { filesystem: { rootdirectory: $1/registry } }
http: { addr: "127.0.0.1:5000" }
YML
  systemctl is-active --quiet registry.service ||
    systemd-run --quiet --unit registry "$1/docker-registry" serve /run/registry.yml
  until_true 60 curl -sf http://127.0.0.1:5000/v2/
}

image=registry.k8s.io/e2e-test-images/busybox:1.29-2

# pod NAME [CGROUP_PARENT]: runs one, and prints its id.
pod() {
  mkdir -p "/var/log/pods/$1"
  jq -n --arg name "$1" --arg parent "${2:-}" '{
    metadata: {name: $name, uid: $name, namespace: "default"}, log_directory: "/var/log/pods/\($name)",
    linux: {cgroup_parent: $parent},
  }' >"/run/pod-$1.json"
  corten runp "/run/pod-$1.json"
}

# container POD NAME SCRIPT [RESOURCES]: makes and starts one, and prints its id. POD is the pod's name and id.
container() {
  local name=$1 id=$2 resources=${5:-\{\}} made
  jq -n --arg name "$3" --arg image "$image" --arg script "$4" --argjson resources "$resources" '{
    metadata: {name: $name}, image: {image: $image}, command: ["sh", "-c", $script], log_path: "\($name).log",
    linux: {resources: $resources},
  }' >"/run/container-$name.json"
  made=$(corten create "$id" "/run/container-$name.json" "/run/pod-$name.json")
  corten start "$made" >/dev/null
  echo "$made"
}

# pid_of CONTAINER: its first process.
pid_of() { corten inspect "$1" | jq .info.pid; }
