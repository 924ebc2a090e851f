# Sourced by hack/test: the tests that run in the guest of hack/vm.
# shellcheck shell=bash disable=SC2154 # variables and functions of hack/test

# Of the end-to-end tests, what depends on the machine: control groups, security modules, the kernel's age, systemd.
guest_names=(functional crash security errors::cgroups errors::requests errors::network
  errors::config)

# Of these, what hack/test runs there without --vm, beside the kubelet's pod of tests/vm/slices.sh.
guest_few=(functional::limits functional::bounds)

# What the guest is for, and what an emulated processor cannot do in time.
guest_unfit=(
  # Thousands of requests, which say the same on any machine.
  --skip errors::random --skip errors::malformed
  # Files and HTTP alone, likewise.
  --skip functional::archives --skip functional::artifacts --skip functional::registries
  # Every system call of theirs is traced, and the guest has no runsc.
  --skip functional::sandboxed
)

# What runs in a guest with SELinux in the place of AppArmor: what is labelled, and what a container may see of it.
guest_labelled=(security::selinux functional::containers functional::exec functional::processes functional::pods
  functional::network functional::image_volumes crash::monitor)

# Which guest it is, see hack/vm.
guest_kind=(--kernel "${CORTEN_TEST_KERNEL:-stock}")

# How many times as long as usual things may take there.
guest_slowness=${CORTEN_TEST_SLOWNESS:-10}

# guest_make: the guest, and the programs for it. Fails when the guest cannot be had, which is no failed test.
guest_make() {
  guest=$work/guest
  mkdir -p "$guest/bin"
  title 'the guest'
  # One that was made has booted.
  if ! hack/vm "${guest_kind[@]}" --made 2>&1 | tee "$guest/log"; then
    skip 'tests in the guest' "it cannot be had: $(tail -n 1 "$guest/log")"
    return 1
  fi
  check 'programs for the guest' guest_programs
}

# test_program ARG...: the path of the program that cargo test with these arguments would run. It is one of those
# that are built for it, the one with the profile of tests.
test_program() {
  cargo test --quiet --no-run --message-format=json "$@" |
    sed -n '/"test":true},"features"/s/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1
}

guest_programs() {
  local programs program
  programs=$(dirname "$(realpath "${CORTEN_BIN:-${CARGO_TARGET_DIR:-target}/release/corten}")")
  strip -o "$guest/bin/e2e" "$(test_program --package corten-tests --test e2e)" || return 1
  strip -o "$guest/bin/unit" "$(test_program --package corten-runtime --lib)" || return 1
  for program in corten corten-runtime; do strip -o "$guest/bin/$program" "$programs/$program" || return 1; done
  guest_images "$(realpath "${CORTEN_IMAGES:-target/images}")" "$guest/images" || return 1
  # At the same places as here, since the program of the tests knows them.
  here=$(pwd -P)
  local certificates=$here/image/src/registry/tests/pem
  guest_copies=(
    --copy "$guest/bin:/usr/local/bin" --copy "$here/tests/vm:/root/vm" --copy "$certificates:$certificates"
    --copy "$here/hack:$here/hack" --copy "$guest/images:$here/target/images"
  )
}

# guest_images FROM TO: the stand-in images without the large ones of hack/bench.
guest_images() {
  local from=$1 to=$2 registry=registry/docker/registry/v2 repository digest
  rm -rf "$to"
  mkdir -p "$to/$registry/blobs/sha256" "$to/layout/blobs/sha256" || return 1
  cp -a "$from/docker-registry" "$from/base.stamp" "$to/" || return 1
  cp -a "$from"/layout/*.json "$from/layout/oci-layout" "$to/layout/" || return 1
  cp -a "$from/$registry/repositories" "$to/$registry/" || return 1
  rm -rf "$to/$registry/repositories/corten"/{eight-*,files,gibibyte,large,layers}
  while read -r digest; do
    mkdir -p "$to/$registry/blobs/sha256/${digest:0:2}"
    cp -a "$from/$registry/blobs/sha256/${digest:0:2}/$digest" "$to/$registry/blobs/sha256/${digest:0:2}/" || return 1
    [ ! -e "$from/layout/blobs/sha256/$digest" ] ||
      cp -a "$from/layout/blobs/sha256/$digest" "$to/layout/blobs/sha256/" || return 1
  done < <(find "$to/$registry/repositories" -name link -printf '%h\n' | sed 's,.*/,,' | grep -E '^[0-9a-f]{64}$' | sort -u)
}

# in_guest NAME SCRIPT [ARG]...: test programs there, as tests/vm/SCRIPT.sh runs them.
in_guest() {
  local name=$1 script=$2; shift 2
  rm -f "$guest/skipped"
  local seconds=${guest_seconds:-360}
  tests "in the guest: $name" hack/vm "${guest_kind[@]}" --timeout $((seconds * guest_slowness)) "${guest_copies[@]}" \
    --get "/root/skipped:$guest/skipped" -- env CORTEN_BIN=/usr/local/bin/corten \
    CORTEN_TEST_SKIPPED=/root/skipped "CORTEN_TEST_SLOWNESS=$guest_slowness" \
    ${CORTEN_TEST_ROUNDS:+"CORTEN_TEST_ROUNDS=$CORTEN_TEST_ROUNDS"} bash "/root/vm/$script.sh" "$@"
  [ ! -e "$guest/skipped" ] || take_skipped "$guest/skipped"
}

# guest_deb: the package of this version, and of a next one that differs in its number.
guest_deb() {
  local image=registry.k8s.io/e2e-test-images/busybox:1.29-2
  hack/install dpkg-dev skopeo || return 1
  DPKG_DEB_COMPRESSOR_TYPE=none CORTEN_PROGRAMS=$guest/bin hack/package "$guest/package" >"$guest/name" || return 1
  mv "$(cat "$guest/name")" "$guest/package/corten.deb" || return 1
  dpkg-deb -R "$guest/package/corten.deb" "$guest/next" || return 1
  sed -i 's/^Version: .*/&.1/' "$guest/next/DEBIAN/control"
  dpkg-deb --root-owner-group -Znone -b "$guest/next" "$guest/package/next.deb" >/dev/null || return 1
  skopeo copy --quiet "oci:${CORTEN_IMAGES:-target/images}/layout:$image" \
    "oci-archive:$guest/package/image.tar:$image" || return 1
  guest_scripts=(--copy "$guest/package:/root/package" --copy "$here/tests/vm:/root/vm")
  guest_pulls=(--copy "$here/hack:$here/hack" --copy "$guest/images:$here/target/images")
}

# guest_some: a few minutes of it, for every run of all tests.
guest_some() {
  guest_make || return 0
  check 'the package' guest_deb || return 0
  guest_copies+=(--copy "$guest/package:/root/package")
  local guest_seconds=120
  in_guest 'limits with systemd and cgroup v2' some "${guest_few[@]}"
}

# guest_script SCRIPT [ARG]...: tests of tests/vm. With options of hack/vm in guest_options.
guest_script() {
  local seconds=${guest_seconds:-120}
  tests "in the guest: $1" hack/vm "${guest_kind[@]}" --timeout $((seconds * guest_slowness)) \
    "${guest_scripts[@]}" ${guest_options[@]+"${guest_options[@]}"} -- bash "/root/vm/$1.sh" "${@:2}"
}

# What of tests/vm runs, each with a guest of its own and the package.
guest_scripted=(package slices clock reboot cut selinux critest)
deb=/root/package/corten.deb archive=/root/package/image.tar

script_package() { guest_script package $deb /root/package/next.deb $archive; }
script_slices() { guest_script slices $deb $archive; }
script_clock() { guest_script clock $deb $archive; }

# Two boots with one disk.
script_reboot() {
  local guest_options=(--disk "$guest/disk")
  guest_script reboot before $deb $archive
  # Nobody looks at how the last boot ends.
  guest_options+=(--cut)
  guest_script reboot after
  rm -f "$guest/disk"
}

# The power goes at three moments.
script_cut() {
  local guest_options=(--disk "$guest/disk" --cut "${guest_pulls[@]}")
  guest_script cut before "$here/target/images" 3 $deb
  guest_script cut again "$here/target/images" 11
  guest_script cut again "$here/target/images" 20
  guest_script cut after "$here/target/images"
  rm -f "$guest/disk"
}

# In a guest of its own.
script_selinux() {
  local guest_kind=("${guest_kind[@]}" --selinux)
  hack/vm "${guest_kind[@]}" --made 2>&1 | tee "$guest/log" || { skip 'SELinux' "$(tail -n 1 "$guest/log")"; return; }
  in_guest 'containers with labels' e2e "${guest_labelled[@]}"
  guest_critest --ginkgo.focus=SELinux
}

script_critest() { guest_critest; }

# guest_critest [OPTION]...: Kubernetes' own tests of a CRI runtime, where CRITEST names their program.
guest_critest() {
  [ -n "${CRITEST:-}" ] || { skip "critest in the guest $*" 'CRITEST names no program of it'; return; }
  local guest_options=(--copy "$CRITEST:/usr/local/bin/critest" "${guest_pulls[@]}") guest_seconds=600
  guest_script critest /usr/local/bin/critest "$here/target/images" $deb "$@"
}

guest_all() {
  local name names=() scripts=()
  for name; do
    if [[ " ${guest_scripted[*]} " == *" $name "* ]]; then scripts+=("$name"); else names+=("$name"); fi
  done
  [ $# != 0 ] || names=("${guest_names[@]}") scripts=("${guest_scripted[@]}")
  guest_make || return 0
  [ ${#names[@]} = 0 ] || in_guest 'tests that start containers' e2e "${names[@]}" "${guest_unfit[@]}"
  [ ${#scripts[@]} != 0 ] || return 0
  check 'the package' guest_deb || return 0
  for name in "${scripts[@]}"; do "script_$name"; done
}
