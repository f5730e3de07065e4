//! Revisions as lines for people.

use std::fmt::Write;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use unicode_width::UnicodeWidthStr;

use super::{Commit, Named, Revisions};
use crate::path::escape;

/// A moment in UTC, as `name@{date}` understands it; one that no calendar has, in seconds.
pub(super) fn date_time(secs: i64) -> String {
    let date_time = OffsetDateTime::from_unix_timestamp(secs).ok();
    let text = date_time.and_then(|date_time| date_time.format(&Rfc3339).ok());
    text.unwrap_or_else(|| format!("@{secs}"))
}

/// Everything, with headings; `whose` names the revision whose commits are listed.
pub(super) fn text(revisions: &Revisions, whose: Option<&str>) -> String {
    let mut text = String::new();
    section(&mut text, "branches", &revisions.branches, named_row);
    section(&mut text, "tags", &revisions.tags, named_row);
    if let Some(commits) = &revisions.commits {
        let heading = format!("commits of {} that changed data", whose.unwrap_or("HEAD"));
        section(&mut text, &escape(heading.as_bytes()), commits, |data| {
            let Commit { short, subject, .. } = &data.commit;
            row([" ", short, day(&data.commit), &data.counts.text(), subject])
        });
    }
    text
}

/// A mark and four columns.
type Row = [String; 5];

fn named_row(named: &Named) -> Row {
    let Commit { short, subject, .. } = &named.commit;
    row([if named.is_default { "*" } else { " " }, &named.name, short, day(&named.commit), subject])
}

fn row(cells: [&str; 5]) -> Row {
    cells.map(|cell| escape(cell.as_bytes()))
}

fn day(commit: &Commit) -> &str {
    commit.date.split('T').next().unwrap_or_default()
}

/// A heading and a line for each item, in columns.
fn section<T>(text: &mut String, heading: &str, items: &[T], row: impl Fn(&T) -> Row) {
    if items.is_empty() {
        return;
    }
    let rows: Vec<_> = items.iter().map(row).collect();
    let width = |at: usize| rows.iter().map(|row| row[at].width()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2), width(3), 0];
    // Writing to a String cannot fail.
    _ = writeln!(text, "{heading}");
    for row in &rows {
        let padded = row.iter().zip(widths).map(|(cell, width)| {
            format!("{cell}{}", " ".repeat(width.saturating_sub(cell.width())))
        });
        let cells: Vec<_> = padded.collect();
        let line = format!("{} {}", cells[0], cells[1..].join("  "));
        _ = writeln!(text, "{}", line.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_that_no_calendar_has_are_told_in_seconds() {
        assert_eq!(date_time(1_700_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(date_time(-1), "1969-12-31T23:59:59Z");
        assert_eq!(date_time(i64::MAX), format!("@{}", i64::MAX));
    }

    #[test]
    fn columns_are_as_wide_as_what_is_shown_of_them() {
        let commit = |subject: &str| Commit {
            hash: "c".repeat(40),
            short: "ccccccc".into(),
            date: "2026-01-15T16:30:00Z".into(),
            subject: subject.into(),
            time: 0,
        };
        let named = |name: &str, is_default, subject| Named {
            name: name.into(),
            is_default,
            commit: commit(subject),
        };
        let branches = vec![named("main", true, "one\u{1b}[2J"), named("wörk\n", false, "")];
        let revisions = Revisions { branches, tags: Vec::new(), commits: Some(Vec::new()) };
        let expected = "branches\n\
                        * main    ccccccc  2026-01-15  one\\u{1b}[2J\n  \
                        wörk\\n  ccccccc  2026-01-15\n";
        assert_eq!(text(&revisions, None), expected);
    }
}
