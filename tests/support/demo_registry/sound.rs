//! Sounds that play: hummed syllables as 16-bit PCM in WAV files.

use std::f32::consts::TAU;

/// Samples per second of the short clips.
pub(super) const CLIP: u32 = 16_000;
/// Samples per second of the long recording.
pub(super) const RECORDING: u32 = 48_000;

/// One speaker's utterance; the same seed sounds the same.
#[derive(Clone, Copy)]
pub(super) struct Voice {
    pub(super) seed: u32,
    pub(super) millis: u32,
}

impl Voice {
    /// The bytes of a mono WAV file of `rate` samples a second.
    pub(super) fn wav(self, rate: u32) -> Vec<u8> {
        let samples = rate / 1000 * self.millis;
        let mut bytes = header(rate, samples * 2);
        bytes.reserve_exact(samples as usize * 2);
        let wave = self.period();
        let mut phase: u32 = 0;
        for at in 0..samples {
            let syllable = at * 4 / rate;
            phase = phase.wrapping_add(self.pitch(syllable) * (u32::MAX / rate));
            let loudness = envelope(at * 4 % rate, rate);
            let sample = wave[(phase >> 24) as usize] * loudness / 256;
            bytes.extend_from_slice(&(sample as i16).to_le_bytes());
        }
        bytes
    }

    /// A number that seed and position decide, for anything that should vary.
    fn vary(self, position: u32) -> u32 {
        let mixed = (self.seed.wrapping_mul(0x9e37_79b9) ^ position.wrapping_mul(0x85eb_ca6b))
            .wrapping_add(1);
        mixed.wrapping_mul(0xc2b2_ae35) >> 16
    }

    /// The pitch of a syllable in Hz.
    fn pitch(self, syllable: u32) -> u32 {
        100 + self.vary(0) % 80 + self.vary(syllable + 1) % 40
    }

    /// One period of the voice: a tone and some of its overtones.
    fn period(self) -> [i32; 256] {
        let overtone = |number: u32| (self.vary(number + 1000) % 100) as f32 / 200.0;
        let (second, third) = (overtone(2), overtone(3));
        std::array::from_fn(|step| {
            let angle = step as f32 / 256.0 * TAU;
            let wave = angle.sin() + second * (2.0 * angle).sin() + third * (3.0 * angle).sin();
            (wave * 14_000.0) as i32
        })
    }
}

/// Swells and fades once over a syllable, from 0 to 256 and back.
fn envelope(at: u32, length: u32) -> i32 {
    let half = length / 2;
    (at.min(length - at) * 256 / half) as i32
}

/// The 44 bytes before the samples.
fn header(rate: u32, data_len: u32) -> Vec<u8> {
    const MONO: u16 = 1;
    const SAMPLE_BYTES: u16 = 2;
    let mut bytes = Vec::with_capacity(44);
    bytes.extend_from_slice(b"RIFF");
    bytes.extend_from_slice(&(36 + data_len).to_le_bytes());
    bytes.extend_from_slice(b"WAVEfmt ");
    bytes.extend_from_slice(&16_u32.to_le_bytes());
    bytes.extend_from_slice(&1_u16.to_le_bytes());
    bytes.extend_from_slice(&MONO.to_le_bytes());
    bytes.extend_from_slice(&rate.to_le_bytes());
    bytes.extend_from_slice(&(rate * u32::from(SAMPLE_BYTES)).to_le_bytes());
    bytes.extend_from_slice(&SAMPLE_BYTES.to_le_bytes());
    bytes.extend_from_slice(&(SAMPLE_BYTES * 8).to_le_bytes());
    bytes.extend_from_slice(b"data");
    bytes.extend_from_slice(&data_len.to_le_bytes());
    bytes
}
