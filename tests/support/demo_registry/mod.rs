//! A small audio registry: three tags, two branches, and the objects that `dvc push` would upload.
//!
//! Every byte is as DVC 3 writes it, so DVC itself can clone and pull the result. Identity and
//! dates are fixed and the sounds are computed; only the endpoint in `.dvc/config` differs from
//! one registry to the next.

mod sound;

use std::{collections::BTreeMap, ops::Range, path::Path};

use anyhow::Result;

use self::sound::{CLIP, RECORDING, Voice};
use crate::registry_builder::{Blob, RegistryBuilder};

/// The bucket and the prefix in it that the registry's remote names.
pub(crate) const REMOTE_PATH: &str = "demo/registry";

/// A revision and what DVC tracks there.
pub(crate) struct DemoRevision {
    /// The name of the tag or branch.
    pub(crate) name: &'static str,
    /// The MD5 of each tracked file, by its path from the repository's root.
    pub(crate) files: BTreeMap<String, String>,
}

const RECORDING_PATH: &str = "raw/audio/recording.wav";
const CLIPS_PATH: &str = "clips";

/// What is tracked at one moment of the story.
struct Audio {
    recording: Blob,
    clips: BTreeMap<String, Blob>,
}

/// Makes the registry: a git repository in the new folder `repository`, and objects below
/// `objects`, the folder that a server shows as [`REMOTE_PATH`] at `endpoint`.
pub(crate) fn make(repository: &Path, objects: &Path, endpoint: &str) -> Result<Vec<DemoRevision>> {
    let builder = RegistryBuilder::start(repository, objects)?;
    start(&builder, endpoint)?;
    let mut audio = first_collection(&builder)?;
    let v1_0 = audio.revision("v1.0");

    second_collection(&builder, &mut audio)?;
    let v1_1 = audio.revision("v1.1");

    let denoised = denoise(&builder, &audio)?;
    third_collection(&builder, &mut audio)?;
    let v1_2 = audio.revision("v1.2");

    builder.text("transcripts/recording.txt", "Good morning, and welcome back to the studio.\n")?;
    builder.commit("Correct the transcript of the recording", "2026-03-09T08:00:00+00:00")?;
    Ok(vec![v1_0, v1_1, v1_2, denoised, audio.revision("main")])
}

fn start(builder: &RegistryBuilder, endpoint: &str) -> Result<()> {
    builder.init(&format!(
        "[core]\n    remote = storage\n['remote \"storage\"']\n    url = s3://{REMOTE_PATH}\n    \
         endpointurl = {endpoint}\n    region = us-east-1\n"
    ))?;
    builder.text("README.md", "# Voices\n\nRecordings and their transcripts.\n")?;
    builder.commit("Start the registry", "2026-01-12T09:00:00+00:00")?;
    Ok(())
}

fn first_collection(builder: &RegistryBuilder) -> Result<Audio> {
    let recording = builder.put(&Voice { seed: 1, millis: 90_000 }.wav(RECORDING))?;
    let mut audio = Audio { recording, clips: BTreeMap::new() };
    audio.record(builder, 0..300, 1)?;
    audio.track(builder)?;
    builder.text("transcripts/recording.txt", "Good morning, and welcome to the studio.\n")?;
    builder.commit("Add the first collection", "2026-01-15T16:30:00+00:00")?;
    builder.git(&["tag", "v1.0"])?;
    Ok(audio)
}

fn second_collection(builder: &RegistryBuilder, audio: &mut Audio) -> Result<()> {
    audio.record(builder, 300..320, 1)?;
    // The same length with another voice: the same size, different bytes.
    audio.record(builder, 10..15, 2)?;
    for number in 40..50 {
        audio.clips.remove(&clip_name(number));
    }
    audio.track(builder)?;
    builder
        .commit("Add the second collection, record five clips anew", "2026-02-10T11:00:00+00:00")?;
    builder.git(&["tag", "-a", "v1.1", "-m", "Second collection"])?;
    Ok(())
}

fn denoise(builder: &RegistryBuilder, audio: &Audio) -> Result<DemoRevision> {
    builder.git(&["checkout", "--quiet", "-b", "review/denoise"])?;
    let recording = builder.put(&Voice { seed: 2, millis: 90_000 }.wav(RECORDING))?;
    let denoised = Audio { recording, clips: audio.clips.clone() };
    denoised.track(builder)?;
    builder.commit("Remove the noise of the recording", "2026-02-12T14:00:00+00:00")?;
    builder.git(&["checkout", "--quiet", "main"])?;
    Ok(denoised.revision("review/denoise"))
}

fn third_collection(builder: &RegistryBuilder, audio: &mut Audio) -> Result<()> {
    audio.recording = builder.put(&Voice { seed: 3, millis: 100_000 }.wav(RECORDING))?;
    audio.record(builder, 320..332, 1)?;
    audio.track(builder)?;
    builder.commit("Add the third collection, record for longer", "2026-03-05T10:15:00+00:00")?;
    builder.git(&["tag", "v1.2"])?;
    Ok(())
}

impl Audio {
    /// Records clips, in place of those of the same numbers.
    fn record(&mut self, builder: &RegistryBuilder, numbers: Range<u32>, take: u32) -> Result<()> {
        for number in numbers {
            let voice = Voice { seed: take * 1000 + number, millis: 800 + number % 5 * 100 };
            self.clips.insert(clip_name(number), builder.put(&voice.wav(CLIP))?);
        }
        Ok(())
    }

    /// Writes what `dvc add` would, and a transcript of each clip.
    fn track(&self, builder: &RegistryBuilder) -> Result<()> {
        builder.track_file(RECORDING_PATH, &self.recording)?;
        let clips: Vec<_> = self.clips.iter().map(|(name, blob)| (name.as_str(), *blob)).collect();
        builder.track_folder(CLIPS_PATH, &clips)?;
        let lines = self.clips.keys().map(|name| format!("{name}\t{}\n", spoken(name)));
        builder.text("transcripts/clips.tsv", &lines.collect::<String>())
    }

    fn revision(&self, name: &'static str) -> DemoRevision {
        let clips = self.clips.iter();
        let clips = clips.map(|(name, blob)| (format!("{CLIPS_PATH}/{name}"), blob.md5()));
        let recording = (RECORDING_PATH.to_owned(), self.recording.md5());
        DemoRevision { name, files: clips.chain([recording]).collect() }
    }
}

fn clip_name(number: u32) -> String {
    format!("clip-{number:04}.wav")
}

/// What is said in a clip: the digits of its name.
fn spoken(name: &str) -> String {
    const WORDS: [&str; 10] =
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    let digits = name.chars().filter_map(|letter| letter.to_digit(10));
    digits.map(|digit| WORDS[digit as usize]).collect::<Vec<_>>().join(" ")
}
