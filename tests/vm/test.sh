#!/bin/bash
# The tests of mounts and of whole stores on other kernels than this machine's, in a virtual machine. README.md has the whole.
#
#     test.sh [--kernel SUITE] [NAME..]
#
# The kernels are those of the suites of Debian below, or the one that is named. NAME: only tests whose names contain one of
# these words, in place of those that a kernel is there for.
#
# Says so and ends with 0 if no virtual machine can be started; ends with something else if a test fails.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
target=${CARGO_TARGET_DIR:-$PWD/target}
vm=$target/vm

# What each kernel is there for.
declare -A tests=(
    # Old: no `lowerdir+`, no data-only layers.
    [bookworm]="overlay:: mounts:: layers:: read_only:: image_stores:: depth:: sealing:: id_maps:: quota:: composefs:: sys::"
    # New, with fs-verity.
    [trixie-backports]="overlay:: mounts:: composefs:: id_maps:: verity::"
)
kernels=(bookworm trixie-backports)
if [ "${1:-}" = --kernel ]; then
    kernels=("${2:?test.sh: --kernel needs a suite of Debian: ${kernels[*]}}")
    shift 2
fi

skip() {
    echo "skipped: tests in a virtual machine: $1"
    exit 0
}

build() {
    cargo test --package layerstore --lib --test main --no-run 2>&1 | tee "$vm/build.log" || return
    executables=$(sed -n 's/^ *Executable .* (\(.*\))$/\1/p' "$vm/build.log")
    # The machine has a /tmp of its own, and a checkout may lie there.
    rm -rf "$vm/bin" && mkdir -p "$vm/bin" && cp "$target/debug/layerstore" "$vm/bin/layerstore" || return
    export LAYERSTORE_BIN=$vm/bin/layerstore LAYERSTORE_REPOSITORY=$PWD
    export LAYERSTORE_IMAGES=${LAYERSTORE_IMAGES:-$target/images/debian}
}

# The output of passed tests says what they skipped, and is long: it is in the log only.
without_successes() { awk '/^successes:$/ { hidden = 1 } /^(failures:|test result:)/ { hidden = 0 } !hidden { print; fflush() }'; }

# run_on SUITE NAME..
run_on() {
    local suite=$1 log=$vm/$1.tests.log executable result status=0
    shift
    printf '\n==== on the kernel of %s: %s\n' "$suite" "$*"
    : >"$log"
    for executable in $executables; do
        cp "$executable" "$vm/bin/tests" || return
        tests/vm/run.sh --kernel "$suite" "$vm/bin/tests" --show-output "$@" 2>&1 | tee -a "$log" | without_successes
        result=${PIPESTATUS[0]}
        [ "$result" != 77 ] || return 77
        [ "$result" = 0 ] || status=$result
    done
    return "$status"
}

summary() {
    local suite=$1 log=$vm/$1.tests.log
    printf '\n%s, %s:\n' "$suite" "$(ls "$vm/$suite/lib/modules" 2>/dev/null || echo "no kernel")"
    sed -n 's/^skip\(ped\|ping\)\?[: ]/  skipped: /Ip' "$log" | sort | uniq
    sed -n 's/^test \(.*\) \.\.\. FAILED$/  FAILED:  \1/p; s/^run.sh: /  &/p' "$log" | sort | uniq
    sed -n 's/^test result: /  &/p' "$log"
}

mkdir -p "$vm" || exit 1
tests/vm/install.sh >"$vm/install.log" 2>&1 || skip "$(tail -n 1 "$vm/install.log")"
[ "${LAYERSTORE_VM_ACCEL:-kvm}" = kvm ] && [ -w /dev/kvm ] ||
    echo "Without KVM all kernels together take half an hour; \`--kernel SUITE\` and names of tests make it shorter."
build || exit 1

status=0
for suite in "${kernels[@]}"; do
    names=("$@")
    # shellcheck disable=SC2206 # words
    [ $# -gt 0 ] || names=(${tests[$suite]:-${tests[bookworm]}})
    run_on "$suite" "${names[@]}"
    result=$?
    # A kernel may be out of reach for a while, and the others not.
    if [ "$result" != 0 ] && [ "$result" != 77 ]; then status=1; fi
done
printf '\n==== summary\n'
for suite in "${kernels[@]}"; do summary "$suite"; done
exit "$status"
