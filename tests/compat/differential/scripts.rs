//! What both programs are asked.

/// Scripts that need no mount.
pub const PLAIN: &[&str] = &[
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
pub const LAYERS: &[&str] = &[
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

/// Scripts that mount. None ends all mounts by force: 1.43 never comes back from that.
pub const MOUNTING: &[&str] = &[
    "create-layer -i base
     mount base
     % cd \"$MOUNT\" && mkdir -p d/e x && echo 1 > d/f && chown 5:6 d/f && ln -s f d/l && echo 22 > x/y && mkfifo p
     % cd \"$MOUNT\" && ln d/f x/again && mknod n c 1 3 && chmod 4750 x/y && touch -h -d @1600000000 d/l
     unmount base
     changes base
     diffsize base
     create-layer -i two base
     mount two
     % cd \"$MOUNT\" && rm d/f && rm -r d/e && mkdir d/e && echo x > d/e/new && chmod 700 x && chown 7 n
     unmount two
     changes two
     changes -j two
     changes two two
     diffsize two
     diffsize two base
     changes base nope
     diffsize base nope
     diff -f two.tar two
     % tar -tf two.tar | xargs | grep -x 'd/ d/e/ d/e/.wh..wh..opq d/e/new d/.wh.f n x/'
     diff -c -f two.tar.gz two
     % gzip -dc two.tar.gz | cmp - two.tar
     create-layer -i copy base
     applydiff -f two.tar.gz copy
     mount copy
     % cd \"$MOUNT\" && stat -c '%n %a %u:%g' d d/l d/e/new n p x/again x/y | xargs | grep -x 'd 755 0:0 d/l 777 0:0 d/e/new 644 0:0 n 644 7:0 p 644 0:0 x/again 644 5:6 x/y 4750 0:0'
     unmount copy
     changes copy two",
    "create-layer -i base
     mount base
     % mkdir -p \"$MOUNT/d/e\" \"$MOUNT/x\" && echo 1 > \"$MOUNT/d/f\" && ln -s f \"$MOUNT/d/l\" && echo 22 > \"$MOUNT/x/y\"
     unmount base
     create-layer -i two base
     copy base:/d two:/copied
     copy base:/d/f two:/file
     copy base:/d base:/x two:/both
     copy --chown 7 base:/d two:/given
     copy --chown 7:8 base:/d/f two:/given1
     copy --chown 7:x base:/d two:/bad
     copy --chown x:7 base:/d two:/bad
     copy base:/d DIR/out
     % cd out && cmp f e/../f && test \"$(readlink l)\" = f
     copy DIR/out two:/back
     copy none two:/x
     copy base:/d two:/file
     copy base:/d/f two:/both
     copy nope:/d two:/x
     copy base:/d nope:/x
     copy base:/d rel
     copy base: two:/all
     mounted base two
     changes two
     diffsize two
     create-container -i ctr ''
     copy base:/d ctr:/d
     mount -o nodev base
     mount base two nope
     mounted -j base two nope
     unmount base two nope
     mount -j base two
     shutdown
     shutdown -j
     shutdown extra
     mounted base two
     unmount base
     unmount -f base two
     mount -r base
     create-image -i img base
     mount -r img
     mounted img
     mounted base
     unmount img
     unmount base
     mount img
     delete-layer two
     mount base
     delete-layer base
     delete-image img
     delete base
     status -j",
    "create-layer -i base
     mount base
     % ln -s f \"$MOUNT/l\" && echo 1 > \"$MOUNT/f\"
     unmount base
     copy base:/l base:/link",
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

/// Scripts of everything that is given a name, or moved from one thing to another.
pub const MOVING: &[&str] = &[
    "create-layer -i one -n first -n second
     create-layer -i two
     create-layer -i three -n first
     add-names -n first two
     get-names one
     get-names two
     set-names -n second -n first -n second -n other two
     get-names -j one
     get-names -j two
     layer one
     layer second
     delete-layer first
     layers
     exists first
     exists two
     create-image -i img -n image:1 -n image:2 one
     create-image -i other
     add-names -j -n image:1 other
     set-names -j -n image:2 -n image:9 other
     images
     images -j
     image img other
     create-container -i ctr -n name img
     create-container -i ctr2 img
     create-container -n name img
     add-names -n name ctr2
     set-names -n name -n one ctr2
     set-names -n image:9 ctr
     get-names ctr
     get-names -j nope
     containers
     layers
     layers -t
     add-names -n '' ctr
     set-names -n ctr2 ctr
     get-names ctr2
     delete-container ctr2
     get-names ctr2
     set-names ctr
     get-names -j ctr
     add-names -n x nope
     set-names nope
     delete-image img
     delete-image -j img other nope
     delete-container ctr
     delete-image img
     images
     layers",
    "create-image -i a -n second
     set-names -n old second
     set-names -n second -n old a
     add-names -n new second
     get-names second",
];

/// Id maps.
pub const MAPS: &[&str] = &[
    "create-container -j --uidmap 0:1000:6000 -i c1 ''
     create-container -j --uidmap 0:1000:10:10:2000:600 -i c2 ''
     create-container -j --gidmap 0:1000:6000 -i c3 ''
     create-container -j --uidmap 0:1000:6000 --gidmap 0:2000:6000 -i c4 ''
     create-container -j --hostuidmap -i c5 ''
     create-container -j --hostuidmap --hostgidmap -i c6 ''
     create-container -j --hostuidmap --gidmap 0:1000:6000 -i c7 ''
     create-container -j --uidmap 0:1000:6000 --hostgidmap -i c8 ''
     create-container -j --uidmap '' -i c9 ''
     create-container --uidmap junk ''
     create-container --gidmap junk ''
     create-container --uidmap junk --gidmap other ''
     create-container --uidmap 0:1 ''
     create-container --uidmap 0:1:2:3 ''
     create-container --uidmap 0:x:2 ''
     create-container --uidmap 0:-1:2 ''
     create-container --uidmap +0:1:2 ''
     create-container --uidmap 0:1:4294967296 ''
     create-container --uidmap : ''
     create-container --uidmap 0,1,2 ''
     create-container --uidmap 0:1:2,3:4:5 ''
     create-container --uidmap 0:100:10:5:200:10 ''
     create-container --uidmap 0:0:1:0:1:1 ''
     create-container --uidmap 0:0:5:7:3:1 ''
     create-container --uidmap 0:0:5:4:30:1:3:1:1 ''
     create-container --subuidmap nobody-has-this ''
     create-container --subgidmap nobody-has-this ''
     create-container --subuidmap nobody-has-this --subgidmap nor-this ''
     create-container --uidmap junk --subuidmap nobody-has-this ''
     create-container --hostuidmap --uidmap 0:1:1 ''
     create-container --hostgidmap --gidmap 0:1:1 ''
     create-container --hostuidmap --uidmap junk ''
     create-container --hostuidmap --subuidmap nobody-has-this ''
     create-container --hostuidmap --subgidmap nobody-has-this ''
     create-container --hostuidmap --hostgidmap --subuidmap nobody-has-this ''
     create-layer --gidmap junk
     create-layer --hostuidmap --subuidmap nobody
     create-layer -j -i l1 --uidmap 0:1000:6000 --gidmap 0:2000:6000
     create-layer -i l2 --uidmap 0:0:5:4:30:1
     create-layer -i l3 --uidmap 1:1:1
     create-layer -i l4 --uidmap 0:0:0
     import-layer --uidmap junk
     import-layer --hostgidmap --gidmap 0:1:1
     import-layer -j -i l5 --gidmap 0:1000:6000
     layer l1
     layer-parent-owners l1 nope
     layer-parent-owners -j nope
     container-parent-owners c6 nope
     container-parent-owners -j nope c5
     container-parent-owners c1
     containers -j",
    "create-container --uidmap 1:1:1 ''",
    "create-container --uidmap 0:1:0 ''",
];

/// What is large, or is called by words that need care. Each begins with the file `big`.
pub const DATA: &[&str] = &[
    "create-layer -i layer
     create-image -i img layer
     create-container -i ctr img
     set-layer-data -f big layer big
     set-image-data -f big img big
     set-container-data -f big ctr big
     get-layer-data -f out layer big
     % cmp big out
     get-image-data -f out img big
     % cmp big out
     get-container-data -f out ctr big
     % cmp big out
     get-image-data-size img big
     get-image-data-digest img big
     get-container-data-size ctr big
     get-container-data-digest ctr big
     get-image-data -f out img none
     set-image-data img 'e/f g' < x
     get-image-data img 'e/f g'
     set-image-data img manifest < y
     set-image-data img manifest-x < x
     set-image-data img \u{fc}bung < z
     list-image-data img
     list-image-data -j img
     image img
     images
     images -j
     images-by-digest sha256:a1fce4363854ff888cff4b8e7875d600c2682390412a8cf79b37d0b11148b0fa
     images-by-digest -q sha256:a1fce4363854ff888cff4b8e7875d600c2682390412a8cf79b37d0b11148b0fa
     images-by-digest -j sha256:a1fce4363854ff888cff4b8e7875d600c2682390412a8cf79b37d0b11148b0fa
     images-by-digest sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881
     images-by-digest sha256:x
     images-by-digest sha256:
     images-by-digest md5:d41d8cd98f00b204e9800998ecf8427e
     images-by-digest a
     images-by-digest a b
     images-by-digest
     create-image -i with -d sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881
     create-image -d sha256:2d711642
     create-image -d md5:d41d8cd98f00b204e9800998ecf8427e
     images-by-digest sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881
     set-image-data with manifest < other
     image with
     image -j with
     set-container-data ctr empty
     get-container-data ctr empty
     get-container-data-size ctr empty
     set-layer-data layer '' < x
     set-image-data img '' < x
     set-image-data -f nofile img k
     set-image-data nope k < x
     set-image-data img
     get-image-data img big more
     get-layer-data nope k
     exists",
    "create-image -i img
     set-image-data img manifest < y
     set-image-data img manifest < other
     image img",
];

/// One store that reads another.
pub const STORES: &[&str] = &["-g DIR/other -R DIR/other-run create-layer -i base -n b
     -g DIR/other -R DIR/other-run set-layer-data base lk < v
     -g DIR/other -R DIR/other-run create-image -i img -n image:1 -m meta base
     -g DIR/other -R DIR/other-run set-image-data img manifest < m1
     --storage-opt overlay.imagestore=DIR/other layers
     --storage-opt overlay.imagestore=DIR/other layers -t
     --storage-opt overlay.imagestore=DIR/other layers -j
     --storage-opt overlay.imagestore=DIR/other layer base
     --storage-opt overlay.imagestore=DIR/other layer -j b
     --storage-opt overlay.imagestore=DIR/other images
     --storage-opt overlay.imagestore=DIR/other images -q
     --storage-opt overlay.imagestore=DIR/other images -j
     --storage-opt overlay.imagestore=DIR/other image img
     --storage-opt overlay.imagestore=DIR/other image -j image:1
     --storage-opt overlay.imagestore=DIR/other containers
     --storage-opt overlay.imagestore=DIR/other list-image-data img
     --storage-opt overlay.imagestore=DIR/other get-image-data img manifest
     --storage-opt overlay.imagestore=DIR/other get-image-data-size img manifest
     --storage-opt overlay.imagestore=DIR/other get-image-data-digest img manifest
     --storage-opt overlay.imagestore=DIR/other list-layer-data base
     --storage-opt overlay.imagestore=DIR/other get-layer-data base lk
     --storage-opt overlay.imagestore=DIR/other metadata img base
     --storage-opt overlay.imagestore=DIR/other get-names img
     --storage-opt overlay.imagestore=DIR/other get-names base
     --storage-opt overlay.imagestore=DIR/other exists -l base
     --storage-opt overlay.imagestore=DIR/other exists -i img
     --storage-opt overlay.imagestore=DIR/other changes base
     --storage-opt overlay.imagestore=DIR/other diffsize base
     --storage-opt overlay.imagestore=DIR/other layer-parent-owners base
     --storage-opt overlay.imagestore=DIR/other set-image-data img k < x
     --storage-opt overlay.imagestore=DIR/other set-layer-data base k < x
     --storage-opt overlay.imagestore=DIR/other set-metadata -m x img
     --storage-opt overlay.imagestore=DIR/other set-metadata -m x base
     --storage-opt overlay.imagestore=DIR/other applydiff base
     --storage-opt overlay.imagestore=DIR/other add-names -n x base
     --storage-opt overlay.imagestore=DIR/other set-names -n x base
     --storage-opt overlay.imagestore=DIR/other delete-layer base
     --storage-opt overlay.imagestore=DIR/other delete-layer -j base
     --storage-opt overlay.imagestore=DIR/other delete-image img
     --storage-opt overlay.imagestore=DIR/other delete-image -j img
     --storage-opt overlay.imagestore=DIR/other delete img
     --storage-opt overlay.imagestore=DIR/other delete -j base
     --storage-opt overlay.imagestore=DIR/other mount base
     --storage-opt overlay.imagestore=DIR/other mounted base
     --storage-opt overlay.imagestore=DIR/other unmount base
     --storage-opt overlay.imagestore=DIR/other mount -r img
     --storage-opt overlay.imagestore=DIR/other unmount img
     --storage-opt overlay.imagestore=DIR/other create-layer -i top base
     --storage-opt overlay.imagestore=DIR/other create-container -i ctr img
     --storage-opt overlay.imagestore=DIR/other container ctr
     --storage-opt overlay.imagestore=DIR/other layer top
     --storage-opt overlay.imagestore=DIR/other mount ctr
     --storage-opt overlay.imagestore=DIR/other mounted ctr
     --storage-opt overlay.imagestore=DIR/other unmount ctr
     --storage-opt overlay.imagestore=DIR/other delete-container ctr
     --storage-opt overlay.imagestore=DIR/other delete-layer top
     --storage-opt overlay.imagestore=DIR/other set-names -n image:2 img
     --storage-opt overlay.imagestore=DIR/other get-names img
     --storage-opt overlay.imagestore=DIR/other delete-image img
     --storage-opt overlay.imagestore=DIR/other get-names img
     --storage-opt overlay.imagestore=DIR/other wipe
     --storage-opt overlay.imagestore=DIR/other images -q
     -g DIR/other -R DIR/other-run layers
     -g DIR/other -R DIR/other-run images"];

/// Makes the files of [`junk`].
const JUNK: &str = "
    % for n in 1 2 3; do tail -c 300 tree.tar.gz | head -c 250; done > noise; printf x > short; : > empty
    % printf '<html>%600s</html>' x > page; head -c 700 tree.tar > cut-header; head -c 3400 tree.tar > cut
    % (head -c 150 tree.tar; printf x; tail -c +152 tree.tar) > sum
    % (head -c 662 tree.tar; printf x; tail -c +664 tree.tar) > later
    % for f in noise empty page cut-header cut sum later short; do gzip -kfn $f; bzip2 -kf $f; xz -kf $f; zstd -qkf $f; done
    % for c in gzip:gz bzip2:bz2 xz:xz zstd:zst; do ${c%:*} -c < tree.tar | head -c 100 > half.${c#*:}; done
    create-layer -i base
";

/// Each kind of junk, in each compression.
pub fn junk() -> String {
    let kinds = ["noise", "short", "empty", "page", "cut-header", "cut", "sum", "later"];
    let endings = ["", ".gz", ".bz2", ".xz", ".zst"];
    let compressed = kinds.iter().flat_map(|kind| endings.map(|ending| format!("{kind}{ending}")));
    let halves = endings[1..].iter().map(|ending| format!("half{ending}"));
    let lines: Vec<_> = compressed.chain(halves).map(|file| format!("applydiff -f {file} base\n")).collect();
    format!("{JUNK}{}layers\nchanges base", lines.concat())
}
