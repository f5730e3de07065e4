//! The words of a revision: a base and the steps from it.

use super::date;
use crate::path::NAME_MAX;

/// In bytes; with the folder of a repository before it a ref must stay a usable path.
const LONGEST_BASE: usize = 1024;

/// A revision taken apart, such as `v1~3` into `v1` and one step.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expression<'a> {
    /// A ref, an id or `HEAD`.
    pub(super) base: &'a str,
    /// What follows it, from left to right.
    pub(super) steps: Vec<Step>,
}

/// One step from a commit to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// `~n`: n times the first parent.
    Ancestor(u32),
    /// `^n`: the n-th parent, counted from 1; 0 is the commit itself.
    Parent(u32),
    /// `@{date}`: back along first parents to that time, in seconds since 1970.
    At(i64),
}

/// Takes a revision apart; nothing if it has another form.
pub(super) fn parse(text: &str) -> Option<Expression<'_>> {
    let end = [text.find(['~', '^']), text.find("@{")].into_iter().flatten().min();
    let (base, mut rest) = text.split_at(end.unwrap_or(text.len()));
    let mut steps = Vec::new();
    while !rest.is_empty() {
        let (step, after) = parse_step(rest)?;
        steps.extend(step);
        rest = after;
    }
    if base.contains('\0') || !fits_a_ref(base) {
        return None;
    }
    let base = match base {
        "@" => "HEAD",
        "" if text.starts_with("@{") => "HEAD",
        "" => return None,
        _ => base,
    };
    Some(Expression { base, steps })
}

/// Whether the name fits into the file names that git keeps refs under.
fn fits_a_ref(name: &str) -> bool {
    name.len() <= LONGEST_BASE && name.split('/').all(|component| component.len() <= NAME_MAX)
}

/// Parses the step that `text` begins with; `^{commit}` and `^{}` are none, as every base is
/// peeled to its commit.
fn parse_step(text: &str) -> Option<(Option<Step>, &str)> {
    if let Some(rest) = text.strip_prefix("@{") {
        let (date, rest) = rest.split_once('}')?;
        return Some((Some(Step::At(date::parse(date)?)), rest));
    }
    if let Some(rest) = text.strip_prefix("^{commit}").or_else(|| text.strip_prefix("^{}")) {
        return Some((None, rest));
    }
    if let Some(rest) = text.strip_prefix('~') {
        let (count, rest) = parse_count(rest)?;
        return Some((Some(Step::Ancestor(count)), rest));
    }
    let (number, rest) = parse_count(text.strip_prefix('^')?)?;
    Some((Some(Step::Parent(number)), rest))
}

/// Parses leading digits; without any the count is 1.
fn parse_count(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let count = if digits.is_empty() { 1 } else { digits.parse().ok()? };
    Some((count, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_a_base_and_steps() {
        for (text, base, steps) in [
            ("main", "main", vec![]),
            ("a@b", "a@b", vec![]),
            ("@", "HEAD", vec![]),
            ("HEAD~", "HEAD", vec![Step::Ancestor(1)]),
            ("v1~3^2", "v1", vec![Step::Ancestor(3), Step::Parent(2)]),
            ("v1^{commit}^", "v1", vec![Step::Parent(1)]),
            ("v1^{}", "v1", vec![]),
            ("x/y@{1970-01-02}~1", "x/y", vec![Step::At(86_400), Step::Ancestor(1)]),
            ("@{1970-01-01}", "HEAD", vec![Step::At(0)]),
        ] {
            assert_eq!(parse(text), Some(Expression { base, steps }), "{text}");
        }
    }

    #[test]
    fn other_forms_are_not_understood() {
        for text in [
            "",
            "~1",
            "main@{upstream}",
            "main@{1}",
            "main^{tree}",
            "main~x",
            "main~99999999999",
            "a\0b",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        for long in ["x".repeat(256), "x/".repeat(600)] {
            assert_eq!(parse(&long), None);
        }
    }
}
