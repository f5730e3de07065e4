//! Where an object is fetched from.

use std::{ops::Deref, sync::Arc};

use crate::{remote::Remote, sizes::Scope};

/// The remotes that may have an object, in the order in which they are asked.
#[derive(Debug, Clone)]
pub struct Sources {
    remotes: Arc<[Arc<dyn Remote>]>,
    /// Worked out once, since a listing asks for it with each of its files.
    scope: Option<Scope>,
}

impl Sources {
    /// The remote that claims of sizes are about: the first.
    pub(super) fn scope(&self) -> Option<Scope> {
        self.scope
    }
}

impl<const N: usize> From<[Arc<dyn Remote>; N]> for Sources {
    fn from(remotes: [Arc<dyn Remote>; N]) -> Self {
        let scope = remotes.first().map(|remote| Scope::of(remote.url()));
        Self { remotes: remotes.into(), scope }
    }
}

impl Deref for Sources {
    type Target = [Arc<dyn Remote>];

    fn deref(&self) -> &Self::Target {
        &self.remotes
    }
}
