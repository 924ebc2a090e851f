#!/usr/bin/env bash
# Kubernetes' own tests of a CRI runtime on a stock node with AppArmor, by a program that somebody built from
# their public source, with the digest of the stand-in image.
#
#   critest.sh CRITEST IMAGES CORTEN.deb [OPTION]...     IMAGES is target/images, the options are critest's
set -uo pipefail
. "$(dirname "$0")/lib.sh"
critest=$1 images=$2 deb=$3
shift 3
report=/run/critest.json

it_is_installed() {
  install "$deb"
  use_bridge
  serve_images "$images"
}

all_specs_end() {
  # It looks for a file of its own in the directory where it is.
  cd /run
  "$critest" -runtime-endpoint unix:///run/corten/corten.sock -config /dev/null --ginkgo.no-color \
    --ginkgo.timeout 3h --ginkgo.json-report "$report" "$@" >/run/critest.log 2>&1 || true
  # Specs that a suite does not come to count as skipped.
  jq -e '.[0] | (.SpecialSuiteFailureReasons // []) == [] and any(.SpecReports[]; .State == "passed")' "$report" \
    >/dev/null || { tail -n 20 /run/critest.log; return 1; }
}

# Each spec as a test, with what it said when it failed.
specs() {
  jq -r '.[].SpecReports[] | select(.LeafNodeType == "It")
    | [.State, ([.ContainerHierarchyTexts[], .LeafNodeText] | join(" ")), (.Failure.Message // "")] | @tsv' "$report"
}

check critest::it_is_installed it_is_installed
check critest::all_specs_end all_specs_end "$@"
while IFS=$'\t' read -r state name why; do
  case $state in
    # What the node or the runtime does not have, as the runtime says.
    skipped | pending) ;;
    *) check "critest::$name" expect "it ($why)" "$state" passed ;;
  esac
done < <(specs)
finish
