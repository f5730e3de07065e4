//! Progress on a terminal that waits.

use std::time::{Duration, Instant};

use crate::{
    registry_builder::{Blob, RegistryBuilder},
    s3server::{Fault, Gate, S3Server},
    support::{DATE, Sandbox, Terminal, noise, output, registry_on_s3},
};

const SIZE: usize = 20 << 10;

/// A registry with two tracked files in a folder, which makes five with what git has there. The
/// second of the two does not come before the gate opens.
fn slow(sandbox: &Sandbox) -> (RegistryBuilder, S3Server, Gate) {
    let (registry, server) = registry_on_s3(sandbox);
    let [one, two] = [noise(1, SIZE), noise(2, SIZE)].map(|bytes| registry.put(&bytes).unwrap());
    registry.track_file("set/one", &one).unwrap();
    registry.track_file("set/two", &two).unwrap();
    registry.track_folder("listed", &[("one", one)]).unwrap();
    registry.commit("Add files", DATE).unwrap();
    let gate = Gate::new();
    hold_back(&server, &gate, &two);
    (registry, server, gate)
}

fn hold_back(server: &S3Server, gate: &Gate, blob: &Blob) {
    let (gate, path) = (gate.clone(), blob.path());
    server.set_rule(move |request| {
        let is_held = request.path.ends_with(&path) || request.path.ends_with(".dir");
        is_held.then(|| Fault::Stall(gate.clone()))
    });
}

/// Nothing is drawn before.
const PATIENCE: Duration = Duration::from_millis(500);

#[test]
fn a_copy_shows_files_bytes_rate_and_the_time_left() {
    let sandbox = Sandbox::new();
    let (registry, _server, gate) = slow(&sandbox);
    let begun = Instant::now();
    let line = format!("exec \"$DVCFS\" get '{}' set -o out", registry.repository().display());
    let mut terminal = Terminal::run(&sandbox, &line);
    terminal.wait_for(" left");
    assert!(begun.elapsed() >= PATIENCE, "shown after {:?}", begun.elapsed());
    for part in ["get", "20.", "KiB/40.", "4/5 files", "B/s"] {
        terminal.wait_for(part);
    }
    gate.open();
    let (code, shown) = terminal.end();
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("5 files, 40.") && shown.ends_with(" KiB -> out\r\n"), "{shown:?}");
    assert!(std::fs::read(sandbox.path("out/two")).unwrap() == noise(2, SIZE));
}

#[test]
fn printing_into_a_file_shows_bytes() {
    let sandbox = Sandbox::new();
    let (registry, _server, gate) = slow(&sandbox);
    let line = format!("exec \"$DVCFS\" cat '{}' set/two > out", registry.repository().display());
    let mut terminal = Terminal::run(&sandbox, &line);
    terminal.wait_for("0 B/20.00 KiB");
    gate.open();
    let (code, shown) = terminal.end();
    assert_eq!(code, 0, "{shown}");
    assert!(std::fs::read(sandbox.path("out")).unwrap() == noise(2, SIZE));
}

#[test]
fn a_listing_says_that_it_is_at_work_and_leaves_nothing_of_that() {
    let sandbox = Sandbox::new();
    let (registry, _server, gate) = slow(&sandbox);
    let line = format!("exec \"$DVCFS\" list '{}' listed", registry.repository().display());
    let begun = Instant::now();
    let mut terminal = Terminal::run(&sandbox, &line);
    terminal.wait_for("listing");
    assert!(begun.elapsed() >= PATIENCE, "shown after {:?}", begun.elapsed());
    gate.open();
    let (code, shown) = terminal.end();
    assert_eq!(code, 0, "{shown}");
    assert!(shown.ends_with("one\r\n"), "{shown:?}");
}

#[test]
fn without_a_terminal_nothing_is_shown() {
    let sandbox = Sandbox::new();
    let (registry, _server, gate) = slow(&sandbox);
    gate.open();
    let mut get = sandbox.dvcfs(["get"]);
    let copied = output(get.arg(registry.repository()).args(["set", "-o", "out"]));
    assert_eq!(String::from_utf8_lossy(&copied.stderr), "");
    assert!(copied.status.success());
}
