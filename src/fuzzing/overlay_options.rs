//! A mount's options as text, read back by the rules of those who read it.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::fields::Fields;
use crate::error::MountError;
use crate::overlay::{
    EntryPaths, IdMapSupport, MountEntry, MountPlan, MountRequest, Probe, Upper, XattrClass, plan,
};
use crate::sys::userns::{IdExtent, IdMaps};

/// What `mount(2)` takes.
const PAGE: usize = 4095;

/// Plans a mount of any directories and with any options, on a kernel that can do anything.
///
/// If it is planned, its text is read by the rules of the kernel and of libfuse, which are written down here once more:
///
/// - The directories are those of the request, to the byte; there are no others, and no options but those that the
///   rules of a plan and the request call for.
/// - A security module of the kernel, which looks for options of its own before overlayfs looks for its own, and knows
///   no backslashes, finds the label of the request and nothing else.
/// - What is longer than a page is refused, and nothing else is for its length.
///
/// # Panics
///
/// If one of these does not hold.
pub fn fuzz_overlay_options(bytes: &[u8]) {
    let fields = &mut Fields(bytes);
    let (probe, request) = (probe(fields), request(fields));
    let Ok(plan) = plan(&probe, &request) else { return };
    let expected = Expected::of(&probe, &request);
    for paths in [EntryPaths::Absolute, EntryPaths::Relative] {
        match plan.entry(paths) {
            Ok(entry) => expected.check_entry(&entry, &request),
            Err(MountError::OptionsTooLong { length, limit }) => {
                assert!(limit == PAGE && length > PAGE, "{length} bytes are refused");
                assert!(length <= expected.longest(), "{length} bytes of {expected:?}");
            }
            Err(error) => assert!(expected.is_misread(), "{error} for {expected:?}"),
        }
    }
    if plan.is_by_program()
        && let Ok(text) = plan.program_options()
    {
        expected.check_program(text.as_bytes(), &request);
    }
    expected.check_parts(&plan, &request);
}

fn probe(fields: &mut Fields<'_>) -> Probe {
    let bits = fields.byte();
    let has = |bit: u8| bits & 1 << bit != 0;
    Probe {
        overlay: !has(0),
        trusted_xattrs: !has(1),
        user_xattrs: !has(2),
        lower_descriptors: has(3),
        lower_paths: has(4),
        volatile: has(5),
        id_maps: if has(6) { IdMapSupport::Detached } else { IdMapSupport::Attached },
        program: has(7).then(|| "/usr/bin/fuse-overlayfs".into()),
        ..Probe::nothing()
    }
}

fn request(fields: &mut Fields<'_>) -> MountRequest {
    const OPTIONS: [&str; 16] = [
        "ro",
        "rw",
        "nodev",
        "nosuid",
        "noexec",
        "noatime",
        "relatime",
        "strictatime",
        "nodiratime",
        "volatile",
        "xino=on",
        "xino=off",
        "uuid=off",
        "uuid=null",
        "metacopy=off",
        "index=off",
    ];
    let bits = fields.byte();
    let has = |bit: u8| bits & 1 << bit != 0;
    let base = absolute(fields.bytes());
    let class = if has(0) { XattrClass::Trusted } else { XattrClass::User };
    let empty = path(fields, &base);
    let mut request = MountRequest::new(&base, empty, class);
    request.lowers = (0..fields.byte() % 6).map(|_| path(fields, &base)).collect();
    if has(1) {
        // As many as fill a page, or more than that.
        let more = u32::from(fields.byte()) * 2;
        request.lowers.extend((0..more).map(|number| base.join(format!("{number:,>5}"))));
    }
    request.upper = has(2).then(|| Upper { upper: path(fields, &base), work: path(fields, &base) });
    request.read_only = has(3);
    request.volatile = has(4);
    request.prefer_program = has(5);
    request.has_labels = has(6);
    request.context = fields.option(Fields::text);
    request.options = fields.list(|fields| match fields.byte() {
        255 => fields.text(),
        number => OPTIONS.get(usize::from(number % 16)).map_or_else(String::new, ToString::to_string),
    });
    if has(7) {
        let extent = |fields: &mut Fields<'_>| IdExtent {
            inside: fields.half(),
            outside: fields.half(),
            count: fields.half(),
        };
        request.id_map = Some(IdMaps { uids: fields.list(extent), gids: fields.list(extent) });
    }
    request
}

/// A path of any bytes that a path can have.
fn path(fields: &mut Fields<'_>, base: &Path) -> PathBuf {
    let kind = fields.byte();
    let bytes = fields.bytes();
    match kind % 4 {
        0 => absolute(bytes),
        1 => PathBuf::from(OsString::from_vec(without_nul(bytes))),
        _ => base.join(absolute(bytes).strip_prefix("/").unwrap_or(Path::new("x"))),
    }
}

fn absolute(bytes: Vec<u8>) -> PathBuf {
    Path::new("/").join(OsStr::from_bytes(&without_nul(bytes)))
}

fn without_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.retain(|byte| *byte != 0);
    bytes
}

/// What a mount of a request is made of.
#[derive(Debug)]
struct Expected {
    attributes: Vec<&'static str>,
    /// Options of the filesystem but for directories and the label, sorted.
    settings: Vec<String>,
    /// Those of them that a program gets.
    of_program: Vec<String>,
    label: Option<String>,
    upper: Option<Upper>,
    lowers: Vec<PathBuf>,
}

/// An option: its key, and its value if there is one.
type Setting = (Vec<u8>, Option<Vec<u8>>);

impl Expected {
    fn of(probe: &Probe, request: &MountRequest) -> Self {
        let has = |word: &str| request.options.iter().any(|option| option == word);
        let last = |key: &str| request.options.iter().rfind(|option| option.starts_with(key)).cloned();
        let read_only = request.read_only || has("ro");
        let upper = request.upper.clone().filter(|_| !read_only);
        let mut lowers: Vec<PathBuf> = Vec::new();
        let mut seen = HashSet::new();
        let shown = request.upper.iter().filter(|_| read_only).map(|upper| &upper.upper);
        for lower in shown.chain(&request.lowers) {
            if *lower != request.empty && seen.insert(lower) {
                lowers.push(lower.clone());
            }
        }
        if lowers.len() + usize::from(upper.is_some()) < 2 {
            lowers.push(request.empty.clone());
        }
        let is_volatile = (request.volatile || has("volatile")) && probe.volatile && upper.is_some();
        let of_program: Vec<_> = is_volatile.then(|| "volatile".to_owned()).into_iter().collect();
        let mut settings: Vec<String> =
            ["redirect_dir=nofollow", "metacopy=off", "index=off"].map(str::to_owned).into();
        settings.extend((request.xattrs == XattrClass::User).then(|| "userxattr".to_owned()));
        settings.extend(of_program.iter().cloned().chain(last("xino=")).chain(last("uuid=")));
        settings.sort();
        let atime =
            request.options.iter().rfind(|option| option.ends_with("atime") && *option != "nodiratime");
        let atime = |word: &str| atime.is_some_and(|last| last == word);
        let attributes = [
            ("ro", upper.is_none()),
            ("nodev", has("nodev")),
            ("nosuid", has("nosuid")),
            ("noexec", has("noexec")),
            ("nodiratime", has("nodiratime")),
            ("noatime", atime("noatime")),
            ("strictatime", atime("strictatime")),
        ];
        let attributes = attributes.into_iter().filter_map(|(word, set)| set.then_some(word)).collect();
        let label = request.context.clone().filter(|_| request.has_labels);
        Expected { attributes, settings, of_program, label, upper, lowers }
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        let upper = self.upper.iter().flat_map(|upper| [&upper.upper, &upper.work]);
        self.lowers.iter().chain(upper).map(PathBuf::as_path)
    }

    /// More than the text of the options can have, if each byte of a path has a backslash before it.
    fn longest(&self) -> usize {
        let paths: usize = self.paths().map(|path| path.as_os_str().len() * 2 + 12).sum();
        let words: usize = self.settings.iter().map(|word| word.len() + 1).sum();
        paths + words + self.label.as_ref().map_or(0, |label| label.len() + 12)
    }

    /// Whether a security module finds an option of its own in a path.
    fn is_misread(&self) -> bool {
        self.paths().any(|path| {
            let mut parts = path.as_os_str().as_bytes().split(|byte| *byte == b',').skip(1);
            parts.any(is_of_module)
        })
    }

    fn check_entry(&self, entry: &MountEntry, request: &MountRequest) {
        if entry.kind == "bind" {
            assert!(entry.options == ["ro", "rbind"] && entry.source == request.empty, "{entry:?}");
            assert!(self.upper.is_none() && self.lowers == [request.empty.clone()], "{self:?}");
            return;
        }
        let (attributes, words) = entry.options.split_at(self.attributes.len().min(entry.options.len()));
        assert!(attributes == self.attributes, "{attributes:?} instead of {:?}", self.attributes);
        let of_maps = if request.id_map.is_some() { 2 } else { 0 };
        let (words, maps) = words.split_at(words.len().saturating_sub(of_maps));
        if let Some(given) = &request.id_map {
            let read = |word: Option<&OsString>, key: &str| -> Option<Vec<IdExtent>> {
                let extents = word?.to_str()?.strip_prefix(key)?;
                extents.split(',').map(|extent| extent.parse().ok()).collect()
            };
            let read = (read(maps.first(), "uidmap="), read(maps.last(), "gidmap="));
            assert!(read == (Some(given.uids.clone()), Some(given.gids.clone())), "{maps:?} for {given:?}");
        }
        let text = words.join(OsStr::new(","));
        assert!(text.len() <= PAGE, "{} bytes of options", text.len());

        // Where there is none, nothing looks for labels; where there is one, or a label, it comes first.
        let (labels, rest) = security_module(text.as_bytes());
        let label: Vec<_> = self.label.iter().map(|label| format!("context={label}").into_bytes()).collect();
        assert!(labels == label, "a security module finds {labels:?} in {text:?}");
        let whole = if self.label.is_none() { text.as_bytes() } else { rest.as_slice() };
        assert!(self.label.is_some() || whole == rest, "{text:?} is other options with a security module");
        let options: Vec<Setting> = kernel_words(whole).into_iter().map(setting).collect();
        self.check(&self.settings, options, entry.directory.as_deref(), kernel_layers, unescaped);
    }

    fn check_program(&self, text: &[u8], request: &MountRequest) {
        let mut words = fuse_words(text);
        let mut take = |expected: String| {
            let found = words.iter().position(|word| *word == expected.as_bytes());
            assert!(found.is_some(), "{expected} is not in {words:?}");
            found.map(|at| words.remove(at));
        };
        self.attributes.iter().for_each(|word| take((*word).to_owned()));
        self.of_program.iter().for_each(|word| take(word.clone()));
        if let Some(label) = &self.label {
            take(format!("context=\"{label}\""));
        }
        if let Some(maps) = &request.id_map {
            let text =
                |extents: &[IdExtent]| extents.iter().map(ToString::to_string).collect::<Vec<_>>().join(":");
            take(format!("uidmapping={}", text(&maps.uids)));
            take(format!("gidmapping={}", text(&maps.gids)));
        }
        let layers = |value: &[u8]| -> Vec<Vec<u8>> {
            let layers: Vec<_> = value.split(|byte| *byte == b':').map(<[u8]>::to_vec).collect();
            assert!(!layers.iter().any(|layer| layer.starts_with(b"//")), "a plugin in {layers:?}");
            layers
        };
        let options = words.iter().map(|word| setting(word)).collect();
        self.check(&[], options, Some(&request.base), layers, <[u8]>::to_vec);
    }

    fn check_parts(&self, plan: &MountPlan, request: &MountRequest) {
        let parts = plan.parts(&request.empty);
        assert!(parts.upper == self.upper.as_ref().map(|upper| upper.upper.clone()), "{parts:?}");
        assert!(parts.work == self.upper.as_ref().map(|upper| upper.work.clone()), "{parts:?}");
        let lowers: Vec<_> = self.lowers.iter().filter(|lower| **lower != request.empty).cloned().collect();
        assert!(parts.lowers == lowers, "{parts:?}");
        let mut words: Vec<String> = self.attributes.iter().map(ToString::to_string).collect();
        words.retain(|word| word != "ro");
        words.extend(
            self.settings
                .iter()
                .cloned()
                .chain(self.label.iter().map(|label| format!("context=\"{label}\""))),
        );
        words.sort();
        let mut found = parts.options;
        found.sort();
        assert!(found == words, "{found:?} instead of {words:?}");
    }

    /// Compares options that were read.
    fn check(
        &self,
        expected: &[String],
        options: Vec<Setting>,
        directory: Option<&Path>,
        layers: impl Fn(&[u8]) -> Vec<Vec<u8>>,
        value_of: impl Fn(&[u8]) -> Vec<u8>,
    ) {
        let whole = |bytes: Vec<u8>| -> PathBuf {
            let path = PathBuf::from(OsString::from_vec(bytes));
            directory.map_or(path.clone(), |directory| directory.join(path))
        };
        let (mut settings, mut lowers, mut upper, mut work) = (Vec::new(), Vec::new(), None, None);
        for (key, value) in options {
            match (key.as_slice(), value) {
                (b"lowerdir", Some(value)) => lowers.extend(layers(&value).into_iter().map(whole)),
                (b"upperdir", Some(value)) if upper.is_none() => upper = Some(whole(value_of(&value))),
                (b"workdir", Some(value)) if work.is_none() => work = Some(whole(value_of(&value))),
                (_, value) => {
                    let value = value.map(|value| [b"=".as_slice(), &value].concat()).unwrap_or_default();
                    settings.push(String::from_utf8_lossy(&[key, value].concat()).into_owned());
                }
            }
        }
        settings.sort();
        assert!(settings == expected, "{settings:?} instead of {expected:?}");
        assert!(lowers == self.lowers, "{lowers:?} instead of {:?}", self.lowers);
        let given = self.upper.as_ref().map(|upper| (upper.upper.clone(), upper.work.clone())).unzip();
        assert!((&upper, &work) == (&given.0, &given.1), "{upper:?} and {work:?} instead of {given:?}");
    }
}

/// What SELinux and Smack take out of the options of any filesystem, and what they leave: they split at commas, of which
/// those between quotes count for nothing, and know no backslashes (`selinux_sb_eat_lsm_opts`).
fn security_module(text: &[u8]) -> (Vec<Vec<u8>>, Vec<u8>) {
    let mut is_quoted = false;
    let words = text.split(|byte| {
        is_quoted ^= *byte == b'"';
        *byte == b',' && !is_quoted
    });
    let (taken, left): (Vec<_>, Vec<_>) = words.partition(|word| is_of_module(word));
    let bare = |word: &[u8]| word.iter().copied().filter(|byte| *byte != b'"').collect();
    (taken.into_iter().map(bare).collect(), left.join(&b','))
}

fn is_of_module(word: &[u8]) -> bool {
    let keys = ["context=", "fscontext=", "defcontext=", "rootcontext=", "smackfs"];
    word.starts_with(b"seclabel") || keys.iter().any(|key| word.starts_with(key.as_bytes()))
}

/// Splits at each comma without a backslash before it (`ovl_next_opt`).
fn kernel_words(text: &[u8]) -> Vec<&[u8]> {
    let mut is_escaped = false;
    let words = text.split(|byte| {
        let ends = *byte == b',' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        ends
    });
    words.filter(|word| !word.is_empty()).collect()
}

/// The layers between colons without a backslash before them (`ovl_parse_param_split_lowerdirs`).
fn kernel_layers(value: &[u8]) -> Vec<Vec<u8>> {
    let mut is_escaped = false;
    let layers = value.split(|byte| {
        let ends = *byte == b':' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        ends
    });
    layers.map(unescaped).collect()
}

/// Takes one level of backslashes off (`ovl_unescape`).
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = text.iter().copied();
    let next = || match bytes.next() {
        Some(b'\\') => bytes.next(),
        byte => byte,
    };
    std::iter::from_fn(next).collect()
}

/// Splits at each comma without a backslash before it, and takes the backslashes off; three octal digits after one are a
/// byte (`process_real_option_group` of libfuse).
fn fuse_words(text: &[u8]) -> Vec<Vec<u8>> {
    let mut words = vec![Vec::new()];
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        rest = after;
        let (byte, behind) = match (byte, after) {
            (b',', _) => {
                words.push(Vec::new());
                continue;
            }
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', behind @ ..]) => {
                ((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'), behind)
            }
            (b'\\', [escaped, behind @ ..]) => (*escaped, behind),
            (byte, behind) => (*byte, behind),
        };
        rest = behind;
        words.last_mut().into_iter().for_each(|word| word.push(byte));
    }
    words
}

fn setting(word: &[u8]) -> Setting {
    let mut parts = word.splitn(2, |byte| *byte == b'=');
    (parts.next().unwrap_or_default().to_vec(), parts.next().map(<[u8]>::to_vec))
}
