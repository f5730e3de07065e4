//! One size as bytes of the index file.

use super::{LARGEST, Scope, Size};
use crate::id::{Key, Scheme};

/// Bytes of a record.
pub(super) const WIDTH: usize = 30;

const LEGACY: u8 = 1;
const MANIFEST: u8 = 2;
const VERIFIED: u8 = 4;
const FORGOTTEN: u8 = 8;

/// A size, or that it is forgotten; the check is left to whoever writes it.
pub(super) fn encode(key: &Key, scope: Scope, size: Option<Size>) -> [u8; WIDTH] {
    let mut record = [0; WIDTH];
    record[..16].copy_from_slice(&key.digest);
    record[16..22].copy_from_slice(&size.map_or(0, |size| size.bytes).to_le_bytes()[..6]);
    record[22] = if key.scheme == Scheme::Dos2Unix { LEGACY } else { 0 }
        | if key.is_manifest { MANIFEST } else { 0 }
        | match size {
            Some(Size { is_verified: true, .. }) => VERIFIED,
            Some(_) => 0,
            None => FORGOTTEN,
        };
    record[23..28].copy_from_slice(&scope.0);
    record
}

/// What a record says; nothing if no such record is ever written.
pub(super) fn decode(record: &[u8; WIDTH]) -> Option<(Key, Scope, Option<Size>)> {
    let (mut digest, mut bytes, mut scope) = ([0; 16], [0; 8], [0; 5]);
    digest.copy_from_slice(&record[..16]);
    bytes[..6].copy_from_slice(&record[16..22]);
    scope.copy_from_slice(&record[23..28]);
    let (bytes, bits) = (u64::from_le_bytes(bytes), record[22]);
    if bytes > LARGEST || bits > LEGACY | MANIFEST | VERIFIED | FORGOTTEN {
        return None;
    }
    let scheme = if bits & LEGACY == 0 { Scheme::Md5 } else { Scheme::Dos2Unix };
    let key = Key { digest, scheme, is_manifest: bits & MANIFEST != 0 };
    let size = Size { bytes, is_verified: bits & VERIFIED != 0 };
    Some((key, Scope(scope), (bits & FORGOTTEN == 0).then_some(size)))
}
