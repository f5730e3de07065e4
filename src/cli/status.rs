//! `dvcfs status`: what is mounted, at which commit, what it did so far, and what waits to be pushed.

use std::{process::ExitCode, time::Duration};

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    args::StatusArgs,
    changes::{self, Told},
    control::{Request, ask},
    counted,
    exit::{Code, Failure},
    mounts::{Record, Records},
    print,
    settings::Settings,
    umount::resolve,
    unmounted,
};
use crate::path::escape;

const DEADLINE: Duration = Duration::from_secs(5);

/// What one mount says, or why it does not answer; or what is known of an overlay that none has.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    record: Option<Record>,
    #[serde(flatten)]
    answer: Value,
}

pub(super) fn run(settings: &Settings, args: &StatusArgs) -> Result<ExitCode, Failure> {
    let records = Records::new(&settings.runtime_dir);
    let wanted = match &args.dir {
        None => records.list(),
        Some(dir) => {
            let found = resolve(dir).ok().and_then(|dir| records.find(&dir));
            vec![found.ok_or_else(|| {
                Failure::new(Code::Failed, format!("{}: no dvcfs is mounted there", dir.display()))
                    .hint("without a folder, all your mounts are shown")
            })?]
        }
    };
    let with_changes = args.dir.is_some();
    let mut reports: Vec<_> =
        wanted.into_iter().map(|record| report(record, with_changes)).collect();
    let all_answer = reports.iter().all(|report| report.answer.get("error").is_none());
    if args.dir.is_none() {
        let overlays = reports.iter().filter_map(|it| it.answer["overlay"]["dir"].as_str());
        let overlays: Vec<_> = overlays.collect();
        let unmounted = unmounted::list(&settings.state_dir, &overlays);
        reports.extend(unmounted.into_iter().map(|answer| Report { record: None, answer }));
    }
    if args.json {
        print(&(serde_json::to_string_pretty(&reports).unwrap_or_default() + "\n"));
    } else {
        if reports.iter().all(|report| report.record.is_none()) {
            print("nothing is mounted\n");
        }
        for Report { record, answer } in &reports {
            print(&match record {
                Some(record) => describe(record, answer),
                None => unmounted::describe(answer),
            });
        }
    }
    Ok(if all_answer { ExitCode::SUCCESS } else { Code::Failed.into() })
}

fn report(record: Record, with_changes: bool) -> Report {
    let mut answer = match ask(&record.socket, &Request::Status, DEADLINE) {
        Ok(Ok(answer)) => answer,
        Ok(Err(why)) => json!({ "error": why }),
        Err(error) => json!({ "error": format!("the mount does not answer: {error}") }),
    };
    if with_changes && answer["overlay"].is_object() {
        match changes::of_mount(&record) {
            Ok(changes) => answer["overlay"]["changes"] = json!(changes),
            Err(failure) => answer["error"] = json!(failure.message),
        }
    }
    Report { record: Some(record), answer }
}

/// One line of what is told of a mount or an overlay.
pub(super) fn line(name: &str, value: &str) -> String {
    format!("  {name:<12}{}\n", escape(value.as_bytes()))
}

fn describe(record: &Record, answer: &Value) -> String {
    let mount_point = record.mount_point.as_os_str().as_encoded_bytes();
    let mut text = format!("{}\n", escape(mount_point));
    let mut line = |name: &str, value: &str| text += &line(name, value);
    line("repository", &record.repository);
    line("revision", record.revision.as_deref().unwrap_or("all"));
    if let Some(error) = answer["error"].as_str() {
        line("error", error);
        return text;
    }
    if let Some(commit) = answer["commit"].as_str() {
        line("commit", commit);
    }
    if let Some(dir) = answer["overlay"]["dir"].as_str() {
        let branch = answer["overlay"]["branch"].as_str();
        let meant = branch.map_or(String::new(), |branch| format!(" (for {branch})"));
        line("overlay", &format!("{dir}{meant}"));
    }
    for commit in answer["overlay"]["snapshots"].as_array().into_iter().flatten() {
        line("snapshot", &format!("{} (not pushed)", commit.as_str().unwrap_or_default()));
    }
    let told = answer["overlay"]["changes"].as_array().map(|_| {
        let changes = answer["overlay"]["changes"].clone();
        serde_json::from_value::<Vec<Told>>(changes).unwrap_or_default()
    });
    if let Some(told) = &told {
        line("changes", &changes::summary(told));
    }
    let number = |name: &str| answer["stats"][name].as_u64().unwrap_or_default();
    let size = |bytes: u64| indicatif::HumanBytes(bytes).to_string();
    line("pid", &record.pid.to_string());
    if let (Some(mode), Some(why)) =
        (answer["open_mode"]["mode"].as_str(), answer["open_mode"]["why"].as_str())
    {
        line("open mode", &format!("{mode} ({why})"));
    }
    let cache = &answer["cache"];
    let bytes = |name: &str| size(cache[name].as_u64().unwrap_or_default());
    line("cache", &format!("{} of {}", bytes("bytes"), bytes("max_bytes")));
    line("read", &format!("{} hits, {} misses", number("hits"), number("misses")));
    let requests = counted(number("remote_requests"), "request");
    line("fetched", &format!("{} in {requests}", size(number("remote_bytes"))));
    if let Some(text) = latencies(&answer["stats"]["latencies_ns"]) {
        line("latency", &text);
    }
    let process = |name: &str| answer["stats"]["process"][name].as_u64().unwrap_or_default();
    let (memory, descriptors) = (size(process("resident_bytes")), process("descriptors"));
    let limit = process("descriptor_limit");
    line("process", &format!("{memory}, {descriptors} of {limit} descriptors"));
    let (questions, listings) = (number("size_questions"), number("size_listings"));
    if questions + listings > 0 {
        let pages = counted(listings, "page");
        line("sizes", &format!("{questions} asked for, {pages} listed"));
    }
    if number("verification_failures") > 0 {
        line("damaged", &counted(number("verification_failures"), "content"));
    }
    text + &changes::describe(&told.unwrap_or_default())
}

/// How long what programs asked for took; what nobody asked for is left out.
fn latencies(told: &Value) -> Option<String> {
    const SHOWN: [(&str, &str); 8] = [
        ("lookup", "lookup"),
        ("getattr", "getattr"),
        ("open", "open"),
        ("read_hit", "read"),
        ("read_miss", "read that waits"),
        ("write", "write"),
        ("readdir", "list"),
        ("remote", "remote"),
    ];
    let time = |nanos: &Value| Duration::from_nanos(nanos.as_u64().unwrap_or_default());
    let asked = SHOWN.iter().map(|(key, name)| (&told[key], name));
    let asked = asked.filter(|(told, _)| told["count"].as_u64() > Some(0));
    let texts: Vec<_> = asked
        .map(|(told, name)| {
            format!("{name} {:.1?} ({:.1?})", time(&told["p50"]), time(&told["p99"]))
        })
        .collect();
    (!texts.is_empty()).then(|| format!("{}; median (and 99 of 100)", texts.join(", ")))
}
