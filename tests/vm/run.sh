#!/bin/bash
# Runs a command on a kernel of Debian in a virtual machine, on the files of this one. README.md has the whole.
#
#     run.sh [--kernel SUITE] COMMAND [ARGUMENT..]
#
# The machine sees this one's root file system, read-only, with a disk of its own on /tmp: what is written there goes with the
# machine. The command runs there as root; its output is the output, and its exit status the exit status. KVM is used where
# it may be; without it everything takes ten times as long.
#
# Returns 77 and says why if no machine can be started. Needs qemu, busybox-static and e2fsprogs (install.sh has them),
# and fetches the kernel of a suite once, into target/vm.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$here/../.." && pwd)
cache=${CARGO_TARGET_DIR:-$repository/target}/vm
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" LC_ALL=C

# Modules that the tests use, with what brings the root file system up first. What a kernel has built in, or not at all, is left out.
modules=(crc32c_generic virtio_pci 9pnet_virtio 9p virtio_blk ext4 overlay xfs btrfs fuse erofs loop quota_v2)

unavailable() {
    echo "run.sh: no virtual machine: $1" >&2
    exit 77
}

suite=bookworm
if [ "${1:-}" = --kernel ]; then
    suite=${2:?run.sh: --kernel needs a suite of Debian, such as bookworm or trixie-backports}
    shift 2
fi
[ $# -gt 0 ] || { sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"; exit 2; }
[ "$(uname -m)" = x86_64 ] || unavailable "only x86_64 is supported"
for need in qemu-system-x86_64 busybox mkfs.ext4 xz; do
    command -v "$need" >/dev/null || unavailable "$need is missing: run tests/vm/install.sh"
done

# ---- the kernel --------------------------------------------------------------------------------

# The mirror that apt uses here.
mirror() {
    apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Label: Debian' 2>/dev/null | head -n 1
}

# apt with the lists of this suite alone, apart from what is set up and installed here.
apt() {
    local tool=$1
    shift
    "$tool" -q -o Dir::Etc::SourceList="$fetched/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$fetched/lists" -o Dir::Cache="$fetched/cache" -o Dir::State::status=/dev/null \
        -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none -o Acquire::Retries=3 "$@"
}

# depends PACKAGE PATTERN: the packages that it cannot do without and whose names match.
depends() { apt apt-cache depends -i "$1" | sed -n "s/^ *Depends: \\($2\\)\$/\\1/p"; }

# Brings the kernel's packages to the working directory: one until 6.18, three after that.
download_kernel() {
    local image from=${LAYERSTORE_VM_MIRROR:-$(mirror)}
    mkdir -p "$fetched/lists/partial" "$fetched/cache/archives/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${from:-http://deb.debian.org/debian} $suite main" \
        >"$fetched/sources.list"
    apt apt-get update || return
    image=$(depends linux-image-amd64 'linux-image-[0-9].*' | head -n 1)
    # shellcheck disable=SC2046 # a list of words is what apt-get wants
    apt apt-get download "$image" $(depends "$image" 'linux-\(binary\|modules\)-[0-9].*')
}

fetch_kernel() {
    local package fetched=$cache/$suite.partial tree=$cache/$suite.partial/tree
    command -v apt-get >/dev/null || unavailable "no apt-get to fetch a kernel with"
    echo "run.sh: fetching the kernel of $suite, once" >&2
    rm -rf "$fetched" && mkdir -p "$tree/lib"
    # Debian has merged lib into usr/lib.
    mkdir "$tree/usr" && ln -s ../lib "$tree/usr/lib"
    (cd "$fetched" && download_kernel) >"$cache/$suite.log" 2>&1 ||
        unavailable "the kernel of $suite could not be fetched: $(grep -v '^W:' "$cache/$suite.log" | tail -n 1)"
    # Thousands of drivers are for hardware that the machine has not.
    for package in "$fetched"/linux-*.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar -x -C "$tree" --keep-directory-symlink --wildcards \
            --exclude='*/kernel/sound' --exclude='*/kernel/drivers/[ac-uw-z]*' --exclude='*/kernel/net/[a-z]*'
    done
    find "$tree/lib/modules" -name '*.ko.xz' -exec xz -d {} +
    local release
    release=$(ls "$tree/lib/modules")
    busybox depmod -b "$tree" "$release"
    mv "$tree"/boot/vmlinuz-* "$tree/vmlinuz" 2>/dev/null || mv "$tree/lib/modules/$release/vmlinuz" "$tree/vmlinuz"
    rm -rf "${cache:?}/$suite" && mv "$tree" "$cache/$suite" && rm -rf "$fetched"
}

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
[ -d "$cache/$suite" ] || fetch_kernel
flock -u 9
kernel=$cache/$suite
release=$(ls "$kernel/lib/modules")

# ---- the machine -------------------------------------------------------------------------------

work=$(mktemp -d "${TMPDIR:-/tmp}/layerstore-vm.XXXXXX")
trap 'rm -rf "$work"' EXIT

# What a module needs comes before it, and nothing twice.
load_order() {
    awk -v wanted="${modules[*]}" '
        function name(path) { sub(/.*\//, "", path); sub(/\.ko.*/, "", path); gsub(/-/, "_", path); return path }
        function add(module, i, n, parts) {
            if (module in done) return
            done[module] = 1
            n = split(needs[module], parts, " ")
            for (i = n; i > 0; i--) add(name(parts[i]))
            if (module in file) print file[module]
        }
        { path = $1; sub(/:$/, "", path); file[name(path)] = path; $1 = ""; needs[name(path)] = $0 }
        END { n = split(wanted, list, " "); for (i = 1; i <= n; i++) add(list[i]) }
    ' "$kernel/lib/modules/$release/modules.dep"
}

make_initramfs() {
    local tree=$work/initramfs module
    mkdir -p "$tree"/{bin,dev,proc,sys,root,modules}
    cp "$(command -v busybox)" "$tree/bin/busybox"
    while read -r module; do
        cp "$kernel/lib/modules/$release/$module" "$tree/modules/"
        echo "/modules/${module##*/}" >>"$tree/order"
    done < <(load_order)
    cp "$here/init" "$tree/init"
    (cd "$tree" && find . | busybox cpio -o -H newc 2>/dev/null) >"$work/initramfs.cpio"
}

make_command() {
    # One word a line would not do: words may have line ends.
    printf 'cd %q\n' "$PWD" >"$work/shared/command"
    local variable
    while read -r variable; do
        printf 'export %s=%q\n' "$variable" "${!variable}" >>"$work/shared/command"
    done < <(compgen -e | grep -E '^(LAYERSTORE_|RUST_|PATH$|LC_ALL$)')
    printf '%q ' "$@" >>"$work/shared/command"
}

mkdir "$work/shared"
make_initramfs
make_command "$@"
truncate -s 20G "$work/disk" && mkfs.ext4 -q -F -O quota,project,verity -E quotatype=usrquota:grpquota:prjquota "$work/disk"

share() { printf 'local,path=%s,security_model=none,multidevs=remap,mount_tag=%s%s' "$1" "$2" "${3:-}"; }

# start ACCELERATOR PROCESSOR: starts the machine in the background, as $machine.
start() {
    rm -f "$work/shared/started"
    timeout --foreground "${LAYERSTORE_VM_TIMEOUT:-7200}" qemu-system-x86_64 \
        -machine "q35,accel=$1" -cpu "$2" -smp "$(nproc)" -m "${LAYERSTORE_VM_MEMORY:-4096}" \
        -nodefaults -no-user-config -display none -no-reboot -serial stdio \
        -kernel "$kernel/vmlinuz" -initrd "$work/initramfs.cpio" \
        -append "console=ttyS0 quiet loglevel=3 panic=-1" \
        -virtfs "$(share / root ,readonly=on)" -virtfs "$(share "$work/shared" shared)" \
        -drive "file=$work/disk,if=virtio,format=raw,cache=unsafe" \
        </dev/null >"$work/console" 2>"$work/qemu.log" &
    machine=$!
}

# Whether the machine comes to life. Where this one is virtual itself, /dev/kvm may be there and lead nowhere.
lives() {
    local tries=$1
    while [ "$tries" -gt 0 ] && kill -0 "$machine" 2>/dev/null; do
        [ ! -e "$work/shared/started" ] || return 0
        tries=$((tries - 1))
        sleep 0.5
    done
    [ -e "$work/shared/started" ]
}

machine=
trap 'kill "$machine" 2>/dev/null || true; rm -rf "$work"' EXIT
if [ "${LAYERSTORE_VM_ACCEL:-kvm}" = kvm ] && [ -w /dev/kvm ] && start kvm host,arch-capabilities=off && lives 30; then
    :
else
    echo "run.sh: no KVM here; this will be slow" >&2
    kill "$machine" 2>/dev/null && wait "$machine" 2>/dev/null
    start tcg max
fi
# The command's own output, as it comes.
touch "$work/shared/output"
tail --pid="$machine" -n +1 -f "$work/shared/output" &
follower=$!
touch "$work/console"
[ -z "${LAYERSTORE_VM_CONSOLE:-}" ] || tail --pid="$machine" -n +1 -f "$work/console" >&2 &
status=0
wait "$machine" || status=$?
wait "$follower" || true
if [ -s "$work/shared/status" ]; then
    exit "$(cat "$work/shared/status")"
fi
{
    echo "run.sh: the machine ended without a result (qemu: $status); its last words:"
    tail -n 30 "$work/console" "$work/qemu.log"
} >&2
exit 70
