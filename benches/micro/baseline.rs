//! What was measured, beside what was measured before.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

const YARDSTICK: &str = "yardstick";

/// Nanoseconds by the name of the measurement.
type Figures = BTreeMap<String, f64>;

/// Prints every figure of this run with its ratio to the baseline; takes them as the new one if
/// `DVCFS_BASELINE` is `write`.
pub(crate) fn compare() {
    let measured = measured();
    let before = read();
    let machine = match (measured.get(YARDSTICK), before.get(YARDSTICK)) {
        (Some(now), Some(before)) => now / before,
        _ => 1.0,
    };
    println!("{:<34} {:>14} {:>14} {:>7}", "median", "baseline, ns", "now, ns", "ratio");
    for (name, now) in &measured {
        match before.get(name) {
            Some(before) => {
                let ratio = now / before / if name == YARDSTICK { 1.0 } else { machine };
                println!("{name:<34} {before:>14.1} {now:>14.1} {ratio:>7.2}");
            }
            None => println!("{name:<34} {:>14} {now:>14.1} {:>7}", "-", "-"),
        }
    }
    if std::env::var_os("DVCFS_BASELINE").is_some_and(|it| it == "write") {
        let mut figures = before;
        figures.extend(measured);
        let text = serde_json::to_string_pretty(&figures).unwrap() + "\n";
        fs::write(path(), text).unwrap();
    }
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/micro/baseline.json")
}

fn read() -> Figures {
    let text = fs::read_to_string(path()).unwrap_or_else(|_| "{}".into());
    serde_json::from_str(&text).unwrap()
}

/// The medians that criterion has left, of this run and of others that a filter left out.
fn measured() -> Figures {
    let home = std::env::var_os("CRITERION_HOME").map_or_else(
        || Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("criterion"),
        PathBuf::from,
    );
    let mut figures = Figures::new();
    collect(&home, "", &mut figures);
    figures
}

fn collect(folder: &Path, name: &str, figures: &mut Figures) {
    let estimates = fs::read_to_string(folder.join("new/estimates.json")).ok();
    if let Some(text) = estimates {
        let estimates: serde_json::Value = serde_json::from_str(&text).unwrap();
        let median = estimates["median"]["point_estimate"].as_f64().unwrap();
        figures.insert(name.to_owned(), median);
        return;
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let part = entry.file_name().to_string_lossy().into_owned();
        let inner = if name.is_empty() { part } else { format!("{name}/{part}") };
        if entry.path().is_dir() {
            collect(&entry.path(), &inner, figures);
        }
    }
}
