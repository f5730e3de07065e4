//! From an overlay outward: what it changes, and where each change is to be recorded.
//!
//! | file | is about |
//! |---|---|
//! | `changes` | the paths that an overlay changes of the tree below it |
//! | `route` | where a change goes: git, a `.dvc` file, a manifest |

mod changes;
mod route;

pub use self::{
    changes::{Change, Changes, ChangesError, Happened, New, changes},
    route::{Route, Rules, is_small_text},
};
