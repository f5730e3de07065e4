//! Merging two changes of one `.dvc` file, output by output.
//!
//! One side may have done anything to the record; of the other only new content of outputs can be
//! carried over. Of an output that has new content on both sides, only the files of a folder can
//! be merged.

use std::collections::BTreeMap;

use super::Recorded;
use crate::dvc::document::{self, Map, Value};
use crate::dvc::dotfile;
use crate::dvc::output::{Content, Output};
use crate::id::{BlobId, Scheme, TreeId};
use crate::path::RepoPath;

/// What a `.dvc` file becomes that may have changed on two sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merged {
    /// As it is on one side, which may be gone.
    As(Side),
    /// As it is on one side, with the content of these outputs.
    With(Side, BTreeMap<RepoPath, Becomes>),
    /// Nothing tells which is right.
    Conflict(Trouble),
}

/// One of two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Ours.
    Ours,
    /// Theirs.
    Theirs,
}

/// The content that an output gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Becomes {
    /// What one side recorded.
    Recorded(Recorded),
    /// A folder whose manifest is the merge of these three.
    Folder {
        /// The manifest that both sides started from.
        base: TreeId,
        /// Ours.
        ours: TreeId,
        /// Theirs.
        theirs: TreeId,
    },
}

/// Why both changes cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Both sides made the file.
    BothAdded,
    /// They removed what we changed.
    RemovedByThem,
    /// We removed what they changed.
    RemovedByUs,
    /// Both changed more of the record than the content of outputs, or what is no record.
    Record,
    /// Both gave an output other content.
    Content,
    /// Both changed a folder that DVC 2 recorded.
    Legacy,
}

/// Merges three versions of a `.dvc` file, each nothing where there is no such file. It lies in
/// `folder` of the DVC project at `project`.
pub fn merge(
    [base, ours, theirs]: [Option<&[u8]>; 3],
    folder: &RepoPath,
    project: &RepoPath,
) -> Merged {
    if ours == theirs || ours == base {
        return Merged::As(Side::Theirs);
    }
    if theirs == base {
        return Merged::As(Side::Ours);
    }
    let [base, ours, theirs] = match (base, ours, theirs) {
        (Some(base), Some(ours), Some(theirs)) => [base, ours, theirs],
        (None, ..) => return Merged::Conflict(Trouble::BothAdded),
        (_, _, None) => return Merged::Conflict(Trouble::RemovedByThem),
        (_, None, _) => return Merged::Conflict(Trouble::RemovedByUs),
    };
    let onto = if is_same_but_content(base, ours) {
        Side::Theirs
    } else if is_same_but_content(base, theirs) {
        Side::Ours
    } else {
        return Merged::Conflict(Trouble::Record);
    };
    let [Some(base), Some(ours), Some(theirs)] =
        [base, ours, theirs].map(|text| outputs(text, folder, project))
    else {
        return Merged::Conflict(Trouble::Record);
    };
    let carried = carried(&base, &ours, &theirs, onto);
    carried.map_or_else(Merged::Conflict, |changes| Merged::With(onto, changes))
}

type Outputs = BTreeMap<RepoPath, Output>;

/// The outputs of a file, if it is sound.
fn outputs(text: &[u8], folder: &RepoPath, project: &RepoPath) -> Option<Outputs> {
    let parsed =
        dotfile::parse(text, folder, project).ok().filter(|parsed| parsed.bad.is_empty())?;
    Some(parsed.outputs.into_iter().map(|output| (output.path.clone(), output)).collect())
}

/// The content that has to be carried over to the record of one side to have that of both.
fn carried(
    base: &Outputs,
    ours: &Outputs,
    theirs: &Outputs,
    onto: Side,
) -> Result<BTreeMap<RepoPath, Becomes>, Trouble> {
    let (from, to, removed) = match onto {
        Side::Theirs => (ours, theirs, Trouble::RemovedByThem),
        Side::Ours => (theirs, ours, Trouble::RemovedByUs),
    };
    let mut changes = BTreeMap::new();
    for (path, new) in from {
        let old = base.get(path).ok_or(Trouble::Record)?;
        if has_same_content(old, new) {
            continue;
        }
        let at = to.get(path).ok_or(removed)?;
        if has_same_content(at, new) {
            continue;
        }
        let becomes = if has_same_content(at, old) {
            Becomes::Recorded(recorded(new).ok_or(Trouble::Legacy)?)
        } else {
            both(old, &ours[path], &theirs[path])?
        };
        changes.insert(path.clone(), becomes);
    }
    Ok(changes)
}

/// What an output becomes to which both sides gave new content.
fn both(base: &Output, ours: &Output, theirs: &Output) -> Result<Becomes, Trouble> {
    let trees = [base, ours, theirs].map(|output| match output.content {
        Content::Tree(id) if !output.is_versioned => Some(id),
        _ => None,
    });
    let [Some(base), Some(ours), Some(theirs)] = trees else { return Err(Trouble::Content) };
    if [base, ours, theirs].iter().any(|id| id.scheme != Scheme::Md5) {
        return Err(Trouble::Legacy);
    }
    Ok(Becomes::Folder { base, ours, theirs })
}

fn has_same_content(a: &Output, b: &Output) -> bool {
    let facts = |output: &Output| (output.size, output.file_count, output.is_exec);
    a.content == b.content && facts(a) == facts(b)
}

/// The content of an output in the words of DVC 3, if it has it in them.
fn recorded(output: &Output) -> Option<Recorded> {
    match output.content {
        _ if output.is_versioned => None,
        Content::Blob(BlobId { digest, scheme: Scheme::Md5 }) => {
            Some(Recorded::File { digest, size: output.size?, is_exec: output.is_exec })
        }
        Content::Tree(TreeId { digest, scheme: Scheme::Md5 }) => {
            Some(Recorded::Folder { digest, size: output.size, file_count: output.file_count? })
        }
        _ => None,
    }
}

/// Whether two versions differ in nothing but the content of outputs.
fn is_same_but_content(a: &[u8], b: &[u8]) -> bool {
    let rest = |text: &[u8]| {
        let mut document = document::parse(str::from_utf8(text).ok()?).ok()?;
        for output in document.as_map_mut()?.get_mut("outs")?.as_list_mut()?.iter_mut() {
            output.as_map_mut().map(remove_content)?;
        }
        Some(document.plain())
    };
    let (a, b): (Option<Value>, Option<Value>) = (rest(a), rest(b));
    a.is_some() && a == b
}

fn remove_content(output: &mut Map) {
    for key in ["md5", "size", "nfiles", "isexec", "hash"] {
        output.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(digit: char, name: &str) -> String {
        let md5: String = std::iter::repeat_n(digit, 32).collect();
        format!("- md5: '{md5}'\n  size: {digit}\n  hash: md5\n  path: {name}\n")
    }

    fn text(digit: char, rest: &str) -> String {
        format!("outs:\n{}{rest}", output(digit, "x"))
    }

    fn folder_text(digit: char, rest: &str) -> String {
        text(digit, rest).replace("'\n", ".dir'\n  nfiles: 1\n")
    }

    fn two(first: char, second: char) -> String {
        format!("outs:\n{}{}", output(first, "x"), output(second, "y"))
    }

    fn merge(versions: [Option<&str>; 3]) -> Merged {
        let root = RepoPath::root();
        super::merge(versions.map(|text| text.map(str::as_bytes)), &root, &root)
    }

    fn merged(base: &str, ours: &str, theirs: &str) -> Merged {
        merge([base, ours, theirs].map(Some))
    }

    /// The paths of the outputs that are carried over, and where to.
    fn carried(base: &str, ours: &str, theirs: &str) -> (Side, Vec<(String, Becomes)>) {
        let Merged::With(side, changes) = merged(base, ours, theirs) else { panic!("a conflict") };
        (side, changes.into_iter().map(|(path, becomes)| (path.to_string(), becomes)).collect())
    }

    #[test]
    fn a_change_of_one_side_counts() {
        let (a, b) = (text('1', ""), text('2', ""));
        let (ours, theirs) = (Merged::As(Side::Ours), Merged::As(Side::Theirs));
        assert_eq!(merged(&a, &b, &a), ours);
        assert_eq!(merged(&a, &a, &b), theirs);
        assert_eq!(merged(&a, &b, &b), theirs);
        assert_eq!(merge([None, Some(&a), None]), ours);
        assert_eq!(merge([Some(&a), None, Some(&a)]), ours);
        assert_eq!(merge([Some(&a), Some(&a), None]), theirs);
    }

    #[test]
    fn changes_of_both_sides_are_a_conflict() {
        let (a, b, c) = (text('1', ""), text('2', ""), text('3', ""));
        let trouble = |versions| match merge(versions) {
            Merged::Conflict(trouble) => trouble,
            other => panic!("{other:?}"),
        };
        assert_eq!(trouble([Some(&a), Some(&b), Some(&c)]), Trouble::Content);
        assert_eq!(trouble([None, Some(&a), Some(&b)]), Trouble::BothAdded);
        assert_eq!(trouble([Some(&a), Some(&b), None]), Trouble::RemovedByThem);
        assert_eq!(trouble([Some(&a), None, Some(&b)]), Trouble::RemovedByUs);
        let described = |text: &str, by: &str| format!("{text}  desc: {by}\n");
        let (ours, theirs) = (described(&b, "us"), described(&a, "them"));
        assert_eq!(trouble([Some(&a), Some(&ours), Some(&theirs)]), Trouble::Record);
        assert_eq!(trouble([Some(&a), Some("[]"), Some("x: [")]), Trouble::Record);
    }

    #[test]
    fn folders_are_merged_by_their_manifests() {
        let [a, b, c] = ['1', '2', '3'].map(|digit| folder_text(digit, ""));
        let digits = |becomes: &Becomes| match becomes {
            Becomes::Folder { base, ours, theirs } => [base, ours, theirs].map(|id| id.digest[0]),
            other @ Becomes::Recorded(_) => panic!("{other:?}"),
        };
        let (side, changes) = carried(&a, &b, &c);
        assert_eq!((side, digits(&changes[0].1)), (Side::Theirs, [0x11, 0x22, 0x33]));
        let described = folder_text('2', "  desc: words\n");
        let (side, changes) = carried(&a, &described, &c);
        assert_eq!((side, digits(&changes[0].1)), (Side::Ours, [0x11, 0x22, 0x33]));
        let (side, changes) = carried(&a, &b, &folder_text('3', "  desc: words\n"));
        assert_eq!((side, digits(&changes[0].1)), (Side::Theirs, [0x11, 0x22, 0x33]));
        assert_eq!(merged(&a, &b, &text('3', "")), Merged::Conflict(Trouble::Content));
        let legacy = |text: &str| text.replace("  hash: md5\n", "");
        let trouble = merged(&legacy(&a), &legacy(&b), &legacy(&c));
        assert_eq!(trouble, Merged::Conflict(Trouble::Legacy));
    }

    #[test]
    fn outputs_of_one_file_are_merged_one_by_one() {
        let file = |digit: u8| {
            Becomes::Recorded(Recorded::File {
                digest: [digit * 17; 16],
                size: digit.into(),
                is_exec: false,
            })
        };
        let (side, changes) = carried(&two('1', '1'), &two('2', '1'), &two('1', '3'));
        assert_eq!((side, changes), (Side::Theirs, vec![("x".to_owned(), file(2))]));
        let (side, changes) = carried(&two('1', '1'), &two('2', '4'), &two('2', '1'));
        assert_eq!((side, changes), (Side::Theirs, vec![("y".to_owned(), file(4))]));
        let removed = merged(&two('1', '1'), &two('1', '4'), &text('3', ""));
        assert_eq!(removed, Merged::Conflict(Trouble::RemovedByThem));
        let (side, changes) = carried(&two('1', '1'), &two('4', '1'), &text('1', ""));
        assert_eq!((side, changes), (Side::Theirs, vec![("x".to_owned(), file(4))]));
    }
}
