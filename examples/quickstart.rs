//! The whole way of an image, in one process: loaded, mounted, run, changed, committed, saved, and loaded again
//! elsewhere. Needs no network, no root and no set-up:
//!
//! ```text
//! cargo run --release --example quickstart
//! ```
//!
//! It is an example of embedding, too: all of it is calls of the library.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};
use std::iter;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use layerstore::oci::{CommitOptions, LoadOptions, Reference, SaveOptions, Source, Transport};
use layerstore::{
    ContainerOptions, DiffId, Image, MappedIds, MountOptions, Store, StoreOptions, UnmountMode,
    enter_user_namespace, is_privileged,
};
use nix::sched::CloneFlags;

#[path = "quickstart/image.rs"]
mod image;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// What runs in the container. It says what it sees, and changes things.
const SCRIPT: &str = "
echo the root has $(ls /), and etc has $(ls /etc)
echo opt/tool has $(ls /opt/tool), and the motd says: $(cat /etc/motd)
echo 'changed by a process' >> /etc/motd
ln /etc/motd /etc/motd.link
rm -r /opt/tool
echo started > /srv/log
";

fn main() -> ExitCode {
    // Mounting takes privileges. An ordinary user has them in a user namespace, which a process enters while it has a
    // single thread: first of all.
    match enter().and_then(|user| visit(&user)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let causes = iter::successors(Some(&*error as &dyn Error), |&error| error.source());
            let text: Vec<_> = causes.map(ToString::to_string).collect();
            say("failed", text.join(": "));
            ExitCode::FAILURE
        }
    }
}

fn enter() -> Result<String> {
    if is_privileged() {
        return Ok("root".to_owned());
    }
    Ok(match enter_user_namespace()?.ids {
        MappedIds::Single => "an ordinary user with one id, now root in a user namespace",
        MappedIds::Ranges { .. } => "an ordinary user with a range of ids, now root in a user namespace",
    }
    .to_owned())
}

fn visit(user: &str) -> Result<()> {
    let start = Instant::now();
    let dir = tempfile::Builder::new().prefix("layerstore-").tempdir()?;
    say("you are", user);
    tour(dir.path())?;
    say("took", format!("{:.1} s, all of it below {}", start.elapsed().as_secs_f64(), dir.path().display()));
    Ok(())
}

fn tour(dir: &Path) -> Result<()> {
    // An image, as a build tool leaves it.
    let (built, saved) = (dir.join("built.oci"), dir.join("saved.oci"));
    image::write(&built)?;
    say("built", "an image of /bin/sh and its libraries: layers in gzip, zstd, gzip");

    // A store is a directory. Opening makes it.
    let store = Store::open(&StoreOptions::at(dir.join("store")))?;
    let demo = load(&store, &built, "1", "demo:1")?;
    let layers = diff_ids(&store, &demo)?;
    let size = store.usage(&demo)?;
    say(
        "loaded",
        format!("demo:1: {} layers, {} inodes, {} KiB", layers.len(), size.inodes, size.total >> 10),
    );

    // A container is a writable layer on an image. A mount outlives the process, so it is given back.
    let web = store.create_container(&demo.id, &ContainerOptions::named("web"))?;
    let mount = store.mount(&web, &MountOptions::default())?;
    let output = run_inside(mount.path(), SCRIPT);
    store.unmount(&web, UnmountMode::Plain)?;
    say_all("ran", output?.lines());

    // What was changed: told from the writable layer and the manifests of the layers below it.
    say_all("changed", store.changes(&web)?);

    // The change becomes an image, which goes out and comes in again somewhere else.
    let next = store.commit(&web.id, &CommitOptions::named("demo:2"))?;
    save(&store, &next, &saved, "2")?;
    let second = Store::open(&StoreOptions::at(dir.join("second")))?;
    let came = load(&second, &saved, "2", "demo:2")?;
    say("committed", "demo:2; saved it as an OCI layout; loaded that into a second store");
    let (here, there) = (diff_ids(&store, &next)?, diff_ids(&second, &came)?);
    let pairs = here.iter().zip(&there).map(|(here, there)| (here.to_string(), there.to_string()));
    say_all("diffIDs", pairs.map(|(here, there)| format!("{here:.28}...  =  {there:.28}...")));
    if here != there || !here.starts_with(&layers) {
        return Err("the layers are not the same in both stores".into());
    }

    // What came in goes out again, to the last byte of the manifest.
    let unchanged = save(&store, &demo, &dir.join("again.oci"), "1")?;
    say("saved", format!("demo:1 again; manifest byte for byte as it came: {unchanged}"));

    // Removing an image takes the layers that nothing else needs.
    store.remove_container(&web.id)?;
    let gone = store.remove_image(&next.id)?;
    say("removed", format!("web and demo:2; {} layer went, {} stay", gone.len(), store.layers()?.len()));
    Ok(())
}

fn load(store: &Store, layout: &Path, tag: &str, name: &str) -> Result<Image> {
    let reference = Reference::new(Transport::Layout, layout, Some(tag))?;
    Ok(store.load(&Source::open(&reference, store.root())?, &LoadOptions::named(name))?)
}

fn save(store: &Store, image: &Image, layout: &Path, tag: &str) -> Result<bool> {
    let reference = Reference::new(Transport::Layout, layout, Some(tag))?;
    Ok(store.save(&image.id, &reference, &SaveOptions::default())?.unchanged)
}

/// The digests of an image's uncompressed layers, bottom first.
fn diff_ids(store: &Store, image: &Image) -> Result<Vec<DiffId>> {
    let Some(top) = &image.top_layer else { return Ok(Vec::new()) };
    let chain = store.layer_chain(top)?;
    Ok(chain.into_iter().rev().filter_map(|layer| layer.diff_id).collect())
}

/// Runs a script of the shell inside `root`. A container runtime does far more; this changes the root directory of
/// one thread, whose children inherit it, and leaves the rest of the process where it is.
fn run_inside(root: &Path, script: &str) -> Result<String> {
    let inside = || -> Result<String> {
        nix::sched::unshare(CloneFlags::CLONE_FS)?;
        nix::unistd::chroot(root)?;
        nix::unistd::chdir("/")?;
        // The tree has no /dev/null for a standard input that is none.
        let output = Command::new("/bin/sh")
            .args(["-ec", script])
            .env_clear()
            .env("PATH", "/bin")
            .stdin(Stdio::piped())
            .output()?;
        if !output.status.success() {
            return Err(format!("the shell failed: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    std::thread::scope(|scope| scope.spawn(inside).join()).map_err(|_| "the thread panicked")?
}

/// One line of the screen, or several of which the first says what they are.
fn say_all(what: &str, lines: impl IntoIterator<Item = impl Display>) {
    for (number, line) in lines.into_iter().enumerate() {
        say(if number == 0 { what } else { "" }, line);
    }
}

fn say(what: &str, text: impl Display) {
    // A reader who has seen enough, such as `head`, is no error.
    writeln!(io::stdout(), "{what:>10}  {text}").ok();
}
