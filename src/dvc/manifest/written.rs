//! The one form in which DVC writes manifests, read without a JSON parser: several times as fast.
//!
//! `[{"md5": "<32 hex>", "relpath": "<ASCII, escaped>"}, ...]`, one line, nothing behind it. A text
//! that differs anywhere is not understood here at all, so nothing can be read in two ways.

use std::io::{self, Read};

use super::{Entry, Refused};
use crate::dvc::BadEntry;
use crate::dvc::place::check_relpath;
use crate::id::{Digest, parse_digest};

/// What is read at a time.
const BUFFER: usize = 256 << 10;

/// Longer entries are left to the JSON parser, which has a limit for them.
const ENTRY_MAX: usize = 32 << 10;

/// Gives every sound entry to `accept`, unless the text turns out to have another form; entries
/// given before that are not to be used.
pub(super) fn scan(
    reader: impl Read,
    accept: &mut dyn FnMut(Entry<'_>),
) -> io::Result<Option<Refused>> {
    let mut refused = Refused::default();
    let mut window = Window::new(reader);
    let mut scratch = Vec::new();
    if !window.take(b"[")? {
        return Ok(None);
    }
    if window.take(b"]")? {
        return Ok(window.is_at_end()?.then_some(refused));
    }
    loop {
        let Some(scanned) = entry(window.ahead()?, &mut scratch) else { return Ok(None) };
        match check_relpath(scanned.relpath) {
            Ok(()) => accept(Entry { relpath: scanned.relpath, digest: Some(scanned.digest) }),
            Err(flaw) => refused.add(BadEntry::new(scanned.relpath, flaw)),
        }
        window.start += scanned.length;
        if window.take(b"]")? {
            return Ok(window.is_at_end()?.then_some(refused));
        }
        if !window.take(b", ")? {
            return Ok(None);
        }
    }
}

/// A stretch of the text that holds a whole entry, if one begins there.
struct Window<R> {
    reader: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    is_all_read: bool,
}

impl<R: Read> Window<R> {
    fn new(reader: R) -> Self {
        Self { reader, buffer: vec![0; BUFFER], start: 0, end: 0, is_all_read: false }
    }

    /// The text from here on: an entry's full length of it, or all there is.
    fn ahead(&mut self) -> io::Result<&[u8]> {
        if self.end - self.start < ENTRY_MAX && !self.is_all_read {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            while self.end < self.buffer.len() {
                match self.reader.read(&mut self.buffer[self.end..]) {
                    Ok(0) => {
                        self.is_all_read = true;
                        break;
                    }
                    Ok(count) => self.end += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(&self.buffer[self.start..self.end])
    }

    /// Passes over a text that comes next, or tells that another one does.
    fn take(&mut self, text: &[u8]) -> io::Result<bool> {
        let is_next = self.ahead()?.starts_with(text);
        self.start += if is_next { text.len() } else { 0 };
        Ok(is_next)
    }

    fn is_at_end(&mut self) -> io::Result<bool> {
        Ok(self.ahead()?.is_empty())
    }
}

struct Scanned<'a> {
    relpath: &'a [u8],
    digest: Digest,
    length: usize,
}

fn entry<'a>(text: &'a [u8], scratch: &'a mut Vec<u8>) -> Option<Scanned<'a>> {
    let text = &text[..text.len().min(ENTRY_MAX)];
    let rest = text.strip_prefix(b"{\"md5\": \"")?;
    let (digest, rest) = rest.split_first_chunk::<32>()?;
    let digest = parse_digest(std::str::from_utf8(digest).ok()?).ok()?;
    let rest = rest.strip_prefix(b"\", \"relpath\": \"")?;
    let (relpath, rest) = string(rest, scratch)?;
    let rest = rest.strip_prefix(b"}")?;
    Some(Scanned { relpath, digest, length: text.len() - rest.len() })
}

/// The content of a string that has begun, and what follows its closing quote.
fn string<'a>(text: &'a [u8], scratch: &'a mut Vec<u8>) -> Option<(&'a [u8], &'a [u8])> {
    let is_plain = |bytes: &[u8]| bytes.iter().all(|byte| (0x20..0x80).contains(byte));
    let stop = memchr::memchr2(b'"', b'\\', text)?;
    let (plain, mut rest) = text.split_at(stop);
    if rest[0] == b'"' {
        return is_plain(plain).then_some((plain, &rest[1..]));
    }
    scratch.clear();
    scratch.extend_from_slice(plain);
    while let Some(escape) = rest.strip_prefix(b"\\") {
        rest = unescape(escape, scratch)?;
        let stop = memchr::memchr2(b'"', b'\\', rest)?;
        scratch.extend_from_slice(&rest[..stop]);
        // What escapes stand for may be any byte; what lies between them may not.
        if !is_plain(&rest[..stop]) {
            return None;
        }
        rest = &rest[stop..];
    }
    is_plain(plain).then_some((scratch.as_slice(), &rest[1..]))
}

/// Works out one escape, whose backslash was passed; gives what follows it.
fn unescape<'a>(text: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (letter, rest) = text.split_first()?;
    out.push(match letter {
        b'"' => b'"',
        b'\\' => b'\\',
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'f' => 0x0c,
        b'u' => return unescape_unit(rest, out),
        _ => return None,
    });
    Some(rest)
}

/// Works out `\uXXXX`, with the second half of a pair where it is a first half. The units U+DC80 to
/// U+DCFF that no first half precedes are the bytes of a name that is not UTF-8.
fn unescape_unit<'a>(text: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (first, rest) = unit(text)?;
    let (letter, rest) = match first {
        0xdc80..=0xdcff => {
            out.push(first as u8);
            return Some(rest);
        }
        0xd800..=0xdbff => {
            let (second, rest) = unit(rest.strip_prefix(b"\\u")?)?;
            (char::decode_utf16([first, second]).next()?.ok()?, rest)
        }
        _ => (char::from_u32(u32::from(first))?, rest),
    };
    out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
    Some(rest)
}

fn unit(text: &[u8]) -> Option<(u16, &[u8])> {
    let (digits, rest) = text.split_first_chunk::<4>()?;
    let value = digits.iter().try_fold(0, |value: u16, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(value << 4 | digit as u16)
    });
    Some((value?, rest))
}
