//! Merging two changes of one `.dvc` file.
//!
//! Of an output that both sides changed, only the files of a folder can be merged, and only if one
//! side did nothing to the record but give the folder new content.

use crate::dvc::document::{self, Map, Value};
use crate::dvc::dotfile;
use crate::dvc::output::Content;
use crate::id::TreeId;
use crate::path::RepoPath;

/// What a `.dvc` file becomes that may have changed on two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merged {
    /// As it is on our side, which may be gone.
    Ours,
    /// As it is on their side, which may be gone.
    Theirs,
    /// As on their side, but with a folder whose manifest is the merge of these three.
    Folder {
        /// The manifest that both sides started from.
        base: TreeId,
        /// Ours.
        ours: TreeId,
        /// Theirs.
        theirs: TreeId,
    },
    /// Both sides changed it, and nothing tells which is right.
    Conflict,
}

/// Merges three versions of a `.dvc` file, each nothing where there is no such file.
pub fn merge(base: Option<&[u8]>, ours: Option<&[u8]>, theirs: Option<&[u8]>) -> Merged {
    if ours == theirs || ours == base {
        return Merged::Theirs;
    }
    if theirs == base {
        return Merged::Ours;
    }
    let (Some(base), Some(ours), Some(theirs)) = (base, ours, theirs) else {
        return Merged::Conflict;
    };
    match [base, ours, theirs].map(folder) {
        [Some(base_id), Some(ours_id), Some(theirs_id)]
            if is_same_but_content(base, ours)
                && [ours_id, theirs_id].map(|id| id.scheme) == [base_id.scheme; 2] =>
        {
            Merged::Folder { base: base_id, ours: ours_id, theirs: theirs_id }
        }
        _ => Merged::Conflict,
    }
}

/// The manifest of the one output of a file, if that is a folder with a manifest.
fn folder(text: &[u8]) -> Option<TreeId> {
    // Where the file lies does not matter for what it holds.
    let root = RepoPath::root();
    let mut parsed = dotfile::parse(text, &root, &root).ok()?;
    let output = parsed.outputs.pop().filter(|output| !output.is_versioned)?;
    match output.content {
        Content::Tree(id) if parsed.outputs.is_empty() && parsed.bad.is_empty() => Some(id),
        _ => None,
    }
}

/// Whether two versions differ in nothing but the content of the output.
fn is_same_but_content(a: &[u8], b: &[u8]) -> bool {
    let rest = |text: &[u8]| {
        let mut document = document::parse(str::from_utf8(text).ok()?).ok()?;
        let output = document.as_map_mut()?.get_mut("outs")?.as_list_mut()?.iter_mut().next()?;
        output.as_map_mut().map(remove_content)?;
        Some(document.plain())
    };
    let (a, b): (Option<Value>, Option<Value>) = (rest(a), rest(b));
    a.is_some() && a == b
}

fn remove_content(output: &mut Map) {
    for key in ["md5", "size", "nfiles"] {
        output.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(digit: char, rest: &str) -> Vec<u8> {
        let md5: String = std::iter::repeat_n(digit, 32).collect();
        format!("outs:\n- md5: '{md5}'\n  size: {digit}\n  hash: md5\n  path: x\n{rest}")
            .into_bytes()
    }

    fn folder_text(digit: char, rest: &str) -> Vec<u8> {
        let text = String::from_utf8(text(digit, rest)).unwrap();
        text.replace("'\n", ".dir'\n  nfiles: 1\n").into_bytes()
    }

    fn merged(base: &[u8], ours: &[u8], theirs: &[u8]) -> Merged {
        merge(Some(base), Some(ours), Some(theirs))
    }

    #[test]
    fn a_change_of_one_side_counts() {
        let (a, b) = (text('1', ""), text('2', ""));
        assert_eq!(merged(&a, &b, &a), Merged::Ours);
        assert_eq!(merged(&a, &a, &b), Merged::Theirs);
        assert_eq!(merged(&a, &b, &b), Merged::Theirs);
        assert_eq!(merge(None, Some(&a), None), Merged::Ours);
        assert_eq!(merge(Some(&a), None, Some(&a)), Merged::Ours);
        assert_eq!(merge(Some(&a), Some(&a), None), Merged::Theirs);
    }

    #[test]
    fn changes_of_both_sides_are_a_conflict() {
        let (a, b, c) = (text('1', ""), text('2', ""), text('3', ""));
        assert_eq!(merged(&a, &b, &c), Merged::Conflict);
        assert_eq!(merge(None, Some(&a), Some(&b)), Merged::Conflict);
        assert_eq!(merge(Some(&a), Some(&b), None), Merged::Conflict);
        assert_eq!(merge(Some(&a), None, Some(&b)), Merged::Conflict);
    }

    #[test]
    fn folders_are_merged_by_their_manifests() {
        let [a, b, c] = ['1', '2', '3'].map(|digit| folder_text(digit, ""));
        let Merged::Folder { base, ours, theirs } = merged(&a, &b, &c) else { panic!("conflict") };
        assert_eq!([base, ours, theirs].map(|id| id.digest[0]), [0x11, 0x22, 0x33]);
        let described = folder_text('2', "  desc: ours\n");
        assert_eq!(merged(&a, &described, &c), Merged::Conflict);
        assert!(matches!(merged(&a, &b, &described), Merged::Folder { .. }));
        assert_eq!(merged(&a, &b, &text('3', "")), Merged::Conflict);
    }
}
