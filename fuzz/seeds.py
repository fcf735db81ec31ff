#!/usr/bin/env python3
"""Writes fuzz/seeds/<target>/: small inputs that a fuzzer starts from. Run it after a target's form changes.

The first byte of an input for `tar`, `import_tar`, `record` and `chunked` is a switch; see src/fuzzing.rs.
"""

import io
import json
import pathlib
import shutil
import tarfile

SEEDS = pathlib.Path(__file__).parent / "seeds"


def put(target, name, data):
    directory = SEEDS / target
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(data)


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


def main():
    shutil.rmtree(SEEDS, ignore_errors=True)
    for name, members in ARCHIVES.items():
        for form, word in ((tarfile.PAX_FORMAT, "pax"), (tarfile.GNU_FORMAT, "gnu")):
            data = archive(form, members)
            put("tar", f"{name}-{word}", b"\1" + data)
            put("import_tar", f"{name}-{word}", b"\1" + data)
        put("import_tar", f"{name}-above", b"\3" + data)
    for target in ("tar", "import_tar"):
        put(target, "sparse", b"\1" + sparse())
    put("split", "raw-and-content", b"\1\1\3abc\2\0\0\5\0\7")
    for which in range(12):
        put("record", f"fields-{which}", bytes([which]) + bytes(range(1, 120)))
        put("record", f"zeros-{which}", bytes([which]) + bytes(160))
    # A manifest: the root, then `a`, a file of one byte.
    line = b"\xed\x03\0\0\0\0\0"
    put("record", "manifest", b"\x0a\0\0d" + line + b"\0\1af\1" + bytes(32) + line)
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
    put("oci", "reference", b"docker-archive:/tmp/a.tar:localhost:5000/a:1")
    put("oci", "platform", b"linux/arm/v7")


main()
