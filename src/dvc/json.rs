//! Texts in JSON as DVC writes them, which is Python's way: in ASCII.

use std::fmt::Write;

/// A text between quotes; bytes that are not UTF-8 become lone surrogates.
pub fn quote(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 2);
    push_quoted(&mut text, bytes);
    text
}

/// The same, behind another text.
pub fn push_quoted(text: &mut String, bytes: &[u8]) {
    text.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => text.extend(['\\', c]),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                '\x08' => text.push_str("\\b"),
                '\x0c' => text.push_str("\\f"),
                ' '..='~' => text.push(c),
                _ => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| escape(text, *unit)),
            }
        }
        chunk.invalid().iter().for_each(|byte| escape(text, 0xdc00 + u16::from(*byte)));
    }
    text.push('"');
}

fn escape(text: &mut String, unit: u16) {
    // Writing to a String cannot fail.
    _ = write!(text, "\\u{unit:04x}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_out_in_ascii() {
        assert_eq!(quote(b"a \"b\" \\c/~"), r#""a \"b\" \\c/~""#);
        assert_eq!(quote(b"\n\r\t\x08\x0c\x01\x7f"), r#""\n\r\t\b\f\u0001\u007f""#);
        assert_eq!(quote("ü 😀".as_bytes()), r#""\u00fc \ud83d\ude00""#);
        assert_eq!(quote(b"b\xff"), r#""b\udcff""#);
    }
}
