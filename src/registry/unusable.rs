//! A remote that cannot be used, and says why to whoever asks. So what is in git or cached stays
//! readable whatever the configuration says.

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;

use crate::{
    id::Key,
    remote::{
        Body, Cause, Page, Prefix, Put, Remote, RemoteError, Source, get_action, list_action,
        put_action,
    },
};

#[derive(Debug)]
pub(super) struct UnusableRemote {
    pub(super) url: String,
    pub(super) cause: Cause,
    pub(super) reason: String,
    pub(super) hint: Option<String>,
}

impl UnusableRemote {
    pub(super) fn shared(url: &str, cause: Cause, reason: String) -> Arc<dyn Remote> {
        Arc::new(Self { url: without_user(url), cause, reason, hint: None })
    }

    fn error(&self, action: String) -> RemoteError {
        RemoteError {
            cause: self.cause,
            action,
            url: self.url.clone(),
            reason: self.reason.clone(),
            hint: self.hint.clone(),
            source: None,
        }
    }
}

/// The URL without user, password and query, which may be secret.
pub(super) fn without_user(url: &str) -> String {
    let url = url.split('?').next().unwrap_or_default();
    match url.split_once("://") {
        None => url.to_owned(),
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}{path}")
        }
    }
}

#[async_trait]
impl Remote for UnusableRemote {
    async fn get(&self, key: Key, _range: Option<Range<u64>>) -> Result<Body, RemoteError> {
        Err(self.error(get_action(key)))
    }

    async fn size(&self, key: Key) -> Result<u64, RemoteError> {
        Err(self.error(get_action(key)))
    }

    async fn list(&self, prefix: Prefix, _after: Option<&str>) -> Result<Page, RemoteError> {
        Err(self.error(list_action(prefix)))
    }

    async fn put(&self, key: Key, _source: &Source) -> Result<Put, RemoteError> {
        Err(self.error(put_action(key)))
    }

    fn lists_cheaply(&self) -> bool {
        false
    }

    fn url(&self) -> &str {
        &self.url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_told_without_what_may_be_secret() {
        assert_eq!(without_user("ssh://me:pw@host/a@b"), "ssh://host/a@b");
        assert_eq!(without_user("https://token@host?key=1"), "https://host");
        assert_eq!(without_user("/srv/store"), "/srv/store");
    }
}
