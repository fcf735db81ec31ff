#!/bin/sh
# Installs the Debian packages that the image, the namespace run, the comparisons, the power cuts, containerd and mounts by a program need.
#
#     install.sh [COMMAND:PACKAGE..]      and these
#
# Exit status: 0 when everything is there, 3 when something is missing and cannot be installed;
# the last line of standard error then names exactly what.
set -eu

# command:package
needs="
debootstrap:debootstrap
umoci:umoci
skopeo:skopeo
newuidmap:uidmap
setcap:libcap2-bin
fuse-overlayfs:fuse-overlayfs
fusermount3:fuse3
setfattr:attr
useradd:passwd
containers-storage:containers-storage
unshare:util-linux
mount:mount
mkfs.ext4:e2fsprogs
mkfs.xfs:xfsprogs
mkfs.btrfs:btrfs-progs
perl:perl-base
tar:tar
zstd:zstd
fsck.erofs:erofs-utils
containerd:containerd
ctr:containerd
runc:runc
busybox:busybox-static
setpriv:util-linux
systemd-analyze:systemd
strace:strace
$*
"

missing_packages() {
    for need in $needs; do
        command -v "${need%%:*}" >/dev/null 2>&1 || printf '%s ' "${need#*:}"
    done
}

# Administration commands live where an ordinary user's PATH does not look.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export PATH

missing=$(missing_packages)
[ -n "$missing" ] || exit 0

give_up() {
    echo "install.sh: $1; missing packages: $missing" >&2
    exit 3
}

command -v apt-get >/dev/null 2>&1 || give_up "this is no Debian system (no apt-get)"
[ "$(id -u)" = 0 ] || give_up "installing needs root"

echo "install.sh: installing $missing"
DEBIAN_FRONTEND=noninteractive
export DEBIAN_FRONTEND
# The lists may be absent or too old; another repository of the machine may fail without harm.
apt-get -q update </dev/null || echo "install.sh: apt-get update reported errors, going on" >&2
# shellcheck disable=SC2086 # a list of words is what apt-get wants
apt-get -q install -y --no-install-recommends $missing </dev/null || give_up "apt-get could not install"

missing=$(missing_packages)
[ -z "$missing" ] || give_up "still missing after apt-get"
