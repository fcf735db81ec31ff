#!/usr/bin/env python3
"""Writes fuzz/seeds/<target>/: small inputs that a fuzzer starts from. Run it after a target's form changes.

The first byte of an input for `tar`, `import_tar`, `record`, `chunked` and `storage_conf` is a switch; see src/fuzzing.rs. What a
target reads is what its documentation in src/fuzzing says.
"""

import io
import json
import pathlib
import re
import tarfile

SEEDS = pathlib.Path(__file__).parent / "seeds"


def put(target, name, data):
    directory = SEEDS / target
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(data)


def odd_path(kind, text):
    """A path: its kind (0: absolute, 1: as it is, 2: below the base), and its bytes."""
    return bytes([kind, len(text)]) + text


def overlay_options():
    def text(data):
        return bytes([len(data)]) + data

    odd = [odd_path(2, b"a,b"), odd_path(2, b"c:d"), odd_path(2, b"e\\f"), odd_path(0, b"g h\n"), odd_path(0, b"\xff,lowerdir=/etc")]
    upper = odd_path(2, b"9") + odd_path(0, b"w/9,upperdir=x")
    label = bytes([1]) + text(b"u:r:t:s0:c1,c2")
    words = bytes([4, 2, 9, 10, 12])
    for name, probe, bits in (("kernel", 0b0011_1000, 0b0100_0101), ("program", 0b1010_0001, 0b0100_0100),
                              ("view", 0b0011_1000, 0b0100_1101), ("string", 0b0010_0000, 0b0000_0100)):
        put("overlay_options", name, bytes([probe, bits]) + text(b"s/d") + odd_path(2, b"empty") + bytes([5]) + b"".join(odd)
            + upper + label + words)
    maps = b"".join(number.to_bytes(4, "little") for number in (0, 100000, 65536))
    put("overlay_options", "maps", bytes([0b0100_1000, 0b1100_0101]) + text(b"s") + odd_path(2, b"e") + bytes([1]) + odd_path(2, b"1")
        + upper + bytes([0, 0, 1]) + maps + bytes([1]) + maps)
    put("overlay_options", "page", bytes([0b0010_0000, 0b0000_0110]) + text(b"s") + odd_path(2, b"e") + bytes([0, 255]) + upper)
    put("overlay_options", "module", bytes([0b0010_0000, 0b0000_0001]) + text(b"s") + odd_path(2, b"e") + bytes([2])
        + odd_path(0, b"x,context=a") + odd_path(0, b'y",smackfsroot=b'))


def storage_conf():
    main = b"""[storage]
driver = "overlay"
graphroot = "/g/$UID"
driver_priority = ["overlay", "btrfs"]
transient_store = true
nosuch = 1
[storage.options]
additionalimagestores = ["/usr", {append=true}]
pull_options = {enable_partial_images = "false", n = 1}
auto-userns-min-size = 0x400
force_mask = 0o750
mountopt = "nodev,metacopy=on"
[storage.options.overlay]
size = "1.5 GiB"
inodes = "100"
force_mask = "shared"
use_composefs = "F"
sync = "none"
"""
    drop_in = b'[storage.options]\nadditionalimagestores = ["/etc", {append=true}]\n'
    last = b"[storage]\nrunroot = '/r\\'\n"

    def parts(*parts):
        return b"\n%%\n".join(parts)

    put("storage_conf", "root", b"\x03" + parts(b"X=1", main, drop_in))
    variables = b"HOME=/h\nSTORAGE_OPTS=size=10G,.force_mask=0700"
    put("storage_conf", "user", b"\x3f" + parts(variables, main, drop_in, drop_in, drop_in, main, last))
    put("storage_conf", "variables", b"\0STORAGE_DRIVER=overlay2\nSTORAGE_OPTS=overlay.mountopt=nodev,zfs.x=1")
    texts = b"0:100000:65536\n1.5MiB\n10G\n512\n7 kb\nforce_mask=private\nsize=3p\ninodes=7"
    put("storage_conf", "texts", b"\0" + texts)


def store():
    none, files = b"\0", b"\2\0\0\1\1"
    story = [
        b"\3\0" + none + b"\1\1" + files,  # layer la, named web
        b"\3\1" + b"\1\0" + none + b"\1\1\0",  # layer lab on it
        b"\x08\0" + b"\1\1" + b"\1\3" + b"\xff",  # image ia of lab, with a large item
        b"\0\0" + b"\1\0" + b"\1\2",  # container ca of it
        b"\x0a\2" + b"\2\0\5\0\7" + b"\1\0\4\1" + b"\0\0\1\4",  # item, metadata, name
        b"\4\3" + files,  # files of the container
        b"\x0b\0",  # commit
        b"\x0c\1\0\0",  # lease of the image
        b"\x0d\0",  # its end
    ]
    put("store", "story", b"".join(story) + bytes([1, 0, 9, 0, 14, 16]))
    apply = b"\4\2" + files
    put("store", "seal", b"\2\2" + none + b"\0" + apply + bytes([6, 2, 5, 2, 6, 2]) + apply + bytes([7, 2, 15, 16]))
    # x prepared and committed as y; z prepared on it, written to, committed as x; a view z; a layer of the store's on x; removals
    snapshots = [b"\0\0\0", b"\3\0\0\1", b"\4\1\0\0", b"\0\2\1\1", b"\3\2\0\0", b"\3\2\1\0", b"\4\0\2\1\1", b"\2\2\1\0"]
    snapshots = [b"\x13" + part for part in snapshots] + [b"\2\0\1\6\0", b"\x13\5\0", b"\7\0", b"\x13\5\2", b"\x13\5\0", b"\x12", b"\x10"]
    put("store", "snapshots", b"".join(snapshots))
    # A sealed layer and one that is written to, a copy of each on the other, one of them with a lease that takes it along.
    copies = [b"\3\0\0\0" + files, b"\2\1\0\0", b"\x11\2\0\1\1", b"\x11\3\1\1\0", b"\x0c\0\2\1", b"\7\2", b"\4\3" + files, b"\x0d\1", b"\x12", b"\x10"]
    put("store", "copies", b"".join(copies))
    # A fault: the operation's number with the highest bit, which call of which thread, and how it fails. Then the operation again.
    for how, word in enumerate(("broken", "full", "interrupted", "short")):
        struck = [bytes([part[0] | 0x80, 30 + 20 * at, how]) + part[1:] + part for at, part in enumerate(story)]
        put("store", word, b"".join(struck))
        struck = [bytes([part[0] | 0x80, 20 + 10 * at, how]) + part[1:] + part for at, part in enumerate(snapshots)]
        put("store", f"{word}-snapshots", b"".join(struck[:12]))
        # Of the threads that unpack, the third makes names and the fourth fills files.
        put("store", f"{word}-threads", b"".join(bytes([0x83, at, how | thread << 2, layer]) + b"\0\0" + files
            for layer, (thread, at) in enumerate(((6, 2), (6, 9), (6, 14), (7, 0), (7, 1), (7, 2)))))


def archive(form, members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, bufsize=512) as tar:
        for name, kind, extra in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            body = b""
            if kind == tarfile.REGTYPE:
                body = extra
            elif kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                info.linkname = extra
            elif kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
                info.devmajor, info.devminor = extra
            elif form == tarfile.PAX_FORMAT and isinstance(extra, dict):
                info.pax_headers = extra
            info.size = len(body)
            info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
            tar.addfile(info, io.BytesIO(body))
    # Without the padding to 10 KiB.
    return out.getvalue().rstrip(b"\0") + bytes(1024 + 512 - len(out.getvalue().rstrip(b"\0")) % 512)


F, D, S, H, C, P = (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE,
                    tarfile.FIFOTYPE)
WHITEOUTS = {
    "markers": [b".wh.a", b"a/.wh.b", b"a/.wh..wh..opq", b".wh..wh..opq", b"a/.wh..wh.plnk", b".wh..wh.aufs"],
    "refused": [b".wh.", b"a/.wh..", b"a/.wh...", b"..", b"a/../../b", b"a\0", b"n" * 256],
    "content": [b"", b"./", b"/a//b/./c", b"a/../b", b".wh.a/b", b"a/.wh", b"n" * 252, b"n" * 251, b".wh." + b"n" * 251],
}
ARCHIVES = {
    "kinds": [("d", D, {}), ("d/f", F, b"content"), ("h", H, "d/f"), ("s", S, "../x"), ("p", P, {}),
              ("c", C, (1, 3))],
    "whiteouts": [("d", D, {}), ("d/.wh..wh..opq", F, b""), ("d/x", F, b"x"), (".wh.gone", F, b"")],
    "swap": [("x", D, {}), ("x/y", F, b"1"), ("x", S, "../../victim"), ("x", D, {}), ("x/y", F, b"2")],
    "links": [("l", S, "../../victim"), ("l/hello", F, b"evil"), ("k", H, "l")],
    "below": [("a/hello", F, b"evil"), ("b/.wh.hello", F, b""), ("c", D, {}), ("d/secret", F, b"")],
    "xattrs": [("d", D, {"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.user.a": "1", "mtime": "1.5"})],
    "long": [("n/" * 60 + "end", F, b"x"), ("s", S, "t" * 120)],
}
# Members as src/fuzzing/members.rs takes them from bytes.
NAMES = ["a", "b", "c", "", "", "", "", "", "a.", "a-", "\xff", ".wh.a", ".wh..wh.plnk", ".", "", ".."]


def path(text):
    parts = text.split("/") if text else []
    return bytes([len(parts)] + [NAMES.index(part) for part in parts])


def member(kind, name, *rest, look=0, marks=0, form=0, spoilt=None):
    """`form` is one of those that mean the same; `spoilt` one of those that are refused."""
    start = bytes([kind | form << 4]) if spoilt is None else bytes([kind | 0xF0, spoilt])
    return start + path(name) + bytes([look, marks]) + b"".join(rest)


def file(name, length=5, **more):
    return member(0, name, bytes([length]), **more)


def directory(name, **more):
    return member(3, name, **more)


def symlink(name, target, **more):
    return member(6, name, path(target), **more)


def link(name, target, **more):
    return member(7, name, path(target), **more)


def whiteout(name):
    return member(12, name)


def opaque(name):
    return member(15, name)


BASE = [directory("a", look=0x25), file("a/a", look=0x49), file("a/b", marks=3), directory("b"), symlink("b/a", "a/a"),
        link("b/b", "a/a"), file("c")]
MEMBERS = {
    "kinds": [[file("a", look=0xE9), directory("b", look=0xFF, marks=0xFF), symlink("c", "a/b"), link("a.", "a"),
               member(9, "a-", b"\1\2", look=0x0D), member(10, "b/a", b"\1"), member(11, "b/b", marks=0x70)]],
    "whiteouts": [BASE, [whiteout("a/a"), whiteout("b"), directory("b"), whiteout("c"), file("c")]],
    "opaque": [BASE, [opaque("a"), file("a/c"), whiteout("a/b"), directory("b/c"), opaque("b/c")]],
    "opaque-root": [BASE, [file("a/c"), opaque("")], [file("b/a/c")]],
    "replaced": [BASE, [file("b"), directory("b"), file("a/a/a"), whiteout("a/a"), directory("c"), file("c")]],
    "links": [BASE, [file("a/b"), link("a/c", "a/b"), link("c", "a/c"), file("a/b"), directory("a"), link("b", "c")]],
    "refused": [[link("a", "a")], [file("a"), file("a/b")], [file("..")], BASE],
    "marker-names": [[file(".wh.a/b"), file(".wh..wh.plnk"), directory("a/.wh.a/b")]],
    "implied": [[directory("a", look=0x96), directory("a/b", marks=0x0F)], [file("a/b/c")], [whiteout("a"), file("a/b/a")]],
}
MEMBERS |= {
    f"form-{form}": [[directory("", look=0x25, form=form), file("a", 31, look=0x89, marks=3, form=form), directory("b", look=0x0A, form=form),
                      file("b/a", look=0x60, form=form), symlink("b/b", "../a", form=form), link("b/c", "a", form=form),
                      member(9, "c", b"\1\2", look=0x8D, form=form), member(10, "b/a-", b"\1", form=form), member(11, "a.", marks=0x70, form=form),
                      member(12, "b/a.", form=form), member(15, "b", form=form)]]
    for form in range(1, 10)
}
MEMBERS |= {
    f"spoilt-{which}": [BASE, [file("c"), file("a", look=0x89, marks=3, spoilt=which)], [file("c")]]
    for which in range(7)
} | {
    f"spoilt-{which}-kinds": [[directory("a", spoilt=which)], [symlink("a", "b", spoilt=which)], [file("a"), link("b", "a", spoilt=which)],
                              [member(15, "a", spoilt=which)]]
    for which in range(7)
}
SPARSE = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": "sp", "GNU.sparse.size": "900",
          "GNU.sparse.map": "100,7"}


def sparse():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("sp")
        info.size, info.pax_headers = 7, SPARSE
        tar.addfile(info, io.BytesIO(b"content"))
    return out.getvalue()[:3072]


def chunked():
    digest = "sha256:" + "0123456789abcdef" * 4
    other = digest[:-1] + "0"
    entries = [
        {"type": "dir", "name": "d/", "mode": 493, "modtime": "2026-01-02T03:04:05Z"},
        {"type": "reg", "name": "d/f", "size": 5, "uid": 7, "digest": digest, "offset": 0x20, "endOffset": 0x40,
         "xattrs": {"user.a": "MQ=="}},
        {"type": "reg", "name": "p", "size": 30, "digest": "sha256:" + "f" * 64, "offset": 80, "endOffset": 120,
         "chunkSize": 10, "chunkDigest": other},
        {"type": "chunk", "name": "p", "offset": 100, "chunkOffset": 10, "chunkSize": 20, "chunkDigest": other,
         "chunkType": "zeros"},
        {"type": "symlink", "name": "s", "linkName": "../x"},
        {"type": "hardlink", "name": "h", "linkName": "p"},
        {"type": "char", "name": "c", "devMajor": 1, "devMinor": 3},
    ]
    table = json.dumps({"version": 1, "tarSplitDigest": digest, "entries": entries}, separators=(",", ":")).encode()
    put("chunked", "table", b"\0" + table)
    head = b"\x50\x2a\x4d\x18"
    numbers = b"".join(number.to_bytes(8, "little") for number in (5000, 800, 3000, 1, 5808, 90, 400))
    put("chunked", "footer", b"\1" + head + (64).to_bytes(4, "little") + numbers + b"GNUlInUx")
    put("chunked", "first-footer", b"\1" + head + (40).to_bytes(4, "little") + numbers[:32] + b"GnUlInUx")
    lines = [{"type": 2, "payload": "aGVhZGVy", "position": 0}, {"type": 1, "name": "d/f", "size": 5, "payload": None},
             {"type": 2, "payload": "", "position": 2}, {"type": 1, "name_raw": "cA==", "size": 30}]
    split = b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)
    length = lambda data: len(data).to_bytes(2, "little") + data
    # A frame without compression, with ten bytes in it.
    frame = b"\x28\xb5\x2f\xfd\x20\x0a\x51\0\0ten bytes."
    put("chunked", "parts", b"\2" + length(table) + length(split) + bytes(80) + frame + bytes(60))
    for name, members in ARCHIVES.items():
        put("chunked", name, b"\3" + archive(tarfile.PAX_FORMAT, members))
    holes = [("holes", F, b"data" + bytes(2000) + b"more"), ("zeros", F, bytes(1024))]
    put("chunked", "holes", b"\3" + archive(tarfile.GNU_FORMAT, holes))


# Changes of a sound database: a kind, two numbers of 16 bits, and bytes for the kinds that write some.
def change(kind, low, high=0, data=b""):
    return bytes([kind]) + low.to_bytes(2, "little") + high.to_bytes(2, "little") + data


def database():
    for name, changes in {
        "nothing": b"",
        "zero": change(0, 5),
        "copy": change(1, 7, 9),
        "resize": change(2, 0, 1),
        "pages": change(3, 20),
        "flip": change(4, 0x3002, 0),
        "shape": change(5 + 8 * 3, 6, 2, b"\xff\xff\xff\xff"),
        "header": change(6 + 8 * 7, 64, 0, b"\x03\x01\x01" + bytes(5)),
        "bytes": change(7 + 8 * 3, 0x4100, 0, b"\x80\xfe\x80\xfe"),
    }.items():
        put("database", name, b"\0" + changes)
        put("database", name + "-read", b"\1" + changes)
        # Of the pages that redb keeps for itself.
        put("database", name + "-own", b"\4" + changes)
    put("database", "whole", b"\2redb\x1a\x0a\xa9\x0d\x0a" + bytes(64))


def main():
    for old in SEEDS.glob("*/*"):
        # What `fuzz/run --keep` adds has its hash for a name.
        if not re.fullmatch("[0-9a-f]{40}", old.name):
            old.unlink()
    for name, members in ARCHIVES.items():
        for form, word in ((tarfile.PAX_FORMAT, "pax"), (tarfile.GNU_FORMAT, "gnu")):
            data = archive(form, members)
            put("tar", f"{name}-{word}", b"\1" + data)
            put("import_tar", f"{name}-{word}", b"\x09" + data)
        put("import_tar", f"{name}-above", b"\x0b" + data)
        # The whole way, which is slow.
        if name in ("kinds", "whiteouts"):
            put("import_tar", f"{name}-store", b"\7" + data)
    put("tar", "sparse", b"\1" + sparse())
    put("import_tar", "sparse", b"\x09" + sparse())
    for name, layers in MEMBERS.items():
        put("members", name, b"".join(bytes([len(layer)]) + b"".join(layer) for layer in layers))
    put("split", "raw-and-content", b"\1\1\3abc\2\0\0\5\0\x08")
    put("split", "contents-in-order", b"\1\2\0\0\4\2\0\5\6\1\1x\2\1\3\4\0\x0f")
    put("split", "contents-in-turn", b"\1\2\0\0\4\2\1\0\3\2\0\2\5\1\1x\2\0\x08\1\0\x0e")
    for which in range(13):
        put("record", f"fields-{which}", bytes([which]) + bytes(range(1, 120)))
        put("record", f"zeros-{which}", bytes([which]) + bytes(160))
    # A manifest: the root, then `a`, a file of one byte.
    line = b"\xed\x03\0\0\0\0\0"
    manifest = b"\0\0d" + line + b"\0\1af\1" + bytes(32) + line
    put("record", "manifest", b"\x0a" + manifest)
    put("manifest", "file", manifest)
    attributed = line[:-1] + b"\2\6user.a\1x\6user.b\0"
    put("manifest", "kinds", b"\0\0o" + attributed + b"\0\1ad" + line + b"\1\2/bc\1\3" + line + b"\2\1cb\1\3" + line
        + b"\2\1dh\3a/b" + b"\2\1el\2.." + line + b"\2\1fp" + line + b"\2\1gs" + line + b"\0\2b-w")
    for name, lines in WHITEOUTS.items():
        put("whiteout", name, b"\n".join(lines))
    digest = "sha256:" + "0123456789abcdef" * 4
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": 1}
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": 1}
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config,
                "layers": [layer], "annotations": {"a": "b"}}
    index = {"schemaVersion": 2, "manifests": [dict(config, platform={"os": "linux", "architecture": "arm",
             "variant": "v7"}, annotations={"org.opencontainers.image.ref.name": "t"})]}
    image = {"architecture": "amd64", "os": "linux", "created": "2026-01-02T03:04:05Z", "config": {"Cmd": ["sh"]},
             "history": [{"created_by": "x", "empty_layer": True}],
             "rootfs": {"type": "layers", "diff_ids": [digest]}}
    docker = [{"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["l.tar"]}]
    for name, document in (("manifest", manifest), ("index", index), ("config", image), ("docker", docker)):
        put("oci", name, json.dumps(document, separators=(",", ":")).encode())
    chunked()
    database()
    overlay_options()
    storage_conf()
    store()
    put("oci", "reference", b"docker-archive:/tmp/a.tar:localhost:5000/a:1")
    put("oci", "platform", b"linux/arm/v7")
    put("oci", "type", b"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
    docker_manifest = dict(manifest, mediaType="application/vnd.docker.distribution.manifest.v2+json", config=dict(
        config, mediaType="application/vnd.docker.container.image.v1+json"), layers=[dict(
            layer, mediaType="application/vnd.docker.image.rootfs.diff.tar.gzip", size=size) for size in (1, 2)])
    put("oci", "docker-manifest", json.dumps(docker_manifest, separators=(",", ":")).encode())
    put("oci", "numbers", json.dumps(dict(manifest, x=[1e-7, 1.5e300, 5e-324, 2**64, -1]), separators=(",", ":")).encode())
    # A header of an older format.
    put("record", "header-0", b"\x09" + bytes(48))


main()
