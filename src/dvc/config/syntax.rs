//! The syntax of DVC's configuration: the dialect of Python's `ConfigObj`.
//!
//! It looks like INI but differs in what matters here: section names may be quoted as a whole
//! (`['remote "name"']`), backslashes are ordinary, values may be in triple quotes over several
//! lines, and a comma outside quotes makes a list. The INI crates at hand give up at the first
//! broken line, while one broken line here must cost only itself; hence a parser of our own.

use indexmap::IndexMap;

/// Longer files are refused.
const TEXT_MAX: usize = 1 << 20;

/// The values of a file by section and key, both in lower case.
pub(super) type Sections = IndexMap<String, IndexMap<String, Value>>;

/// What stands behind an equals sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// One value.
    Text(String),
    /// Several, separated by commas.
    List,
}

/// Reads a file, with a warning for each line that cannot be read.
pub(super) fn parse(bytes: &[u8]) -> (Sections, Vec<String>) {
    let mut parser = Parser::default();
    if bytes.len() > TEXT_MAX {
        parser.warnings.push("over 1 MiB, ignored".to_owned());
        return (parser.sections, parser.warnings);
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut lines = bytes.split(|byte| *byte == b'\n').enumerate();
    while let Some((index, line)) = lines.next() {
        let read = text(line).and_then(|line| {
            let mut more = || lines.next().map(|(_, line)| text(line));
            parser.line(line.trim(), &mut more)
        });
        if let Err(reason) = read {
            parser.warnings.push(format!("line {}: {reason}, ignored", index + 1));
        }
    }
    (parser.sections, parser.warnings)
}

type Result<T> = std::result::Result<T, &'static str>;

fn text(line: &[u8]) -> Result<&str> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    std::str::from_utf8(line).ok().ok_or("not UTF-8")
}

#[derive(Default)]
struct Parser {
    sections: Sections,
    /// Nothing before the first section and in one that cannot be read.
    current: Option<String>,
    warnings: Vec<String>,
}

impl Parser {
    fn line(&mut self, line: &str, more: Lines<'_, '_>) -> Result<()> {
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        if line.starts_with('[') {
            self.current = None;
            let name = section_name(line)?.to_lowercase();
            self.current = Some(name.clone());
            // Of two sections that differ in case only, DVC takes the later.
            let replaced = self.sections.insert(name, IndexMap::new());
            return replaced.map_or(Ok(()), |_| Err("the section appears twice, the first one is"));
        }
        let (key, rest) = line.split_once('=').ok_or("neither a section nor a key")?;
        let key = unquote(key.trim()).to_lowercase();
        if key.is_empty() {
            return Err("no key");
        }
        let value = value(rest.trim(), more)?;
        let section = self.current.as_ref().and_then(|name| self.sections.get_mut(name));
        let section = section.ok_or("a key outside of a section")?;
        let replaced = section.insert(key, value);
        replaced.map_or(Ok(()), |_| Err("the key appears twice, the first one is"))
    }
}

type Lines<'l, 'a> = &'l mut dyn FnMut() -> Option<Result<&'a str>>;

fn section_name(line: &str) -> Result<&str> {
    let inner = line.strip_prefix('[').unwrap_or_default();
    let ends = inner.match_indices(']').map(|(at, _)| at);
    let end = ends.into_iter().find(|at| is_end(&inner[at + 1..])).ok_or("a broken section")?;
    let name = unquote(inner[..end].trim());
    if name.is_empty() || name.starts_with('[') { Err("a broken section") } else { Ok(name) }
}

fn value(text: &str, more: Lines<'_, '_>) -> Result<Value> {
    for quotes in ["'''", "\"\"\""] {
        if let Some(text) = text.strip_prefix(quotes) {
            return triple_quoted(text, quotes, more).map(Value::Text);
        }
    }
    let Some(quote) = text.chars().next().filter(|first| matches!(first, '"' | '\'')) else {
        let text = text.split('#').next().unwrap_or_default().trim_end();
        let is_list = text.contains(',');
        return Ok(if is_list { Value::List } else { Value::Text(text.to_owned()) });
    };
    for (end, _) in text[1..].match_indices(quote) {
        let (inner, rest) = (&text[1..=end], text[end + 2..].trim_start());
        if is_end(rest) {
            return Ok(Value::Text(inner.to_owned()));
        }
        if rest.starts_with(',') {
            return Ok(Value::List);
        }
    }
    Err("an unclosed quote")
}

fn triple_quoted(first: &str, quotes: &str, more: Lines<'_, '_>) -> Result<String> {
    let mut value = String::new();
    let mut line = first;
    loop {
        if let Some((inner, rest)) = line.split_once(quotes) {
            value += inner;
            return if is_end(rest) { Ok(value) } else { Err("text after closing quotes") };
        }
        value += line;
        value.push('\n');
        line = more().ok_or("unclosed triple quotes")??;
    }
}

/// Whether nothing but blanks and a comment is left of a line.
fn is_end(rest: &str) -> bool {
    let rest = rest.trim_start();
    rest.is_empty() || rest.starts_with('#')
}

fn unquote(text: &str) -> &str {
    ['"', '\'']
        .into_iter()
        .find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of `k` in section `a` of a text, as Python's `ConfigObj` reads it.
    fn value_of(rest: &str) -> Option<Value> {
        let (mut sections, _) = parse(format!("[a]\nk = {rest}\n").as_bytes());
        sections.swap_remove("a")?.swap_remove("k")
    }

    #[test]
    fn values_are_read_as_configobj_reads_them() {
        for (text, value) in [
            ("s3://a/b#c", "s3://a/b"),
            ("s3://a/b #c", "s3://a/b"),
            ("a'b\"c", "a'b\"c"),
            ("'''pa'ss\"w,#''' # c", "pa'ss\"w,#"),
            ("'''x\n y\n'''", "x\n y\n"),
            ("\"a\\\\nb\\\"", "a\\\\nb\\"),
            ("C:\\x\\y", "C:\\x\\y"),
            ("v = w", "v = w"),
            ("", ""),
            ("\"\"", ""),
            ("'it''s'", "it''s"),
            ("\" lead\"", " lead"),
            ("a b  # c", "a b"),
            ("\"a#b,c\"#d", "a#b,c"),
            ("#x", ""),
            ("x;y", "x;y"),
            ("value\r", "value"),
        ] {
            assert_eq!(value_of(text), Some(Value::Text(value.to_owned())), "{text}");
        }
        for list in ["a,b", "a,", ",", "'x' , \"y\"", "'a', b"] {
            assert_eq!(value_of(list), Some(Value::List), "{list}");
        }
        for broken in ["'a'b", "\"unclosed", "'''one''' two", "'''unclosed"] {
            assert_eq!(value_of(broken), None, "{broken}");
        }
    }

    #[test]
    fn section_names_are_read_as_configobj_reads_them() {
        for (header, name) in [
            ("['remote \"St\"']", "remote \"st\""),
            ("[remote \"COLD\"]  # plain", "remote \"cold\""),
            ("[a \"b]c\"]", "a \"b]c\""),
            ("  [ CORE ]", "core"),
        ] {
            let (sections, warnings) = parse(format!("{header}\n'Q k' = 1\n").as_bytes());
            assert_eq!(sections.keys().collect::<Vec<_>>(), [name]);
            assert!(sections[name].contains_key("q k"));
            assert_eq!(warnings, [""; 0]);
        }
    }

    #[test]
    fn a_broken_line_costs_only_itself() {
        let text = b"\xef\xbb\xbfk = 0\n[core\nremote = lost\n[[x]]\n[a]\r\nok = 1\r\nk: v\n= 2\n\xff = 3\nlast = 4";
        let (sections, warnings) = parse(text);
        assert_eq!(sections.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(sections["a"].keys().collect::<Vec<_>>(), ["ok", "last"]);
        assert_eq!(warnings.len(), 7);
    }

    #[test]
    fn the_later_of_two_counts() {
        let (sections, warnings) = parse(b"[A]\nk = 1\n[a]\nk = 2\nK = 3\n");
        assert_eq!(sections["a"]["k"], Value::Text("3".to_owned()));
        assert_eq!(warnings.len(), 2);
    }
}
