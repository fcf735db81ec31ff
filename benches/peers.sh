#!/bin/bash
# Measures layerstore beside the programs that do the same work, and writes docs/performance.md.
#
#     benches/peers.sh [--row NAME].. [--quick] [--rounds N] [--dir DIR]
#     benches/peers.sh --report | --list
#
# As root, on a machine that does nothing else. Without --row it measures all rows, which takes most of an hour; --quick takes
# some minutes, and its figures mean nothing. DIR is a directory on a disk with 16 GB to spare: $LAYERSTORE_BENCH_DIR, else target.
#
# Whatever ends it, nothing is left: mounts are its own, and its files are removed.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" LC_ALL=C

die() {
    printf 'peers.sh: %s\n' "$*" >&2
    exit 1
}
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; }

target=${CARGO_TARGET_DIR:-$PWD/target}
dir=${LAYERSTORE_BENCH_DIR:-$target}
quick= measures=yes arguments=() rows=()
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h)
        usage
        exit 0
        ;;
    --report | --list) measures= arguments+=("$1") ;;
    --quick) quick=yes arguments+=("$1") ;;
    --row)
        rows+=("$1" "${2:?--row needs a name; --list lists them}")
        shift
        ;;
    --rounds)
        arguments+=("$1" "${2:?--rounds needs a number}")
        shift
        ;;
    --dir)
        dir=${2:?--dir needs a directory}
        shift
        ;;
    *)
        usage >&2
        die "$1 means nothing"
        ;;
    esac
    shift
done

# What is measured is linked statically, as `just static` does it. What it is beside the program with shared libraries, is a row.
host=$(rustc --print host-tuple)
bench() {
    RUSTFLAGS="${RUSTFLAGS-} -C target-feature=+crt-static" \
        cargo bench --target "$host" --package layerstore --bench peers "$@"
}
peers() { bench -- "$@"; }
# The time of compiling is not to be found in the figures: all is built before anything is measured.
build() {
    bench --no-run
    cargo build --release --package layerstore
}
export LAYERSTORE_SHARED_PROGRAM=$target/release/layerstore

if [ -z "$measures" ]; then
    peers "${arguments[@]}"
    exit
fi

[ "$(id -u)" = 0 ] || die "measuring needs root: filesystems are made and mounted"
[ -e /dev/loop-control ] || die "there are no loop devices (modprobe loop)"
mkdir -p "$dir"
[ "$(stat -f -c %T "$dir")" != tmpfs ] || die "$dir is on a tmpfs, where a sync costs nothing: --dir DIR"
wanted=16
[ -z "$quick" ] || wanted=7
free=$(($(stat -f -c '%a * %S' "$dir") / 1000000000))
[ $free -ge $wanted ] || die "$dir has $free GB to spare, and $wanted are needed: --dir DIR"

tests/images/install.sh pigz:pigz b3sum:b3sum /usr/bin/time:time strace:strace strip:binutils find:findutils \
    xargs:findutils cmp:diffutils dd:coreutils fallocate:util-linux || die "the programs to measure against are not all here"
tests/images/debian.sh "${LAYERSTORE_IMAGES:-$target/images/debian}" </dev/null
build

work=$(mktemp -d "$dir/layerstore-peers.XXXXXX")
# The filesystems are mounted in a namespace of the program's own, and not here.
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
[ ${#rows[@]} -gt 0 ] || rows=(--all)
peers "${rows[@]}" "${arguments[@]}" --dir "$work"
