#!/bin/sh
# Installs what run.sh needs, from Debian's packages. Ends with 3 if something is missing and cannot be installed.
set -eu
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
needs="qemu-system-x86_64:qemu-system-x86 busybox:busybox-static mkfs.ext4:e2fsprogs xz:xz-utils"
missing=
for need in $needs; do
    command -v "${need%%:*}" >/dev/null 2>&1 || missing="$missing ${need#*:}"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "install.sh: missing packages:$missing" >&2
    exit 3
fi
apt-get -q update </dev/null || echo "install.sh: apt-get update reported errors, going on" >&2
# shellcheck disable=SC2086 # a list of words is what apt-get wants
DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends $missing </dev/null
