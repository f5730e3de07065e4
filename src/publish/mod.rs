//! From an overlay outward: what it changes, and where each change is to be recorded.
//!
//! | file | is about |
//! |---|---|
//! | `changes` | the paths that an overlay changes of the tree below it |
//! | `outbox` | where blobs wait until a remote has them |
//! | `snapshot` | from an overlay to the tree of a commit, and on above that |
//! | `route` | where a change goes: git, a `.dvc` file, a manifest |

mod changes;
mod outbox;
mod route;
mod snapshot;

pub use self::{
    changes::{Change, Changes, ChangesError, Happened, New, changes},
    outbox::Outbox,
    route::{Route, Rules, is_small_text},
    snapshot::{Ground, Keeping, Mark, Prepared, SnapshotError, prepare, resume, settle},
};
