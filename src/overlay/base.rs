//! The note of what lies below an overlay.

use std::{collections::BTreeMap, fs, io, path::Path};

use serde::{Deserialize, Serialize};

use super::{Overlay, OverlayError};
use crate::atomic;

/// Its name in the overlay's folder.
const FILE: &str = "base.json";

/// Whether a folder is that of an overlay which was mounted before.
pub(super) fn is_noted(dir: &Path) -> bool {
    dir.join(FILE).exists()
}

/// What lies below an overlay. It never moves by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The repository's path or URL, without passwords.
    pub repository: String,
    /// The commit whose tree is below, in hex.
    pub commit: String,
    /// The branch that snapshots are meant for.
    pub branch: Option<String>,
    /// The commit above which the first snapshot was made that is not pushed; nothing if all are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// The newest commit below that a branch had when it was last looked at, by the branch's ref.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub seen: BTreeMap<String, String>,
}

impl Base {
    /// What lies below the overlay in a folder, whether somebody has it open or not; nothing if it
    /// is new, or gone.
    pub fn of(dir: &Path) -> Result<Option<Self>, OverlayError> {
        let text = match fs::read(dir.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(OverlayError::unusable(dir, "read the base of"))?,
        };
        let base = serde_json::from_slice(&text);
        base.map(Some).map_err(|error| OverlayError::Damaged {
            dir: dir.to_owned(),
            reason: error.to_string(),
        })
    }
}

impl Overlay {
    /// What lies below; nothing in a new overlay.
    pub fn base(&self) -> Result<Option<Base>, OverlayError> {
        Base::of(&self.dir)
    }

    /// Notes what lies below from now on; synced when this returns.
    pub fn set_base(&self, base: &Base) -> Result<(), OverlayError> {
        let text = serde_json::to_vec_pretty(base).unwrap_or_default();
        atomic::write(&self.dir.join(FILE), &text, 0o600)
            .map_err(OverlayError::unusable(&self.dir, "note the base of"))
    }
}
