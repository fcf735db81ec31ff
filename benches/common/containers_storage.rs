//! The program of Debian's package `containers-storage`, which does the same work, and large stores of its.
#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub fn is_installed() -> bool {
    Command::new("containers-storage").arg("version").output().is_ok()
}

/// The words of a command for the store at `top`.
pub fn words(top: &Path, command: &str) -> Vec<String> {
    let option = |name: &str, directory: &str| format!("{name}={}", top.join(directory).display());
    let options = [option("--graph", "graph"), option("--run", "run"), "--storage-driver=overlay".to_owned()];
    ["containers-storage", command].map(str::to_owned).into_iter().chain(options).collect()
}

pub fn command(top: &Path, command: &str) -> Command {
    let words = words(top, command);
    let mut program = Command::new(&words[0]);
    program.args(&words[1..]).env_remove("STORAGE_OPTS");
    program
}

/// Runs it, and returns the first line that it prints.
pub fn first_line(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned()
}

/// How many containers it makes itself; the others are made from their records.
const GENUINE: usize = 10;

/// A store with an image, called `image`, and `count` containers of it, `container-0` and so on.
///
/// To make ten thousand would take it an hour, since it writes all records for each. So it makes some, and these are
/// multiplied: a layer, its directory and its link, and a container for each, with ids and names of their own. In the end
/// it has to list them all.
pub fn filled(top: &Path, count: usize) {
    let layer = first_line(command(top, "create-layer").arg("-i=layer"));
    first_line(command(top, "create-image").args(["-i=image", "-n=image", &layer]));
    fill(top, 0, count);
}

/// Brings the containers from `from` to `count`.
pub fn fill(top: &Path, from: usize, count: usize) {
    for number in from..count.min(GENUINE) {
        let name = format!("-n=container-{number}");
        first_line(command(top, "create-container").args([&name, "image"]));
    }
    if count > from.max(GENUINE) {
        multiply(&top.join("graph"), from.max(GENUINE)..count);
    }
    let listed = command(top, "containers").arg("--json").output().unwrap();
    let listed: Vec<Value> = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed.len(), count, "containers-storage does not see the containers that were made for it");
}

fn multiply(graph: &Path, numbers: std::ops::Range<usize>) {
    let layers_file = graph.join("overlay-layers/layers.json");
    let containers_file = graph.join("overlay-containers/containers.json");
    let read = |path: &Path| -> Vec<Value> { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
    let (mut layers, mut containers) = (read(&layers_file), read(&containers_file));
    let container = containers[0].clone();
    let layer = layers.iter().find(|layer| layer["id"] == container["layer"]).unwrap().clone();
    let genuine = graph.join("overlay").join(layer["id"].as_str().unwrap());
    for number in numbers {
        let (layer_id, container_id) = (hex("layer", number), hex("container", number));
        copy_directory(graph, &genuine, &layer_id, &link_name(number));
        let mut layer = layer.clone();
        layer["id"] = json!(layer_id);
        layers.push(layer);
        let mut container = container.clone();
        container["id"] = json!(container_id);
        container["layer"] = json!(layer_id);
        container["names"] = json!([format!("container-{number}")]);
        containers.push(container);
    }
    std::fs::write(layers_file, serde_json::to_vec(&layers).unwrap()).unwrap();
    std::fs::write(containers_file, serde_json::to_vec(&containers).unwrap()).unwrap();
}

/// A container's layer is three empty directories, a short name for the link to the first, and the links below it.
fn copy_directory(graph: &Path, genuine: &Path, id: &str, link: &str) {
    let made = graph.join("overlay").join(id);
    std::fs::create_dir(&made).unwrap();
    for entry in std::fs::read_dir(genuine).unwrap() {
        let entry = entry.unwrap();
        let copy = made.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&copy).unwrap();
            std::fs::set_permissions(&copy, entry.metadata().unwrap().permissions()).unwrap();
        } else {
            std::fs::copy(entry.path(), &copy).unwrap();
        }
    }
    std::fs::write(made.join("link"), link).unwrap();
    std::os::unix::fs::symlink(format!("../{id}/diff"), graph.join("overlay/l").join(link)).unwrap();
}

fn hex(kind: &str, number: usize) -> String {
    Sha256::digest(format!("{kind} {number}")).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 26 capital letters, as the links have that the program makes.
fn link_name(number: usize) -> String {
    let digest = Sha256::digest(format!("link {number}"));
    digest.iter().take(26).map(|byte| char::from(b'A' + byte % 26)).collect()
}
