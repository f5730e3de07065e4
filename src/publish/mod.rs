//! From an overlay outward: what it changes, and where each change is to be recorded.
//!
//! | file | is about |
//! |---|---|
//! | `changes` | the paths that an overlay changes of the tree below it |
//! | `merge` | two commits that parted, path by path |
//! | `outbox` | where blobs wait until a remote has them |
//! | `rebase` | another commit below an overlay |
//! | `push` | what remotes lack of some commits, and sending it there |
//! | `snapshot` | from an overlay to the tree of a commit, and on above that |
//! | `route` | where a change goes: git, a `.dvc` file, a manifest |

mod changes;
mod merge;
mod outbox;
mod push;
mod rebase;
mod route;
mod snapshot;

pub use self::{
    changes::{Change, Changes, ChangesError, Happened, New, changes},
    merge::{
        Conflict, MergeError, MergeGround, Merged, MergedTree, Tracked, Why, merge, merge_message,
    },
    outbox::{Holder, Outbox},
    push::{Hears, Lacking, Object, Plan, PushError, PushGround, plan, send},
    rebase::{Rebase, RebaseError},
    route::{KeptOut, Route, Rules},
    snapshot::{
        Ground, Keeping, Left, Mark, Prepared, Routed, SnapshotError, prepare, resume, routed,
        settle,
    },
};
