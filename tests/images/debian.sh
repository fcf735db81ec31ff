#!/bin/bash
# Builds a real six-layer image from Debian's packages, as two OCI image layouts.
#
#     debian.sh [OUT_DIR]        (default: target/images/debian)
#
# makes OUT_DIR/gzip and OUT_DIR/zstd, each tagged `debian`, with the same six layers:
#
#   1  a Debian root file system, by debootstrap           GNU tar, PAX headers, names with `./`
#   2  a language runtime, by apt in that root             umoci's own diff (Go's tar writer)
#   3  46,000 small files, links and directories           GNU tar, GNU headers (`L` long names)
#   4  large and sparse files, xattrs, devices, times      GNU tar, PAX headers and PAX sparse files
#   5  thousands of whiteouts, opaque directories          GNU tar, ustar headers
#   6  one file, without its directory                     GNU tar, headers from before ustar
#
# Root is needed. A complete OUT_DIR built by this very script is left alone.
# DEBIAN_MIRROR and DEBIAN_SUITE choose another source.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/../../target/images/debian}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
suite=${DEBIAN_SUITE:-bookworm}
runtime_packages="python3 python3-yaml"
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" LC_ALL=C TZ=UTC

say() { printf 'debian.sh: %4ds  %s\n' "$SECONDS" "$*"; }
die() {
    printf 'debian.sh: %s\n' "$*" >&2
    exit 1
}

recipe=$(cat "$here/debian.sh" "$here/small-files.pl" <(echo "$mirror $suite") | sha256sum | cut -d ' ' -f 1)
is_complete() { [ "$(cat "$out/stamp" 2>/dev/null)" = "$recipe" ]; }

mkdir -p "$(dirname "$out")"
out=$(cd "$(dirname "$out")" && pwd)/$(basename "$out")
if is_complete; then
    say "$out is complete"
    exit 0
fi
[ "$(id -u)" = 0 ] || die "building the image needs root (device nodes, owners, chroot)"
for tool in debootstrap umoci skopeo setcap setfattr perl; do
    command -v "$tool" >/dev/null || die "$tool is missing: run tests/images/install.sh"
done

# Two test runs at once build one image.
exec 9>"$out.lock"
flock 9
if is_complete; then
    say "$out was completed meanwhile"
    exit 0
fi
work=$out.partial
rm -rf "$work" "$out"
mkdir -p "$work/layers" "$out.debs"
trap 'rm -rf "$work"' EXIT
image=$work/build:debian

# ---- the layers ------------------------------------------------------------------------------

base_layer() {
    say "layer 1: debootstrap $suite from $mirror"
    debootstrap --variant=minbase --cache-dir="$out.debs" "$suite" "$work/base" "$mirror" \
        >"$work/debootstrap.log" 2>&1 || {
        tail -n 20 "$work/debootstrap.log" >&2
        die "debootstrap failed"
    }
    rm -rf "$work"/base/var/cache/apt/archives/*.deb "$work"/base/var/log/bootstrap.log
    echo debian >"$work/base/etc/hostname"
    add_tar base --format=posix --xattrs --xattrs-include='*' "$work/base" .
}

runtime_layer() {
    say "layer 2: apt-get install $runtime_packages"
    umoci unpack --image "$image" "$work/bundle" >/dev/null
    # The packages that debootstrap did not fetch come over the network, with this machine's resolver.
    local root=$work/bundle/rootfs
    cp --remove-destination "$root/etc/resolv.conf" "$work/resolv.conf" 2>/dev/null || true
    cp --remove-destination /etc/resolv.conf "$root/etc/resolv.conf"
    # shellcheck disable=SC2086 # a list of packages
    DEBIAN_FRONTEND=noninteractive chroot "$root" /bin/sh -ec "
        apt-get -q update
        apt-get -q install -y --no-install-recommends $runtime_packages
        apt-get clean" </dev/null >"$work/apt.log" 2>&1 || {
        tail -n 20 "$work/apt.log" >&2
        die "apt-get in the image failed"
    }
    rm -f "$root/etc/resolv.conf"
    if [ -e "$work/resolv.conf" ]; then mv "$work/resolv.conf" "$root/etc/resolv.conf"; fi
    umoci repack --refresh-bundle --image "$image" "$work/bundle" >/dev/null
}

small_files_layer() {
    say "layer 3: small files"
    mkdir -p "$work/small"
    perl "$here/small-files.pl" "$work/small/srv"
    add_tar small --format=gnu "$work/small" srv
}

special_files_layer() {
    say "layer 4: large files, sparse files, xattrs, devices, times"
    local special=$work/special/opt/special
    mkdir -p "$special"
    (
        cd "$special"
        # Not 'find | head': the writer would die of SIGPIPE.
        find "$work/base/usr" -type f -print0 | sort -z | xargs -0 cat >"$work/all" && truncate -s 100000001 "$work/all"
        mv "$work/all" large
        truncate -s 256M sparse
        for at in 0 4096 100000 268435400; do
            printf 'data at %d' "$at" | dd of=sparse bs=1 seek="$at" conv=notrunc status=none
        done
        truncate -s 1M hole
        : >empty

        echo plain >xattr-file && mkdir xattr-directory
        setfattr -n user.comment -v 'a comment' xattr-file
        setfattr -n user.binary -v 0x00ff0a3d00 xattr-file
        setfattr -n user.empty xattr-file
        setfattr -n user.long -v "$(printf 'x%.0s' {1..2000})" xattr-file
        setfattr -n user.directory -v yes xattr-directory
        cp "$work/base/bin/true" capable && setcap cap_net_raw,cap_net_bind_service=ep capable

        cp "$work/base/bin/true" setuid && chmod 4755 setuid
        cp "$work/base/bin/true" setgid && chown 0:42 setgid && chmod 2755 setgid
        mkdir sticky && chmod 1777 sticky
        mkdir closed && chmod 0000 closed
        echo secret >mode-0000 && chmod 0000 mode-0000
        echo owned >large-owner && chown 1000000:2000000 large-owner

        mknod null c 1 3 && chmod 666 null
        mknod tun c 10 200 && chmod 600 tun
        mknod loop b 7 0 && chown 0:6 loop && chmod 660 loop
        mknod large-numbers c 511 1048575
        mkfifo -m 640 fifo

        echo linked >linked && ln linked linked-again && ln linked sticky/linked-elsewhere
        ln -s /etc/passwd absolute-link && ln -s ../../opt/special relative-link && ln -s . self
        ln fifo fifo-again

        echo name >"$(printf 'bytes \377\376')" && echo name >"$(printf 'utf8 \303\274')"
        echo name >"$(printf 'line\nfeed')" && echo name >' ' && echo name >'back\slash'
        echo name >"$(printf 'n%.0s' {1..255})"

        echo nanoseconds >nanoseconds && touch -d '2024-02-29 12:34:56.123456789' nanoseconds
        echo one >one-nanosecond && touch -d '2001-09-09 01:46:40.000000001' one-nanosecond
        echo before >before-1970 && touch -d '1965-03-04 05:06:07.25' before-1970
        echo after >after-2038 && touch -d '2200-01-01 00:00:00.999999999' after-2038
        touch -h -d '2010-10-10 10:10:10.101010101' self
        touch -d '2011-11-11 11:11:11.111111111' xattr-directory
    )
    add_tar special --format=posix --sparse --xattrs --xattrs-include='*' "$work/special" opt
}

deletions_layer() {
    say "layer 5: deletions"
    local gone=$work/deletions shard
    mkdir -p "$gone"
    whiteout() { mkdir -p "$gone/$(dirname "$1")" && : >"$gone/$(dirname "$1")/.wh.$(basename "$1")"; }
    # 64 times 32 directories lose two files each, and each shard a whole directory.
    for shard in "$work"/small/srv/data/shard*; do
        shard=srv/data/${shard##*/}
        for number in {00..30}; do
            mkdir -p "$gone/$shard/dir$number"
            : >"$gone/$shard/dir$number/.wh.file02.txt"
            : >"$gone/$shard/dir$number/.wh.hard"
        done
        : >"$gone/$shard/.wh.dir31"
    done
    # What a careful image author removes.
    local path
    for path in "$work"/base/usr/share/doc/*/; do whiteout "usr/share/doc/$(basename "$path")"; done
    whiteout usr/share/locale
    whiteout var/cache/debconf
    # Directories replaced as a whole.
    mkdir -p "$gone/srv/replaced/dir3" "$gone/usr/share/man"
    : >"$gone/srv/replaced/.wh..wh..opq"
    : >"$gone/usr/share/man/.wh..wh..opq"
    echo new >"$gone/srv/replaced/new" && echo new >"$gone/srv/replaced/dir3/file3"
    # Things that become something else: a directory a file, a file a directory, a link a file.
    rm -r "$gone/srv/data/shard00/dir01"
    echo file >"$gone/srv/data/shard00/dir01"
    mkdir "$gone/srv/data/shard00/dir02/file03.txt" && echo in >"$gone/srv/data/shard00/dir02/file03.txt/inner"
    echo file >"$gone/srv/data/shard00/dir03/link"
    find "$gone" -exec touch -h -d '2026-01-02 03:04:05' {} +
    add_tar deletions --format=ustar "$gone" srv usr var
}

tiny_layer() {
    say "layer 6: one file"
    mkdir -p "$work/tiny/etc"
    echo 'The last layer.' >"$work/tiny/etc/motd"
    # The file alone: its directory is only implied.
    add_tar tiny --format=v7 "$work/tiny" etc/motd
}

# add_tar NAME TAR_OPTION.. DIR MEMBER..: one layer from a directory.
add_tar() {
    local tar=$work/layers/$1.tar options=()
    shift
    while [[ $1 == -* ]]; do
        options+=("$1")
        shift
    done
    tar "${options[@]}" --numeric-owner --sort=name -C "$1" -cf "$tar" "${@:2}" 2> >(grep -v 'socket ignored' >&2)
    umoci raw add-layer --image "$image" "$tar" >/dev/null
    rm "$tar"
}

# ---- the image -------------------------------------------------------------------------------

umoci init --layout "$work/build"
umoci new --image "$image"
base_layer
runtime_layer
small_files_layer
special_files_layer
deletions_layer
tiny_layer
umoci config --image "$image" --config.cmd /bin/bash --config.env PATH=/usr/sbin:/usr/bin:/sbin:/bin
umoci gc --layout "$work/build"

for format in gzip zstd; do
    say "copying as $format"
    # skopeo keeps a layer that is compressed already unless it comes uncompressed from a directory.
    skopeo --insecure-policy copy --quiet --dest-compress --dest-compress-format "$format" \
        "oci:$image" "oci:$work/$format:debian"
done

layers=$(umoci stat --json --image "$work/gzip:debian" | grep -o '"layer":{' | wc -l)
[ "$layers" = 6 ] || die "the image has $layers layers, not 6"
grep -q 'tar+zstd' "$work"/zstd/blobs/sha256/"$(sed 's/.*sha256:\([0-9a-f]*\).*/\1/' "$work/zstd/index.json")" ||
    die "skopeo did not compress with zstd"

mkdir "$out"
mv "$work/gzip" "$work/zstd" "$out/"
# An ordinary user reads it too.
chmod -R a+rX "$out"
echo "$recipe" >"$out/stamp"
say "done: $(du -sh "$out" | cut -f 1) in $out"
