//! How far an upload in parts has come, as a file that a later upload goes on from.
//!
//! A line of JSON says which upload it is, one more each part that the server has. A line that
//! cannot be read costs itself, or, if it is the first, the note.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::Path,
};

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::{atomic, remote::Source};

/// Which upload a note is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Upload {
    pub(super) url: String,
    pub(super) object: String,
    pub(super) size: u64,
    /// The bytes of every part but the last.
    pub(super) part: u64,
    pub(super) id: String,
}

/// A part that the server has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) number: i32,
    pub(super) etag: Option<String>,
    /// Its CRC-32, if the server checked that.
    pub(super) crc: Option<String>,
}

/// What a source's note says, if it has one.
pub(super) async fn read(source: &Source) -> Option<(Upload, Vec<Part>)> {
    let text = with_note(source, |note| fs::read_to_string(note)).await?.ok()?;
    let mut lines = text.lines();
    let upload = serde_json::from_str(lines.next()?).ok()?;
    Some((upload, lines.filter_map(|line| serde_json::from_str(line).ok()).collect()))
}

/// Begins a note in place of the one that is there.
pub(super) async fn begin(source: &Source, upload: &Upload) {
    let line = line(upload);
    log(with_note(source, move |note| {
        atomic::write_unsynced(note, 0o600, |file| file.write_all(&line))
    })
    .await);
}

/// Notes a part.
pub(super) async fn add(source: &Source, part: &Part) {
    let line = line(part);
    log(with_note(source, move |note| {
        OpenOptions::new().append(true).open(note)?.write_all(&line)
    })
    .await);
}

/// The upload is over.
pub(super) async fn remove(source: &Source) {
    log(with_note(source, |note| match fs::remove_file(note) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    })
    .await);
}

fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

async fn with_note<T: Send + 'static>(
    source: &Source,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Option<io::Result<T>> {
    let note = source.note()?.to_owned();
    Some(spawn_blocking(move || work(&note)).await.unwrap_or_else(|e| Err(io::Error::other(e))))
}

/// Without a note an upload that is cut off begins anew, which is no reason to fail.
fn log(done: Option<io::Result<()>>) {
    if let Some(Err(error)) = done {
        tracing::debug!("note how far an upload is: {error}");
    }
}
