#!/bin/bash
# The tests of mounts and of whole stores on Debian's kernel, which is older than most: see run.sh.
#
#     test.sh [NAME..]      only the tests whose names contain one of these words
#
# Says so and ends with 0 if no virtual machine can be started.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
target=${CARGO_TARGET_DIR:-$PWD/target}
bin=$target/vm/bin

skip() {
    echo "skipped: tests on Debian's kernel: $1"
    exit 0
}

tests/vm/install.sh >"$target/vm-install.log" 2>&1 || skip "$(tail -n 1 "$target/vm-install.log")"
executables=$(cargo test --package layerstore --lib --test main --no-run 2>&1 | tee /dev/stderr |
    sed -n 's/^ *Executable .* (\(.*\))$/\1/p') || exit 1
# The machine has a /tmp of its own, and a checkout may lie there.
rm -rf "$bin" && mkdir -p "$bin" || exit 1
cp "$target/debug/layerstore" "$bin/layerstore" || exit 1
export LAYERSTORE_BIN=$bin/layerstore LAYERSTORE_REPOSITORY=$PWD LAYERSTORE_IMAGES=${LAYERSTORE_IMAGES:-$target/images/debian}
[ $# -gt 0 ] || set -- overlay:: mounts:: layers:: read_only:: image_stores:: depth:: sealing:: sys::

status=0
for executable in $executables; do
    cp "$executable" "$bin/tests" || exit 1
    tests/vm/run.sh "$bin/tests" "$@" || {
        status=$?
        [ "$status" != 77 ] || skip "see above"
    }
done
exit "$status"
