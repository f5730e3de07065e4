//! Commands that show what a mount is, run for real, with what they print.

use std::{
    fs, io,
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};
use md5::{Digest, Md5};

use crate::mount::Place;

/// What to type, and the program that must be installed for it.
const COMMANDS: [(&str, &str); 11] = [
    ("ls", "ls"),
    ("ls", "ls branches tags"),
    ("find", "find tags/v1.0/clips -type f | wc -l"),
    ("ls", "ls -l tags/v1.1/clips | head -n 4"),
    ("soxi", "soxi main/raw/audio/recording.wav"),
    ("ffprobe", "ffprobe -v error -show_entries format=duration,size main/raw/audio/recording.wav"),
    (
        "python3",
        "python3 -c 'import wave; print(wave.open(\"main/clips/clip-0000.wav\").getparams())'",
    ),
    (
        "md5sum",
        "cat tags/v1.0/raw/audio/recording.wav.dvc; md5sum tags/v1.0/raw/audio/recording.wav",
    ),
    ("diff", "diff -rq tags/v1.0/clips tags/v1.1/clips | head -n 3"),
    ("dvcfs", "dvcfs list \"$REGISTRY\" raw/audio --rev v1.2 --size --show-hash --trust-remote"),
    ("dvcfs", "dvcfs status"),
];

/// Runs and prints every command whose program is installed.
pub(crate) fn run(place: &Place) -> Result<()> {
    for (program, command) in COMMANDS {
        if shell(place, &format!("command -v {program}"))?.status.success() {
            println!("$ {command}\n{}", printed(place, command)?);
        }
    }
    Ok(())
}

fn printed(place: &Place, command: &str) -> Result<String> {
    let Output { status, stdout, stderr } = shell(place, command)?;
    let reason = String::from_utf8_lossy(&stderr);
    ensure!(status.success() && reason.is_empty(), "{command}: {status}: {reason}");
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// Runs a command in the mount.
fn shell(place: &Place, command: &str) -> io::Result<Output> {
    let script = format!(". '{}'\n{command}", place.script.display());
    Command::new("sh").args(["-c", &script]).output()
}

/// The MD5 of a file.
pub(crate) fn md5_of(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    Ok(dvcfs::id::hex(&Md5::digest(bytes).into()))
}
