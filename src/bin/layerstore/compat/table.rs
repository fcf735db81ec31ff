//! Every command: its names, its arguments, its flags, and what runs it.

use super::call::Call;
use super::commands::{
    changes, check, containers, copy, create, data, dedup, delete, images, layers, metadata, mount, names,
    owners, staging, status, unshare,
};
use super::console::Console;
use super::failure::Failure;
use super::flags::{Flag, Takes};

const fn switch(names: &'static [&'static str], about: &'static str) -> Flag {
    Flag { names, takes: Takes::Switch, about }
}

const fn text(names: &'static [&'static str], about: &'static str) -> Flag {
    Flag { names, takes: Takes::Text, about }
}

const fn list(names: &'static [&'static str], about: &'static str) -> Flag {
    Flag { names, takes: Takes::List, about }
}

// What every command takes.
pub static GRAPH: Flag = text(&["--graph", "-g"], "the directory of the store");
pub static RUN: Flag = text(&["--run", "-R"], "the directory for what a reboot drops");
pub static DRIVER: Flag = text(&["--storage-driver", "-s"], "the storage driver: overlay");
pub static STORAGE_OPT: Flag = list(&["--storage-opt"], "an option of the driver, KEY=VALUE");
pub static IMAGE_STORE: Flag = text(&["--image-store"], "a separate store for images");
pub static TRANSIENT_STORE: Flag = switch(&["--transient-store"], "drop containers with the next boot");
pub static DEBUG: Flag = switch(&["--debug", "-D"], "tell what is done on standard error");
pub static UNSHARE: Flag = switch(&["--unshare", "-U"], "run in a user namespace");

/// The flags of every command.
pub static GLOBAL: &[&Flag] =
    &[&GRAPH, &RUN, &IMAGE_STORE, &TRANSIENT_STORE, &DRIVER, &STORAGE_OPT, &DEBUG, &UNSHARE];

// What some commands take.
pub static BZIP2: Flag = switch(&["--bzip2", "--bz2", "-b"], "compress with bzip2, which is refused");
pub static CHOWN: Flag = text(&["--chown", "-o"], "the owner of the copies, UID[:GID]");
pub static CONTAINER: Flag = switch(&["--container", "-c"], "succeed only for containers");
pub static DIGEST: Flag = text(&["--digest", "-d"], "the digest that the image is known by");
pub static FILE: Flag = text(&["--file", "-f"], "a file in place of standard input or output");
pub static FORCE: Flag = switch(&["--force", "-f"], "unmount whatever uses it");
pub static FORCE_REPAIR: Flag = switch(&["--force", "-f"], "remove damaged containers, too");
pub static GID_MAP: Flag = text(&["--gidmap"], "the map of groups, CONTAINER:HOST:SIZE");
pub static GZIP: Flag = switch(&["--gzip", "-c"], "compress with gzip");
pub static HASH_METHOD: Flag =
    text(&["--hash-method"], "how equal files are looked for: crc, size or sha256, to the same effect");
pub static HOST_GID_MAP: Flag = switch(&["--hostgidmap"], "map no groups");
pub static HOST_UID_MAP: Flag = switch(&["--hostuidmap"], "map no users");
pub static ID: Flag = text(&["--id", "-i"], "the id, in place of a random one");
pub static IMAGE: Flag = switch(&["--image", "-i"], "succeed only for images");
pub static JSON: Flag = switch(&["--json", "-j"], "print JSON");
pub static LABEL: Flag = text(&["--label", "-l"], "the SELinux label");
pub static LAYER: Flag = switch(&["--layer", "-l"], "succeed only for layers");
pub static MAX: Flag = text(&["--max", "-m"], "how old an unused layer may be");
pub static METADATA: Flag = text(&["--metadata", "-m"], "the metadata");
pub static METADATA_FILE: Flag = text(&["--metadata-file", "-f"], "the file with the metadata");
pub static NAME: Flag = list(&["--name", "-n"], "a name");
pub static OPT: Flag = text(&["--opt", "-o"], "taken, and without effect");
pub static QUICK: Flag = switch(&["--quick", "-q"], "print ids only");
pub static QUICK_CHECK: Flag = switch(&["--quick", "-q"], "do not compare files one by one");
pub static QUIET: Flag = switch(&["--quiet", "-q"], "print less");
pub static READ_ONLY: Flag = switch(&["--read-only", "--ro", "-r"], "mount an image for reading");
pub static READ_ONLY_LAYER: Flag = switch(&["--readonly", "-r"], "never mount it for writing");
pub static REPAIR: Flag = switch(&["--repair", "-r"], "mend or remove what is damaged");
pub static SUB_GID_MAP: Flag = text(&["--subgidmap"], "the group whose subordinate ids are mapped");
pub static SUB_UID_MAP: Flag = text(&["--subuidmap"], "the user whose subordinate ids are mapped");
pub static TEST: Flag = switch(&["--test", "-t"], "tell what would be removed, and remove nothing");
pub static TREE: Flag = switch(&["--tree", "-t"], "draw a tree");
pub static UID_MAP: Flag = text(&["--uidmap"], "the map of users, CONTAINER:HOST:SIZE");
pub static UNCOMPRESSED: Flag = switch(&["--uncompressed", "-u"], "do not compress");
pub static VOLATILE: Flag = switch(&["--volatile"], "mount without syncs");
pub static XZ: Flag = switch(&["--xz", "-x"], "compress with xz, which is refused");

/// A command.
#[derive(Debug)]
pub struct Command {
    /// Its name and the other spellings of it.
    pub names: &'static [&'static str],
    /// The arguments, for the usage text.
    pub arguments: &'static str,
    /// How many arguments it takes at least.
    pub arguments_least: usize,
    /// How many at most.
    pub arguments_most: Option<usize>,
    /// Its own flags.
    pub flags: &'static [&'static Flag],
    /// What it does.
    pub about: &'static str,
    /// Does it.
    pub run: Run,
}

/// What a command needs, and does.
#[derive(Debug)]
pub enum Run {
    /// On an open store.
    OnStore(fn(&Call<'_>) -> Result<(), Failure>),
    /// With its arguments alone.
    Alone(fn(&[String], &Console) -> Result<(), Failure>),
}

impl Command {
    /// Its name.
    pub fn name(&self) -> &'static str {
        self.names.first().copied().unwrap_or_default()
    }
}

/// The command with this name.
pub fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.names.contains(&name))
}

type Names = &'static [&'static str];
type FlagList = &'static [&'static Flag];
type OnStore = fn(&Call<'_>) -> Result<(), Failure>;

/// A command with a fixed number of arguments, or with some that may be left out.
const fn row(
    names: Names,
    (arguments, least, most): (&'static str, usize, usize),
    flags: FlagList,
    about: &'static str,
    run: OnStore,
) -> Command {
    Command {
        names,
        arguments,
        arguments_least: least,
        arguments_most: Some(most),
        flags,
        about,
        run: Run::OnStore(run),
    }
}

/// A command that takes one argument or more.
const fn row_of_many(
    names: Names,
    arguments: &'static str,
    flags: FlagList,
    about: &'static str,
    run: OnStore,
) -> Command {
    Command {
        names,
        arguments,
        arguments_least: 1,
        arguments_most: None,
        flags,
        about,
        run: Run::OnStore(run),
    }
}

/// The commands, by name.
pub static COMMANDS: &[Command] = &[
    row_of_many(&["add-names", "addnames"], "THING", &[&NAME, &JSON], "Give a thing more names", names::add),
    row(
        &["applydiff", "apply-diff"],
        ("LAYER", 1, 1),
        &[&FILE],
        "Put the content of a tar into a layer",
        changes::apply_diff,
    ),
    row(
        &["applydiff-using-staging-dir"],
        ("LAYER DIRECTORY", 2, 2),
        &[],
        "Put the content of a directory into a layer",
        staging::apply,
    ),
    row(&["changes"], ("LAYER [BASE]", 1, 2), &[&JSON], "List what a layer changes", changes::changes),
    row(
        &["check"],
        ("", 0, 0),
        &[&MAX, &REPAIR, &FORCE_REPAIR, &QUICK_CHECK, &JSON],
        "Look for damage",
        check::check,
    ),
    row(&["config"], ("[FILE]", 0, 1), &[], "Print the configuration", status::config),
    row_of_many(&["container"], "CONTAINER ...", &[&JSON], "Show containers", containers::show),
    row_of_many(
        &["container-parent-owners"],
        "CONTAINER ...",
        &[&JSON],
        "List owners above the mounts of containers that have no number in them",
        owners::of_containers,
    ),
    row(&["containers"], ("", 0, 0), &[&JSON], "List containers", containers::list),
    Command {
        names: &["copy"],
        arguments: "[LAYER:]PATH ... [LAYER:]PATH",
        arguments_least: 2,
        arguments_most: None,
        flags: &[&CHOWN, &JSON],
        about: "Copy files into layers and out of them",
        run: Run::OnStore(copy::copy),
    },
    row(
        &["create-container", "createcontainer"],
        ("IMAGE", 1, 1),
        &[
            &NAME,
            &ID,
            &METADATA,
            &METADATA_FILE,
            &VOLATILE,
            &HOST_UID_MAP,
            &HOST_GID_MAP,
            &UID_MAP,
            &GID_MAP,
            &SUB_UID_MAP,
            &SUB_GID_MAP,
            &JSON,
        ],
        "Create a container",
        create::container,
    ),
    row(
        &["create-image", "createimage"],
        ("[LAYER]", 0, 1),
        &[&NAME, &ID, &DIGEST, &METADATA, &METADATA_FILE, &JSON],
        "Create an image",
        create::image,
    ),
    row(
        &["create-layer", "createlayer"],
        ("[PARENT]", 0, 1),
        &[
            &NAME,
            &ID,
            &LABEL,
            &READ_ONLY_LAYER,
            &HOST_UID_MAP,
            &HOST_GID_MAP,
            &UID_MAP,
            &GID_MAP,
            &SUB_UID_MAP,
            &SUB_GID_MAP,
            &JSON,
        ],
        "Create an empty layer",
        create::layer,
    ),
    row(
        &["create-storage-layer"],
        ("[PARENT]", 0, 1),
        &[
            &ID,
            &LABEL,
            &READ_ONLY_LAYER,
            &HOST_UID_MAP,
            &HOST_GID_MAP,
            &UID_MAP,
            &GID_MAP,
            &SUB_UID_MAP,
            &SUB_GID_MAP,
            &JSON,
        ],
        "Create a layer that no list has",
        create::storage_layer,
    ),
    row(
        &["dedup"],
        ("", 0, 0),
        &[&HASH_METHOD, &JSON],
        "Let equal files of layers share their space",
        dedup::dedup,
    ),
    row_of_many(
        &["delete"],
        "THING ...",
        &[&JSON],
        "Delete things without looking who needs them",
        delete::anything,
    ),
    row_of_many(
        &["delete-container", "deletecontainer"],
        "CONTAINER ...",
        &[&JSON],
        "Delete containers with their layers",
        delete::containers,
    ),
    row_of_many(
        &["delete-image", "deleteimage"],
        "IMAGE ...",
        &[&TEST, &JSON],
        "Delete images and the layers that nothing else uses",
        delete::images,
    ),
    row_of_many(
        &["delete-layer", "deletelayer"],
        "LAYER ...",
        &[&JSON],
        "Delete layers that nothing uses",
        delete::layers,
    ),
    row(
        &["diff"],
        ("LAYER [BASE]", 1, 2),
        &[&FILE, &UNCOMPRESSED, &GZIP, &BZIP2, &XZ],
        "Write what a layer changes as a tar",
        changes::diff,
    ),
    row(
        &["diffsize", "diff-size"],
        ("LAYER [BASE]", 1, 2),
        &[],
        "Print the size of what a layer changes",
        changes::diff_size,
    ),
    row_of_many(
        &["exists"],
        "THING ...",
        &[&QUIET, &LAYER, &IMAGE, &CONTAINER, &JSON],
        "Tell whether things exist",
        metadata::exists,
    ),
    row(&["gc"], ("", 0, 0), &[&JSON], "Remove what processes left that were killed", check::gc),
    row(
        &["get-container-data", "getcontainerdata"],
        ("CONTAINER KEY", 2, 2),
        &[&FILE],
        "Print a data item of a container",
        data::get_of_container,
    ),
    row(
        &["get-container-data-digest", "getcontainerdatadigest"],
        ("CONTAINER KEY", 2, 2),
        &[],
        "Print the digest of a data item of a container",
        data::digest_of_container,
    ),
    row(
        &["get-container-data-size", "getcontainerdatasize"],
        ("CONTAINER KEY", 2, 2),
        &[],
        "Print the size of a data item of a container",
        data::size_of_container,
    ),
    row(
        &["get-container-dir", "getcontainerdir"],
        ("CONTAINER", 1, 1),
        &[],
        "Print the directory of a container",
        containers::directory,
    ),
    row(
        &["get-container-run-dir", "getcontainerrundir"],
        ("CONTAINER", 1, 1),
        &[],
        "Print the directory of a container that a reboot drops",
        containers::run_directory,
    ),
    row(
        &["get-image-data", "getimagedata"],
        ("IMAGE KEY", 2, 2),
        &[&FILE],
        "Print a data item of an image",
        data::get_of_image,
    ),
    row(
        &["get-image-data-digest", "getimagedatadigest"],
        ("IMAGE KEY", 2, 2),
        &[],
        "Print the digest of a data item of an image",
        data::digest_of_image,
    ),
    row(
        &["get-image-data-size", "getimagedatasize"],
        ("IMAGE KEY", 2, 2),
        &[],
        "Print the size of a data item of an image",
        data::size_of_image,
    ),
    row(
        &["get-image-dir", "getimagedir"],
        ("IMAGE", 1, 1),
        &[],
        "Print the directory of an image",
        containers::image_directory,
    ),
    row(
        &["get-image-run-dir", "getimagerundir"],
        ("IMAGE", 1, 1),
        &[],
        "Print the directory of an image that a reboot drops",
        containers::image_run_directory,
    ),
    row(
        &["get-layer-data", "getlayerdata"],
        ("LAYER KEY", 2, 2),
        &[&FILE],
        "Print a data item of a layer",
        data::get_of_layer,
    ),
    row_of_many(&["get-names", "getnames"], "THING", &[&JSON], "List the names of a thing", names::get),
    row_of_many(&["image"], "IMAGE ...", &[&JSON], "Show images", images::show),
    row(&["images"], ("", 0, 0), &[&QUIET, &JSON], "List images", images::list),
    row(
        &["images-by-digest"],
        ("DIGEST", 1, 1),
        &[&QUIET, &JSON],
        "List the images with a digest",
        images::list_by_digest,
    ),
    row(
        &["import-layer", "importlayer"],
        ("[PARENT]", 0, 1),
        &[
            &NAME,
            &ID,
            &LABEL,
            &READ_ONLY_LAYER,
            &HOST_UID_MAP,
            &HOST_GID_MAP,
            &UID_MAP,
            &GID_MAP,
            &SUB_UID_MAP,
            &SUB_GID_MAP,
            &JSON,
            &FILE,
        ],
        "Create a layer from a tar",
        create::import_layer,
    ),
    row_of_many(&["layer"], "LAYER ...", &[&JSON], "Show layers", layers::show),
    row_of_many(
        &["layer-parent-owners"],
        "LAYER ...",
        &[&JSON],
        "List owners above the mounts of layers that have no number in them",
        owners::of_layers,
    ),
    row(&["layers"], ("", 0, 0), &[&TREE, &QUICK, &JSON], "List layers", layers::list),
    row(
        &["list-container-data", "listcontainerdata"],
        ("CONTAINER", 1, 1),
        &[&JSON],
        "List the data items of a container",
        data::list_of_container,
    ),
    row(
        &["list-image-data", "listimagedata"],
        ("IMAGE", 1, 1),
        &[&JSON],
        "List the data items of an image",
        data::list_of_image,
    ),
    row(
        &["list-layer-data", "listlayerdata"],
        ("LAYER", 1, 1),
        &[&JSON],
        "List the data items of a layer",
        data::list_of_layer,
    ),
    row_of_many(&["metadata"], "THING ...", &[&QUIET, &JSON], "Print the metadata of things", metadata::show),
    row_of_many(
        &["mount"],
        "THING ...",
        &[&OPT, &LABEL, &READ_ONLY, &JSON],
        "Mount containers, layers or images",
        mount::mount,
    ),
    row_of_many(&["mounted"], "THING ...", &[&JSON], "Tell what is mounted", mount::mounted),
    row_of_many(
        &["remove-names", "removenames"],
        "THING",
        &[&NAME, &JSON],
        "Take names from a thing",
        names::remove,
    ),
    row(
        &["set-container-data", "setcontainerdata"],
        ("CONTAINER KEY", 2, 2),
        &[&FILE],
        "Store a data item of a container",
        data::set_of_container,
    ),
    row(
        &["set-image-data", "setimagedata"],
        ("IMAGE KEY", 2, 2),
        &[&FILE],
        "Store a data item of an image",
        data::set_of_image,
    ),
    row(
        &["set-layer-data", "setlayerdata"],
        ("LAYER KEY", 2, 2),
        &[&FILE],
        "Store a data item of a layer",
        data::set_of_layer,
    ),
    row(
        &["set-metadata", "setmetadata"],
        ("THING", 1, 1),
        &[&METADATA, &METADATA_FILE],
        "Replace the metadata of a thing",
        metadata::set,
    ),
    row_of_many(
        &["set-names", "setnames"],
        "THING",
        &[&NAME, &JSON],
        "Replace the names of a thing",
        names::set,
    ),
    row(&["shutdown"], ("", 0, 0), &[&FORCE, &JSON], "Unmount everything", mount::shutdown),
    row(&["status"], ("", 0, 0), &[&JSON], "Print where and what the store is", status::status),
    row(&["storage-layers"], ("", 0, 0), &[&JSON], "List the ids of layers", owners::storage_layers),
    row_of_many(&["unmount", "umount"], "THING ...", &[&FORCE, &JSON], "Unmount", mount::unmount),
    Command {
        names: &["unshare"],
        arguments: "[COMMAND ...]",
        arguments_least: 0,
        arguments_most: None,
        flags: &[],
        about: "Run a command in a user namespace",
        run: Run::Alone(unshare::unshare),
    },
    row(&["version"], ("", 0, 0), &[&JSON], "Print the version", status::version),
    row(&["wipe"], ("", 0, 0), &[&JSON], "Delete everything", delete::wipe),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn commands_are_sorted_and_no_spelling_is_another() {
        let names: Vec<&str> = COMMANDS.iter().map(Command::name).collect();
        assert!(names.is_sorted(), "{names:?}");
        let mut seen = BTreeSet::new();
        for name in COMMANDS.iter().flat_map(|command| command.names) {
            assert!(seen.insert(name), "{name}");
        }
    }

    #[test]
    fn no_flag_of_a_command_is_another() {
        for command in COMMANDS {
            let mut seen = BTreeSet::from(["-h", "--help", "-help"]);
            for name in command.flags.iter().chain(GLOBAL).flat_map(|flag| flag.names) {
                assert!(seen.insert(name), "{} {name}", command.name());
            }
            assert!(command.arguments_most.is_none_or(|most| most >= command.arguments_least));
        }
    }
}
