//! MD5 of content as it comes, from the C library that TLS brings along.
//!
//! One large file is hashed by one thread, and nothing else takes as long of reading it: the
//! library is a quarter faster there than the Rust one.

use std::fmt;

use aws_lc_sys::{MD5_CTX, MD5_Final, MD5_Init, MD5_Update};

use crate::id::Digest;

#[cfg(target_arch = "x86_64")]
mod lanes;

/// The hashes of several contents. Where the processor can, eight take about half as long as in turn.
pub(crate) fn of_each(contents: &[&[u8]]) -> Vec<Digest> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        return contents.chunks(lanes::LANES).flat_map(of_few).collect();
    }
    contents.iter().map(|content| Md5::of(content)).collect()
}

#[cfg(target_arch = "x86_64")]
fn of_few(contents: &[&[u8]]) -> Vec<Digest> {
    // SAFETY: the processor has these instructions, as its caller has seen.
    let begun = unsafe { lanes::begin_all(contents) };
    let ended = contents.iter().zip(begun).map(|(content, (state, hashed))| {
        let mut hash = Md5::resumed(state, hashed);
        hash.update(&content[hashed..]);
        hash.finish()
    });
    ended.collect()
}

/// A hash under way.
#[derive(Clone)]
pub(crate) struct Md5(MD5_CTX);

impl Md5 {
    /// Of nothing yet.
    pub(crate) fn new() -> Self {
        let mut context = MD5_CTX::default();
        // SAFETY: the context is ours, and this only writes to it. It cannot fail.
        unsafe { MD5_Init(&raw mut context) };
        Self(context)
    }

    /// Of `bytes`.
    pub(crate) fn of(bytes: &[u8]) -> Digest {
        let mut hash = Self::new();
        hash.update(bytes);
        hash.finish()
    }

    /// Of whole blocks that others have hashed, `bytes` together.
    #[cfg(target_arch = "x86_64")]
    fn resumed(state: lanes::State, bytes: usize) -> Self {
        let bits = bytes as u64 * 8;
        let Self(new) = Self::new();
        Self(MD5_CTX { h: state, Nl: bits as u32, Nh: (bits >> 32) as u32, ..new })
    }

    /// Takes the next bytes.
    pub(crate) fn update(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        // SAFETY: the context was initialised; the library reads as many bytes as the slice has
        // and keeps no pointer. It cannot fail.
        unsafe { MD5_Update(&raw mut self.0, bytes.as_ptr().cast(), bytes.len()) };
    }

    /// The hash of all that came.
    pub(crate) fn finish(mut self) -> Digest {
        let mut digest = Digest::default();
        // SAFETY: the context was initialised, and 16 bytes are written, which the digest has.
        unsafe { MD5_Final(digest.as_mut_ptr(), &raw mut self.0) };
        digest
    }
}

impl fmt::Debug for Md5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Md5")
    }
}

#[cfg(test)]
mod tests {
    use md5::Digest as _;

    use super::*;

    #[test]
    fn several_at_once_agree_with_another_library_whatever_their_lengths() {
        let content: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(n) % 251) as u8).collect();
        let lengths = [0, 1, 55, 56, 63, 64, 65, 127, 128, 9_999, 64_000, 64_001, 99_999, 100_000];
        for count in 0..lengths.len() {
            for offset in [0, 3] {
                let contents: Vec<&[u8]> = (0..count)
                    .map(|n| &content[n..][..lengths[(n * 5 + offset) % lengths.len()].min(99_000)])
                    .collect();
                let expected: Vec<Digest> =
                    contents.iter().map(|content| md5::Md5::digest(content).into()).collect();
                assert_eq!(of_each(&contents), expected, "{count} from {offset}");
            }
        }
    }

    #[test]
    fn it_agrees_with_another_library_whatever_the_pieces() {
        let content: Vec<u8> = (0..10_000_u32).map(|n| (n * n % 251) as u8).collect();
        for length in [0, 1, 55, 56, 63, 64, 65, 127, 128, 9_999, 10_000] {
            let content = &content[..length];
            let expected: Digest = md5::Md5::digest(content).into();
            for step in [1, 63, 64, 1000, 10_000] {
                let mut hash = Md5::new();
                content.chunks(step).for_each(|piece| hash.update(piece));
                assert_eq!(hash.clone().finish(), expected, "{length} by {step}");
            }
        }
    }
}
