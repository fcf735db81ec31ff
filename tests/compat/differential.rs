//! The same scripts for Debian's containers-storage and for this program, each with a store of its own: the transcripts
//! are the same, but for what is known and listed here with its reason.

use crate::support::machine;
use crate::support::transcript::Session;
use crate::support::{Dir, TestCommand};

/// A difference that is no fault.
struct Known {
    /// How the command begins.
    command: &'static str,
    /// What the transcript of this program has.
    ours: &'static str,
    /// What that of the other has.
    theirs: &'static str,
    /// Why that is right.
    reason: &'static str,
}

const fn known(
    command: &'static str,
    ours: &'static str,
    theirs: &'static str,
    reason: &'static str,
) -> Known {
    Known { command, ours, theirs, reason }
}

/// What Debian's version 1.43 does otherwise than 1.63, which this program follows, and what cannot be the same.
const KNOWN: &[Known] = &[
    known("version", "! Version: ", "", "1.43 prints none"),
    known(
        "status",
        "Supports volatile",
        "Using metacopy",
        "1.43 does not tell what it can do with volatile mounts",
    ),
    known("remove-names", "", "unrecognized command", "1.43 has no such command"),
    known("layers -q", "", "not defined: -q", "1.43 has no such flag"),
    known("layers -j", "\nnull\n", "\n[]\n", "1.43 prints an empty list where 1.63 prints null"),
    known("copy base:/none", "error copying", "error copying", "the paths are those in the layers here"),
    known("copy tree/f1 relative", "should be absolute", "", "1.43 takes it"),
    known("applydiff", "unpacking failed", "processing tar file", "1.43 says it in other words"),
    known("import-layer -f junk", "unpacking failed", "processing tar file", "1.43 says it in other words"),
    known("create-container", "\n\tc1\n\ttwo\n", "\n\tc1\ttwo\n", "1.43 prints all names on one line"),
];

/// Scripts that need no mount.
const PLAIN: &[&str] = &[
    // Words that mean nothing.
    "nosuch
     ''
     images --nope
     images -quiet
     images --quiet=maybe
     add-names -n
     -- containers
     containers -j=0
     containers --json=T
     containers -j='true'",
    // Containers.
    "containers
     containers -j
     layers
     layers -j
     create-container -i ctr -n c1 -n two -n c1 -m meta ''
     create-container -j --volatile -i vol ''
     createcontainer ''
     create-container -i ctr ''
     create-container -n c1 ''
     create-container nope
     containers
     containers -j
     container ctr c1 nope
     container -j ct
     layers
     layers -q
     layers -t
     layer nope
     layer -j nope
     delete-container vol nope
     deletecontainer -j ctr nope
     delete-container -j nope
     containers -j",
    // Names.
    "create-container -i x -n one ''
     create-container -i y ''
     get-names x
     get-names -j x
     add-names -j -n one x
     getnames x
     set-names -j -n three -n four -n three y
     set-names -n three x
     get-names y
     get-names -j x
     set-names -j y
     get-names -j y
     get-names y
     addnames x
     remove-names -n three x
     get-names nope
     set-names -n x nope
     add-names -n x nope",
    // Metadata, and whether things exist.
    "create-container -i x -m '<m>&' ''
     metadata x
     metadata nope
     metadata -q x
     metadata -j x nope
     metadata -j nope
     set-metadata x
     set-metadata -m new nope
     set-metadata -f none x
     setmetadata -m new x
     metadata x
     exists x
     exists nope
     exists -c x
     exists -i x
     exists -l -c x
     exists -q nope
     exists -j x nope",
    // Data items.
    "create-container -i x ''
     list-container-data x
     list-container-data -j x
     set-container-data x k1 < one
     set-container-data x k2 < three
     set-container-data x k1 < two words
     listcontainerdata x
     list-container-data -j x
     get-container-data x k1
     get-container-data-size x k1
     getcontainerdatadigest x k1
     get-container-data x none
     get-container-data-size x none
     get-container-data-digest x none
     set-container-data x '' < x
     set-container-data nope k < x
     get-container-data nope k
     list-container-data nope
     containers -j
     containers
     container x
     list-image-data nope
     get-image-data nope k
     get-image-data-size nope k
     get-image-data-digest nope k
     set-image-data nope k < x
     list-layer-data nope
     get-layer-data nope k
     set-layer-data nope k < x",
    // Images.
    "create-layer -i top
     create-image -i img -n localhost/img:1 -m meta top
     set-image-data img item < hello
     set-image-data img manifest < m1
     images
     images -j
     image img
     image -j localhost/img:1
     list-image-data img
     get-image-data img item
     get-image-data img none
     get-image-data-size img item
     get-image-data-digest img item
     create-image -j
     create-image -i img
     create-image -n localhost/img:1
     create-image nope
     create-image -d junk
     set-names -n two -n one img
     get-names img
     images -q
     create-container -i ctr -m text img
     container ctr
     containers -j
     layers
     layers -t
     delete-layer top
     delete-image img
     delete-image -j img
     delete-container ctr
     delete-layer top
     delete-image img
     layers -q
     delete nope
     wipe
     wipe -j
     images -j
     containers -j",
    "create-layer -i top
     create-image -i img top
     create-container -i ctr img
     delete img
     container ctr
     delete ctr
     layers
     delete -j top
     layers",
    // Images and layers that are not there.
    "images
     images -j
     images -q
     image nope
     image -j nope
     images-by-digest junk
     images-by-digest sha256:7b14e2d92338aed25808bbc74dabe3a37da6be8f335f2106d11aa36e5e31f7ea
     images-by-digest -j sha256:7b14e2d92338aed25808bbc74dabe3a37da6be8f335f2106d11aa36e5e31f7ea
     delete-image nope
     delete-image -j nope
     delete-layer nope
     delete-layer -j nope
     changes nope
     mounted nope
     mount nope
     unmount nope
     shutdown
     shutdown -j
     get-container-run-dir nope
     version
     status
     --storage-opt x images",
];

/// Scripts of layers and tars. Each begins with the files `tree.tar`, `tree.tar.gz`, `junk` and `short`.
const LAYERS: &[&str] = &[
    // Layers, and what is said of them.
    "create-layer -i base -n baselayer -n base2
     create-layer -j -i two base
     create-layer -i three -n third baselayer
     create-layer
     create-layer -i base
     create-layer -n base2
     create-layer nope
     create-layer --uidmap junk
     create-layer --hostuidmap --uidmap 0:1:1
     create-layer --uidmap 0:100000:65536 -i mapped
     layer mapped
     layer-parent-owners mapped
     layer-parent-owners -j mapped
     layers
     layers -t
     layers -j
     layer two base2
     layer -j two
     set-layer-data two key < value
     list-layer-data -j two
     get-layer-data two key
     get-layer-data two none
     layers -j
     set-metadata -m text two
     metadata two
     exists -l two
     add-names -j -n other two
     create-container -i ctr ''
     delete-layer -j two nope
     delete-layer base
     delete-layer three
     delete-layer base
     layers",
    // Tars in.
    "create-layer -i base
     applydiff -f tree.tar base
     layer -j base
     create-layer -i two base
     applydiff -f tree.tar.gz two
     layer -j two
     import-layer -f tree.tar -i imp -n i two
     import-layer -j -f tree.tar.gz
     import-layer -f junk -i never
     create-layer -i empty
     applydiff empty
     layer -j empty
     applydiff -f junk empty
     applydiff -f short empty
     applydiff -f none empty
     applydiff -f tree.tar nope
     layers",
    // Tars out, and comparisons.
    "import-layer -f tree.tar -i base
     import-layer -f tree.tar.gz -i two base
     create-layer -i other
     changes base
     changes -j base
     changes other
     changes -j other
     diffsize base
     diffsize two
     diffsize two base
     diffsize other
     diff -f out base
     % cmp out tree.tar
     diff -u -f out two
     % cmp out tree.tar
     diff -f out two
     % gzip -dc out | cmp - tree.tar
     diff -c -f out base
     % gzip -dc out | cmp - tree.tar
     diff -x two
     diff -b two
     diff nope",
];

/// Scripts that mount.
const MOUNTING: &[&str] = &[
    "create-container -i x -n web ''
     mounted x
     mount x
     mount -j web nope
     mount nope x
     mounted x nope
     mounted -j x
     layers -t
     % mkdir \"$MOUNT/d\" && printf 12345 > \"$MOUNT/d/f\"
     container x
     unmount x
     unmount x
     umount x
     unmount -j x nope
     unmount nope
     container x
     mount x
     shutdown
     unmount -f x
     mounted x
     delete-container x",
    "create-container -i x --volatile ''
     mount x
     % touch \"$MOUNT/f\"
     unmount x
     mount x
     unmount x
     mount x
     delete-container x
     layers -j",
    "create-layer -i base
     copy tree base:/tree
     copy tree/f1 base:/a/b/c
     copy --chown 5:6 tree base:/given
     copy base:/tree base:/again
     changes base
     diffsize base
     copy base:/none base:/x
     copy tree/f1 nope:/x
     copy tree/f1 relative",
    "create-layer -i base
     % ln -s f1 tree/to-file && ln -s d tree/to-dir && mkdir other && printf 123 > other/d && mkdir other/f1
     copy tree/to-file base:/file
     copy tree/to-dir base:/dir
     copy tree/to-dir/ base:/slash
     copy tree base:/tree
     copy base:/tree/to-dir/ base:/link
     copy base:/tree/to-file/ base:/followed
     copy tree/f1 base:/none/../up
     copy tree/f1 base:/tree/to-dir
     copy other base:/tree
     copy tree other base:/several
     changes base
     diffsize base",
    "create-layer -i base
     mount base
     % mkdir \"$MOUNT/d\" && printf 1 > \"$MOUNT/d/f\" && printf 12 > \"$MOUNT/g\" && ln -s d \"$MOUNT/l\"
     layers -t
     unmount base
     changes base
     diffsize base
     create-layer -i top base
     mount top
     % rm -r \"$MOUNT/d\" && printf 3 >> \"$MOUNT/g\" && mkdir \"$MOUNT/e\" && touch \"$MOUNT/e/f\" \"$MOUNT/with space\"
     unmount top
     changes top
     changes -j top
     changes top base
     diffsize top
     create-layer -r -i still base
     mount still
     unmount still
     delete-layer top still
     layers",
];

fn compare(scripts: &[&str]) {
    if !machine::is_real_root() {
        skip!("the reference works in its own way without root");
    }
    if !machine::has_program("containers-storage") {
        skip!("there is no containers-storage: install Debian's package of that name");
    }
    let mut differences = String::new();
    for script in scripts {
        let (ours, theirs) = (Dir::new("compat-ours"), Dir::new("compat-theirs"));
        for dir in [&ours, &theirs] {
            write_tars(dir);
        }
        let (mut ours, mut theirs) = (Session::layerstore(&ours), Session::reference(&theirs));
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (our, their) = (ours.run(line), theirs.run(line));
            let excuse = KNOWN.iter().find(|known| {
                line.starts_with(known.command) && our.contains(known.ours) && their.contains(known.theirs)
            });
            match excuse {
                _ if our == their => {}
                Some(known) => eprintln!("{line}: {}", known.reason),
                None => {
                    differences.push_str(&format!("---- layerstore\n{our}---- containers-storage\n{their}"))
                }
            }
        }
    }
    assert!(differences.is_empty(), "\n{differences}");
}

/// The files that scripts of layers read.
fn write_tars(dir: &Dir) {
    dir.write("tree/d/sub", "two\n");
    dir.write("tree/f1", "one\n");
    dir.write("junk", [7u8; 600]);
    dir.write("short", "short");
    let script =
        "tar -C tree -cf tree.tar --sort=name --mtime=@1700000000 --owner=5 --group=6 . && gzip -kn tree.tar";
    TestCommand::new("sh").args(["-c", script]).current_dir(dir.path()).assert_success();
}

#[test]
fn layers_and_tars_are_the_same() {
    compare(LAYERS);
}

#[test]
fn plain_scripts_print_the_same() {
    compare(PLAIN);
}

#[test]
fn mounting_scripts_print_the_same() {
    compare(MOUNTING);
}
