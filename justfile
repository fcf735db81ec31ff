# `just` lists the recipes; each is a command that also works by hand.

_default:
    @just --list

# what a change must pass before it is pushed; .ci/run does this and more
check:
    cargo fmt --all -- --check
    cargo clippy --workspace --all-targets --all-features -- -D warnings
    cargo clippy --lib --no-default-features -- -D warnings
    cargo test --workspace

# everything that is tested, also in a user namespace; as root with the real image
test *names:
    ./test {{names}}

# kill processes that share a store, and look closely, for so long: just torture 10m (as root, else without mounts)
torture time="10m":
    LAYERSTORE_TORTURE={{time}} cargo test --test main torture::nothing_is_lost_in_a_long_time -- --exact --ignored --nocapture

# all of what CI does
ci:
    .ci/run

# run one fuzz target, for as long as wanted: just fuzz import_tar 600
fuzz target seconds="60":
    fuzz/run {{target}} {{seconds}}

# make committed seeds of what a fuzz target has found, as few and small ones as will do
fuzz-keep target:
    fuzz/run --keep {{target}}

# the seeds that a program makes, after a target's form changed
fuzz-seeds:
    fuzz/seeds.py

# more cases of the model test: just model 2000
model cases="500":
    PROPTEST_CASES={{cases}} cargo test --test main model:: -- --nocapture

# the program without shared libraries: target/TARGET/release/layerstore
static:
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --target "$(rustc --print host-tuple)"

# power cuts on ext4, XFS and Btrfs, as root, for so many seconds each: just power-cut 600
power-cut seconds="60":
    LAYERSTORE_POWER_CUT_SECONDS={{seconds}} cargo test --test main power_cut:: -- --nocapture

# the tests of mounts and stores on an old and a new kernel, in a virtual machine: just vm-test [--kernel bookworm] mounts::
vm-test *names:
    tests/vm/test.sh {{names}}

# measure: all benchmarks, or those whose names contain a word
bench *names:
    cargo bench --package layerstore -- {{names}}

# measure beside other programs, and write docs/performance.md (as root, on a quiet machine): just peers [--quick]
peers *arguments:
    benches/peers.sh {{arguments}}

# the documentation as users see it
doc:
    RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --workspace

# licences, duplicate versions and sources of the dependencies
deny:
    cargo deny --all-features check bans licenses sources

# write the messages and the server of containerd's protocol anew, after a change in proto/
protocol:
    cargo run --manifest-path proto/Cargo.toml
    cargo fmt

# the real six-layer Debian image (as root)
image:
    tests/images/install.sh
    tests/images/debian.sh
