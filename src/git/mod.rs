//! Git: where a registry lies, what its revisions are, and the objects of its commits.
//!
//! A [`Location`] is what the user typed. A path is opened where it lies ([`Repository::open`]); a
//! URL is mirrored once, bare, in the state directory ([`Mirror`]) and fetched incrementally. Both
//! give a [`Repository`], which resolves revisions and reads objects.
//!
//! Two rules keep untrusted repositories harmless. Objects and refs are read by libgit2, which runs
//! no program; the user's own `git` is run for transport, inside our mirrors, and to make and push
//! commits, which may be in a repository that the user owns; never in one that somebody else owns. So neither hooks nor `core.fsmonitor`,
//! `core.worktree` or any other setting of such a repository has an effect. What is left: its
//! `objects/info/alternates` and its configuration's includes may name other files that the user
//! can read, which then count as this repository's objects or settings, seen by the user alone.
//!
//! Everything here blocks; callers keep it off the async runtime.
//!
//! # Layout of a mirror
//!
//! `<state>/mirrors/<name>-<hash>/` is a bare repository, `<name>-<hash>.lock` beside it is held
//! while it is created or fetched into, `<name>-<hash>.new/` is a first fetch that has not ended.
//! `remote.origin.url` inside says what is mirrored, `remote.origin.fetch` where git notes a branch that
//! it has pushed.
//!
//! | upstream | mirror |
//! |---|---|
//! | `refs/heads/*` | `refs/remotes/origin/*` |
//! | `refs/tags/*` | `refs/upstream/tags/*`, moved and deleted with those of the upstream |
//! | `HEAD` | `HEAD`, a symbolic ref to the default branch |
//! | nothing | `refs/dvcfs/*`: ours, which no fetch touches or prunes |
//!
//! `refs/dvcfs/keep/<keeper>/<commit>`, in a mirror or in a repository that was opened by its path,
//! keeps a commit that is mounted; `<state>/keepers/<keeper>` is locked as long as it is needed.
//!
//! A mirror never collects garbage by itself: commits that were rewritten away upstream stay.

mod changes;
mod commit;
mod date;
mod edit;
mod error;
mod id;
mod keeper;
mod leftovers;
mod listing;
mod location;
mod lookup;
mod merge;
mod mirror;
mod place;
mod process;
mod push;
mod refs;
mod repository;
mod resolve;
mod revision;
mod summary;
mod transport;

#[cfg(test)]
pub(crate) mod fixture;

pub use changes::{Change, Changes};
pub use edit::{Edit, Edits};
pub use error::GitError;
pub use id::{CommitId, GitId, GitTreeId};
pub use keeper::Keeper;
pub use listing::{Entry, EntryKind, Listing, Refusal, RefusedEntry};
pub use location::{Location, Url};
pub use mirror::Mirror;
pub use push::{Pushed, is_branch_name};
pub use refs::{Refs, RefusedRef};
pub use repository::{CommitInfo, Repository};
pub use resolve::{Resolved, RevisionKind};
pub use summary::CommitSummary;
pub use transport::{Progress, TransportOptions};
