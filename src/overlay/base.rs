//! The note of what lies below an overlay.

use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::{Overlay, OverlayError};
use crate::atomic;

/// What lies below an overlay. It never moves by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The repository's path or URL, without passwords.
    pub repository: String,
    /// The commit whose tree is below, in hex.
    pub commit: String,
    /// The branch that snapshots are meant for.
    pub branch: Option<String>,
}

impl Overlay {
    /// What lies below; nothing in a new overlay.
    pub fn base(&self) -> Result<Option<Base>, OverlayError> {
        let text = match fs::read(self.base_file()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(OverlayError::unusable(&self.dir, "read the base of"))?,
        };
        let base = serde_json::from_slice(&text);
        base.map(Some).map_err(|error| OverlayError::Damaged {
            dir: self.dir.clone(),
            reason: error.to_string(),
        })
    }

    /// Notes what lies below from now on; synced when this returns.
    pub fn set_base(&self, base: &Base) -> Result<(), OverlayError> {
        let text = serde_json::to_vec_pretty(base).unwrap_or_default();
        atomic::write(&self.base_file(), &text, 0o600)
            .map_err(OverlayError::unusable(&self.dir, "note the base of"))
    }

    fn base_file(&self) -> std::path::PathBuf {
        self.dir.join("base.json")
    }
}
