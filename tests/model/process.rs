//! An operation in a process of its own, which may be killed at any moment.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::action::{Action, Outcome, Place};

const ORDER: &str = "LAYERSTORE_MODEL_ORDER";
const READY: &str = "ready";
const OUTCOME: &str = "outcome ";

#[derive(Serialize, Deserialize)]
struct Order {
    action: Action,
    place: Place,
}

/// Runs an operation in another process; `None` if that was killed before it could say what came of it.
pub fn run(action: &Action, place: &Place, kill_after: Option<Duration>) -> Option<Outcome> {
    let order = Order { action: action.clone(), place: place.clone() };
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "model::process::child", "--ignored", "--nocapture"])
        .env(ORDER, serde_json::to_string(&order).unwrap())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == READY), "the process of {action:?} did not begin");
    if let Some(after) = kill_after {
        std::thread::sleep(after);
        child.kill().unwrap();
    }
    // To the end: the test harness in there has something to say, too.
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    child.wait().unwrap();
    let outcome = rest.iter().find_map(|line| line.strip_prefix(OUTCOME));
    outcome.map(|text| serde_json::from_str(text).unwrap())
}

#[test]
#[ignore = "a part of the model test, which runs it in a process of its own"]
fn child() {
    let Some(order) = std::env::var_os(ORDER) else { return };
    let order: Order = serde_json::from_str(order.to_str().unwrap()).unwrap();
    say(READY);
    let outcome = order.action.perform(&order.place.open(), &order.place);
    say(&format!("{OUTCOME}{}", serde_json::to_string(&outcome).unwrap()));
}

/// Writes a line at once, past the test harness.
fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
}
