//! Makes an image for the quickstart out of this machine's own files, in the way of any build tool: an OCI image
//! layout, written by hand. Nothing in here is the library's, save for the computing of digests.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use layerstore::Digest;
use serde_json::{Value, json};
use tar::{EntryType, Header};

/// The programs that the image gets, with every library they need.
const PROGRAMS: [&str; 6] = ["sh", "cat", "ln", "ls", "mkdir", "rm"];

/// Writes an image of three layers into the directory `layout`, under the tag `1`.
pub fn write(layout: &Path) -> io::Result<()> {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let layers = [("gzip", base_layer()?), ("zstd", change_layer()?), ("gzip", links_layer()?)];
    let mut descriptors = Vec::new();
    let mut diff_ids = Vec::new();
    for (compression, tar) in &layers {
        let blob = if *compression == "gzip" { gzip(tar)? } else { zstd::encode_all(tar.as_slice(), 3)? };
        let media_type = format!("application/vnd.oci.image.layer.v1.tar+{compression}");
        descriptors.push(put_blob(&blobs, &media_type, &blob)?);
        diff_ids.push(Digest::sha256(tar).to_string());
    }
    let config = json!({
        "created": "2026-01-01T00:00:00Z",
        "architecture": architecture(),
        "os": "linux",
        "config": { "Cmd": ["/bin/sh"], "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": put_document(&blobs, "application/vnd.oci.image.config.v1+json", &config)?,
        "layers": descriptors,
    });
    let mut manifest = put_document(&blobs, manifest_type, &manifest)?;
    if let Some(fields) = manifest.as_object_mut() {
        fields.insert("annotations".into(), json!({ "org.opencontainers.image.ref.name": "1" }));
    }
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(layout.join("index.json"), index.to_string())?;
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
}

/// The shell and what it needs, and some files for the layers above to change.
fn base_layer() -> io::Result<Vec<u8>> {
    let mut layer = Layer::new();
    for directory in ["bin", "etc", "opt", "opt/tool", "tmp"] {
        layer.directory(directory, if directory == "tmp" { 0o1777 } else { 0o755 })?;
    }
    for program in PROGRAMS {
        let source = find_program(program)?;
        layer.file(&format!("bin/{program}"), 0o755, &fs::read(&source)?)?;
        for library in libraries_of(&source)? {
            layer.machine_file(&library)?;
        }
    }
    layer.file("etc/motd", 0o644, b"welcome to layer 1\n")?;
    layer.file("etc/secret", 0o600, b"removed by layer 2\n")?;
    layer.file("opt/tool/old-a", 0o644, b"hidden by layer 2\n")?;
    layer.file("opt/tool/old-b", 0o644, b"hidden by layer 2\n")?;
    layer.finish()
}

/// A whiteout, an opaque directory, a changed file, and a file with an extended attribute.
fn change_layer() -> io::Result<Vec<u8>> {
    let mut layer = Layer::new();
    layer.directory("etc", 0o755)?;
    layer.file("etc/.wh.secret", 0o644, b"")?;
    layer.file("etc/motd", 0o644, b"welcome to layer 2\n")?;
    layer.directory("opt/tool", 0o755)?;
    layer.file("opt/tool/.wh..wh..opq", 0o644, b"")?;
    layer.xattr("user.origin", b"quickstart")?;
    layer.file("opt/tool/new", 0o644, b"new in layer 2\n")?;
    layer.finish()
}

/// A hard link, a symlink, and a directory that no layer names: `srv` is implied by what is in it.
fn links_layer() -> io::Result<Vec<u8>> {
    let mut layer = Layer::new();
    layer.file("srv/web/index.html", 0o644, b"<h1>hello</h1>\n")?;
    layer.link(EntryType::Link, "srv/web/home.html", "srv/web/index.html")?;
    layer.link(EntryType::Symlink, "srv/current", "web")?;
    layer.finish()
}

/// A layer's tar being written.
struct Layer {
    tar: tar::Builder<Vec<u8>>,
    named: Vec<PathBuf>,
}

impl Layer {
    fn new() -> Self {
        Layer { tar: tar::Builder::new(Vec::new()), named: Vec::new() }
    }

    fn directory(&mut self, path: &str, mode: u32) -> io::Result<()> {
        self.named.push(path.into());
        self.tar.append_data(&mut header(EntryType::Directory, mode, 0), path, io::empty())
    }

    fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let mut header = header(EntryType::Regular, mode, u64::try_from(content.len()).unwrap_or(u64::MAX));
        self.tar.append_data(&mut header, path, content)
    }

    fn link(&mut self, kind: EntryType, path: &str, target: &str) -> io::Result<()> {
        self.tar.append_link(&mut header(kind, 0o777, 0), path, target)
    }

    /// Gives the next file an extended attribute.
    fn xattr(&mut self, name: &str, value: &[u8]) -> io::Result<()> {
        self.tar.append_pax_extensions([(format!("SCHILY.xattr.{name}").as_str(), value)])
    }

    /// A file of this machine, under the path that it has here, with the directories above it. Links are followed.
    fn machine_file(&mut self, path: &Path) -> io::Result<()> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        if self.named.iter().any(|named| named == relative) {
            return Ok(());
        }
        let mut above: Vec<&Path> = relative.ancestors().skip(1).collect();
        above.pop();
        for directory in above.into_iter().rev() {
            if !self.named.iter().any(|named| named == directory) {
                self.directory(&directory.to_string_lossy(), 0o755)?;
            }
        }
        self.named.push(relative.to_owned());
        let mode = fs::metadata(path)?.permissions().mode() & 0o777;
        self.file(&relative.to_string_lossy(), mode, &fs::read(path)?)
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        self.tar.into_inner()
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(1_767_225_600);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn find_program(name: &str) -> io::Result<PathBuf> {
    let places = ["/bin", "/usr/bin"].map(|place| Path::new(place).join(name));
    let found = places.into_iter().find(|path| path.exists());
    found.ok_or_else(|| io::Error::new(ErrorKind::NotFound, format!("this machine has no program {name}")))
}

/// The libraries that the loader would load, and the loader: every absolute path that `ldd` prints.
fn libraries_of(program: &Path) -> io::Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output();
    let output = output.map_err(|error| io::Error::new(error.kind(), format!("cannot run ldd: {error}")))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let paths = text.split_whitespace().map(Path::new).filter(|word| word.is_absolute() && word.is_file());
    Ok(paths.map(Path::to_owned).collect())
}

fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn put_document(blobs: &Path, media_type: &str, document: &Value) -> io::Result<Value> {
    put_blob(blobs, media_type, document.to_string().as_bytes())
}

/// Writes a blob, and returns the descriptor that names it.
fn put_blob(blobs: &Path, media_type: &str, bytes: &[u8]) -> io::Result<Value> {
    let digest = Digest::sha256(bytes);
    fs::write(blobs.join(digest.hex()), bytes)?;
    Ok(json!({ "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len() }))
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
