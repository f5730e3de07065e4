//! Listing a bucket.

use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;

use super::{S3Remote, errors::Failure};
use crate::{
    id::Key,
    remote::{Cause, Page, Prefix, RemoteError, list_action},
};

impl S3Remote {
    /// One page, by one request.
    pub(super) async fn ask_page(
        &self,
        prefix: Prefix,
        after: Option<&str>,
    ) -> Result<Page, RemoteError> {
        let action = list_action(prefix);
        let (start, after) = (self.full_name(&prefix.path()), after.map(|it| self.full_name(it)));
        let output = self.send(&action, |client| {
            client
                .list_objects_v2()
                .bucket(&self.0.settings.bucket)
                .prefix(&start)
                .set_start_after(after.clone())
                .send()
        });
        match output.await? {
            Ok(output) => self.page(prefix, after.as_deref(), &output),
            Err(error) => {
                let mut failure = Failure::new(&error);
                if failure.status == Some(200) {
                    // What came is no listing, or not all of one.
                    failure.cause = Cause::Unreachable;
                    failure.hint = Some("a proxy or a login page may lie in between");
                }
                Err(self.failed(&action, failure))
            }
        }
    }

    fn page(
        &self,
        prefix: Prefix,
        after: Option<&str>,
        output: &ListObjectsV2Output,
    ) -> Result<Page, RemoteError> {
        let rows = output.contents();
        let names = || rows.iter().filter_map(|row| row.key());
        // A server that does not know `start-after` would give the same page for ever.
        if names().next().is_some_and(|first| after.is_some_and(|after| first <= after)) {
            let reason = "the server begins every listing at its first object";
            return Err(self.error(Cause::Unsupported, &list_action(prefix), reason));
        }
        let root = self.full_name("");
        let sized = rows.iter().filter_map(|row| {
            let key = Key::from_path(row.key()?.strip_prefix(&root)?)?;
            Some((key, u64::try_from(row.size()?).ok()?))
        });
        let objects = sized.filter(|(key, _)| prefix.contains(key)).collect();
        let last = names().next_back().and_then(|last| last.strip_prefix(&root));
        let goes_on = output.is_truncated() == Some(true);
        let next = last.filter(|last| goes_on && !prefix.is_past(last)).map(Into::into);
        Ok(Page { objects, next })
    }
}
