//! Git: where a registry lies, what its revisions are, and the objects of its commits.
//!
//! Everything here blocks; callers keep it off the async runtime.

mod date;
mod error;
mod id;
mod listing;
mod location;
mod revision;

pub use error::GitError;
pub use id::{CommitId, GitId, GitTreeId};
pub use listing::{Entry, EntryKind, Listing, Refusal, RefusedEntry};
pub use location::{Location, Url};
