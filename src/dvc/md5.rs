//! MD5 of content as it comes, from the C library that TLS brings along.
//!
//! One large file is hashed by one thread, and nothing else takes as long of reading it: the
//! library is a quarter faster there than the Rust one.

use std::fmt;

use aws_lc_sys::{MD5_CTX, MD5_Final, MD5_Init, MD5_Update};

use crate::id::Digest;

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
