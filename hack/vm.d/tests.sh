# Sourced by hack/test: the tests that run in the guest of hack/vm.
# shellcheck shell=bash disable=SC2154 # variables and functions of hack/test

# Of the end-to-end tests, what depends on the machine: control groups, security modules, the kernel's age, systemd.
guest_names=(functional crash security errors::requests errors::network errors::config)

# What the guest is for, and what an emulated processor cannot do in time.
guest_unfit=(
  # Thousands of requests, which say the same on any machine.
  --skip errors::random --skip errors::malformed
  # Every system call of theirs is traced, and the guest has no runsc.
  --skip functional::sandboxed
)

# guest_make: the guest, the tests' program and the package; fails when the guest cannot be had.
guest_make() {
  guest=$work/guest
  mkdir -p "$guest/bin"
  title 'the guest'
  if ! hack/vm --make 2>&1 | tee "$guest/log"; then
    skip 'tests in the guest' "it cannot be made: $(tail -n 1 "$guest/log")"
    return 1
  fi
  local programs e2e tests=(cargo test --quiet --package corten-tests --test e2e)
  programs=$(dirname "$(realpath "${CORTEN_BIN:-${CARGO_TARGET_DIR:-target}/release/corten}")")
  e2e=$("${tests[@]}" --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
  strip -o "$guest/bin/e2e" "$e2e" || return 1
  for program in corten corten-runtime; do strip -o "$guest/bin/$program" "$programs/$program" || return 1; done
  # At the same places as here, since the program of the tests knows them.
  here=$(pwd -P)
  guest_copies=(
    --copy "$guest/bin/e2e:/root/e2e" --copy "$guest/bin/corten:/usr/local/bin/corten"
    --copy "$guest/bin/corten-runtime:/usr/local/bin/corten-runtime"
    --copy "$here/hack:$here/hack" --copy "${CORTEN_IMAGES:-$here/target/images}:$here/target/images"
  )
}

# guest_e2e NAME...: the end-to-end tests in the guest.
guest_e2e() {
  tests 'in the guest: tests that start containers' hack/vm --timeout 3000 "${guest_copies[@]}" \
    --get "/root/skipped:$guest/skipped" -- env CORTEN_BIN=/usr/local/bin/corten \
    CORTEN_TEST_SKIPPED=/root/skipped CORTEN_TEST_SLOWNESS=5 /root/e2e "$@" "${guest_unfit[@]}"
  [ ! -e "$guest/skipped" ] || take_skipped "$guest/skipped"
}

# guest_package: the package of this version, and of a next one that differs in its number.
guest_package() {
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
}

# guest_script SCRIPT [ARG]...: tests of tests/vm. With options of hack/vm in guest_options.
guest_script() {
  tests "in the guest: $1" hack/vm --timeout 900 "${guest_scripts[@]}" ${guest_options[@]+"${guest_options[@]}"} \
    -- bash "/root/vm/$1.sh" "${@:2}"
}

guest_all() {
  local names=("$@") round
  guest_make || return 0
  [ $# != 0 ] || names=("${guest_names[@]}")
  guest_e2e "${names[@]}"
  [ $# = 0 ] || return 0
  check 'the package' guest_package
  local deb=/root/package/corten.deb image=/root/package/image.tar
  guest_options=()
  guest_script package $deb /root/package/next.deb $image
  guest_script slices $deb $image
  guest_script clock $deb $image
  # Two boots with one disk.
  guest_options=(--disk "$guest/disk")
  guest_script reboot before $deb $image
  guest_script reboot after
  rm -f "$guest/disk"
  # The power goes at three moments.
  local images=(--copy "$here/hack:$here/hack" --copy "${CORTEN_IMAGES:-$here/target/images}:$here/target/images")
  for round in 3 11 20; do
    guest_options=(--disk "$guest/disk" --cut "${images[@]}")
    guest_script cut before "$here/target/images" $round $deb
    guest_options=(--disk "$guest/disk")
    guest_script cut after "$here/target/images"
  done
  rm -f "$guest/disk"
}
