//! Sizes in bulk, by as few requests as will do.
//!
//! A store is asked object by object, 64 at once, or listed, a thousand objects a page. From an
//! estimate of how many objects it has ([`survey`]) follows which of the wanted ones a page would
//! cover; those that lie close enough together are listed, the others asked for one by one. So a
//! small store is listed, and a few objects in a huge one are asked for. Where folder after folder
//! is asked for, the store is listed as a whole once the questions cost as much.
//!
//! Whatever a page tells is kept, also of objects that nobody wanted yet.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use super::{BlobError, Blobs, Sources, is_empty, target::Context};
use crate::{
    cache::Lookup,
    id::{Key, Scheme},
    remote::{Cause, Page, Prefix, Remote, RemoteError, size_action},
    sizes::Scope,
};
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;

mod survey;

pub(super) use survey::Surveys;
use survey::{Survey, are_worth_a_list, borders, estimate, is_worth_a_page, runs};

/// Requests at once. As many questions take one round trip, so a listing would save nothing.
const AT_ONCE: usize = 64;

/// Sizes kept of objects that nobody asked for, in one go.
const ASIDE: usize = 1 << 20;

/// From so many questions on, a store is surveyed also for a few objects.
const MANY: usize = 256;

/// Pages for one run of objects: more mean that hashes are not spread as they should be.
const PAGES: usize = 8;

/// Called whenever some sizes were learnt.
pub type Learnt<'a> = &'a (dyn Fn() + Sync);

impl Blobs {
    /// Learns the sizes of many objects; the index knows them afterwards, and `learnt` is called
    /// whenever it knows more. Gives the objects that are missing or refused; a failure that is not
    /// about single objects ends it.
    pub async fn resolve_sizes(
        &self,
        keys: &[Key],
        sources: &Sources,
        learnt: Learnt<'_>,
    ) -> Result<Vec<Unsized>, BlobError> {
        let mut failed = Vec::new();
        let Some(scope) = sources.scope() else { return Ok(failed) };
        let mut wanted = self.unknown(keys, scope).await;
        learnt();
        for (remote, is_last) in sources.iter().zip(1..).map(|(it, n)| (it, n == sources.len())) {
            let of_scheme = |scheme| {
                let (context, surveys) = (&*self.context, &*self.surveys);
                let (remote, found) = (&**remote, Found::index(scope));
                Bulk { context, surveys, remote, scheme, learnt, found }
            };
            let (new, old) = wanted.into_iter().partition(|key| key.scheme == Scheme::Md5);
            let mut left = of_scheme(Scheme::Md5).learn(new).await?;
            left.extend(of_scheme(Scheme::Dos2Unix).learn(old).await?);
            // What one remote lacks the next may have.
            let is_final = |it: &Unsized| is_last || it.cause != Cause::Missing;
            let (ended, missing): (Vec<_>, Vec<_>) = left.into_iter().partition(is_final);
            failed.extend(ended);
            wanted = missing.into_iter().map(|it| it.key).collect();
        }
        Ok(failed)
    }

    /// The sizes in bytes of those objects that a remote has now, whatever was known before. Those
    /// that it refuses to tell of are left out, unless it refuses everything.
    pub async fn present(
        &self,
        keys: &[Key],
        remote: &dyn Remote,
    ) -> Result<HashMap<Key, u64>, BlobError> {
        let mut present = HashMap::new();
        for scheme in [Scheme::Md5, Scheme::Dos2Unix] {
            let wanted: Vec<_> = keys.iter().copied().filter(|key| key.scheme == scheme).collect();
            let (context, surveys) = (&*self.context, &*self.surveys);
            let found = Found::Aside(Mutex::new(HashMap::with_capacity(wanted.len())));
            let bulk = Bulk { context, surveys, remote, scheme, learnt: &|| (), found };
            bulk.learn(wanted).await?;
            present.extend(bulk.found.aside());
        }
        Ok(present)
    }

    /// Those objects, each once, of which neither index nor cache knows the size, and whose download
    /// does not tell it either.
    async fn unknown(&self, keys: &[Key], scope: Scope) -> Vec<Key> {
        let mut seen = HashSet::new();
        let is_asked = |key: &&Key| {
            !is_empty(key)
                && seen.insert(**key)
                && self.context.sizes.get(key, scope).is_none()
                && self.flights.find(&(**key, Some(scope))).is_none_or(|fetch| fetch.has_failed())
        };
        let keys: Vec<Key> = keys.iter().filter(is_asked).copied().collect();
        let context = Arc::clone(&self.context);
        let look = move || {
            let sized = |key: &Key| match context.cache.open_blob(key, None) {
                Lookup::Hit(blob) => {
                    context.sizes.record_verified(key, scope, blob.size());
                    true
                }
                Lookup::NeedsCheck(_) | Lookup::Miss => false,
            };
            keys.into_iter().filter(|key| !sized(key)).collect()
        };
        self.context.runtime.spawn_blocking(look).await.unwrap_or_default()
    }
}

/// One remote being asked for the sizes of many objects of one layout.
struct Bulk<'a> {
    context: &'a Context,
    surveys: &'a Surveys,
    remote: &'a dyn Remote,
    scheme: Scheme,
    learnt: Learnt<'a>,
    found: Found,
}

/// Where sizes go that were learnt.
enum Found {
    /// Into the index, as claims of this scope.
    Index {
        scope: Scope,
        /// How many were kept that nobody asked for.
        unasked: AtomicUsize,
    },
    /// Nowhere else.
    Aside(Mutex<HashMap<Key, u64>>),
}

impl Found {
    const fn index(scope: Scope) -> Self {
        Self::Index { scope, unasked: AtomicUsize::new(0) }
    }

    fn aside(self) -> HashMap<Key, u64> {
        match self {
            Self::Index { .. } => HashMap::new(),
            Self::Aside(sizes) => sizes.into_inner(),
        }
    }
}

/// An object whose size could not be learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsized {
    /// The object.
    pub key: Key,
    /// [`Cause::Missing`] or [`Cause::Denied`].
    pub cause: Cause,
}

impl Unsized {
    const fn missing(key: Key) -> Self {
        Self { key, cause: Cause::Missing }
    }

    /// The same as an error of the first of its remotes.
    pub fn error(&self, sources: &Sources) -> BlobError {
        let reason = match self.cause {
            Cause::Denied => "the remote refuses to tell its size",
            _ => "there is no such object",
        };
        let url = sources.first().map_or("nowhere", |remote| remote.url());
        let action = size_action(self.key);
        BlobError::from_remote(self.key, RemoteError::new(self.cause, action, url, reason))
    }
}

/// One thing to do.
enum Job {
    /// Ask for one object.
    Ask(Key),
    /// List from the first of these, which are sorted, to the last.
    List(Vec<Key>),
}

/// What came of a job.
#[derive(Default)]
struct Outcome {
    failed: Vec<Unsized>,
    /// These are still to be asked for.
    unanswered: Vec<Key>,
    error: Option<BlobError>,
}

impl Bulk<'_> {
    /// Learns what it can; gives the rest.
    async fn learn(&self, wanted: Vec<Key>) -> Result<Vec<Unsized>, BlobError> {
        let url = self.remote.url();
        let before = self.surveys.questions(url, self.scheme);
        let are_few = wanted.len() <= AT_ONCE && before + wanted.len() < MANY;
        if are_few || !self.remote.lists_cheaply() {
            self.surveys.count(url, self.scheme, wanted.len());
            return self.run(wanted.into_iter().map(Job::Ask).collect()).await;
        }
        let mut sorted = wanted.clone();
        sorted.sort_unstable();
        let (objects, mut failed) = self.survey(&mut sorted).await;
        (self.learnt)();
        let (listed, asked): (Vec<_>, Vec<_>) =
            runs(&sorted, objects).into_iter().partition(|run| is_worth_a_page(run));
        let questions = asked.iter().map(|run| run.len()).sum();
        if questions > 0 && are_worth_a_list(before + questions, objects) && objects <= ASIDE as f64
        {
            self.list_all(objects).await;
            let unknown = sorted.into_iter().filter(|key| !self.is_known(key));
            failed.extend(self.run(unknown.map(Job::Ask).collect()).await?);
            return Ok(failed);
        }
        self.surveys.count(url, self.scheme, questions);
        let mut jobs: Vec<_> = listed.into_iter().map(|run| Job::List(run.to_vec())).collect();
        // In the order of the folder, which is how programs go through it.
        let asked: HashSet<Key> = asked.concat().into_iter().collect();
        jobs.extend(wanted.into_iter().filter(|key| asked.contains(key)).map(Job::Ask));
        failed.extend(self.run(jobs).await?);
        Ok(failed)
    }

    /// How many objects the layout has, as far as listing it would help. Takes those of `wanted`,
    /// which are sorted, that finding it out has answered; gives those of them that are missing.
    async fn survey(&self, wanted: &mut Vec<Key>) -> (f64, Vec<Unsized>) {
        match self.surveys.find(self.remote.url(), self.scheme) {
            Some(Survey::Unlistable) => return (f64::MAX, Vec::new()),
            Some(Survey::Objects(objects)) => return (objects, Vec::new()),
            None => {}
        }
        let Some(first) = wanted.first().copied() else { return (f64::MAX, Vec::new()) };
        let page = self.page(Prefix::whole(self.scheme), &just_before(&first), wanted).await;
        let Ok(page) = page else { return (f64::MAX, Vec::new()) };
        let objects = estimate(&first, &page);
        self.surveys.note(self.remote.url(), self.scheme, Survey::Objects(objects));
        let last = page.objects.last().map(|(key, _)| *key);
        let is_behind = |key: &Key| page.next.is_some() && Some(*key) > last;
        let answered = wanted.partition_point(|key| !is_behind(key));
        (objects, self.without_size(wanted.drain(..answered)))
    }

    /// Does all jobs; gives the objects whose sizes that did not tell.
    async fn run(&self, jobs: Vec<Job>) -> Result<Vec<Unsized>, BlobError> {
        let (mut failed, mut unanswered) = (Vec::new(), Vec::new());
        let mut is_any_answered = false;
        let mut work = stream::iter(jobs).map(|job| self.work(job)).buffer_unordered(AT_ONCE);
        while let Some(outcome) = work.next().await {
            is_any_answered |= outcome.failed.iter().all(|it| it.cause != Cause::Denied);
            failed.extend(outcome.failed);
            unanswered.extend(outcome.unanswered.into_iter().map(Job::Ask));
            match outcome.error {
                // Where nothing may be listed, S3 refuses what is missing. Refusing everything is
                // something else.
                Some(BlobError::Denied(_)) if is_any_answered || failed.len() < AT_ONCE => {}
                Some(error) => return Err(error),
                None => {}
            }
            (self.learnt)();
        }
        drop(work);
        if !unanswered.is_empty() {
            failed.extend(Box::pin(self.run(unanswered)).await?);
        }
        Ok(failed)
    }

    async fn work(&self, job: Job) -> Outcome {
        match job {
            Job::Ask(key) => self.ask(key).await,
            Job::List(run) => self.list(run).await,
        }
    }

    async fn ask(&self, key: Key) -> Outcome {
        self.context.stats.remote_requests.add(1);
        self.context.stats.size_questions.add(1);
        let asked = Instant::now();
        let answer = self.remote.size(key).await;
        self.context.stats.latencies.remote.record(asked.elapsed());
        let error = match answer {
            Ok(bytes) => {
                self.note(key, bytes);
                return Outcome::default();
            }
            Err(error) => error,
        };
        self.context.stats.remote_errors.add(1);
        match error.cause {
            Cause::Missing => Outcome { failed: vec![Unsized::missing(key)], ..Outcome::default() },
            cause => {
                let failed = (cause == Cause::Denied).then_some(Unsized { key, cause });
                let error = Some(BlobError::from_remote(key, error));
                Outcome { failed: failed.into_iter().collect(), error, ..Outcome::default() }
            }
        }
    }

    /// What listing does not answer, questions must.
    async fn list(&self, run: Vec<Key>) -> Outcome {
        let unanswered = |run| Outcome { unanswered: run, ..Outcome::default() };
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return unanswered(run) };
        let (prefix, end) = (Prefix::around(first, last), last.path());
        let mut after = just_before(first);
        for _ in 0..PAGES {
            let Ok(page) = self.page(prefix, &after, &run).await else { return unanswered(run) };
            match page.next {
                Some(next) if next < end => after = next,
                _ => {
                    return Outcome { failed: self.without_size(run), ..Outcome::default() };
                }
            }
        }
        unanswered(run.into_iter().filter(|key| !self.is_known(key)).collect())
    }

    /// Lists all of the layout. What that does not tell is asked for, whatever the reason.
    async fn list_all(&self, objects: f64) {
        let borders = borders(self.scheme, objects);
        let spans = borders.windows(2).map(<[Key]>::to_vec);
        let mut work = stream::iter(spans).map(|span| self.list(span)).buffer_unordered(AT_ONCE);
        while work.next().await.is_some() {
            (self.learnt)();
        }
        self.surveys.settle(self.remote.url(), self.scheme);
    }

    /// Those that were not among all that the remote has.
    fn without_size(&self, keys: impl IntoIterator<Item = Key>) -> Vec<Unsized> {
        keys.into_iter().filter(|key| !self.is_known(key)).map(Unsized::missing).collect()
    }

    /// One page, whose sizes are kept: those of `wanted`, which are sorted, and of others too as
    /// long as these are not too many.
    async fn page(&self, prefix: Prefix, after: &str, wanted: &[Key]) -> Result<Page, RemoteError> {
        self.context.stats.remote_requests.add(1);
        self.context.stats.size_listings.add(1);
        let asked = Instant::now();
        let listed = self.remote.list(prefix, Some(after)).await;
        self.context.stats.latencies.remote.record(asked.elapsed());
        let page = listed.inspect_err(|error| {
            self.context.stats.remote_errors.add(1);
            tracing::debug!(%error, "not listed");
            if error.cause != Cause::Unreachable {
                self.surveys.note(self.remote.url(), self.scheme, Survey::Unlistable);
            }
        })?;
        let objects = page.objects.iter().copied();
        let is_wanted = |(key, _): &(Key, u64)| wanted.binary_search(key).is_ok();
        match &self.found {
            Found::Index { scope, unasked } => {
                let is_all_kept = unasked.fetch_add(page.objects.len(), Ordering::Relaxed) < ASIDE;
                let kept = objects.filter(|object| is_all_kept || is_wanted(object));
                self.context.sizes.record_claims(kept, *scope);
            }
            Found::Aside(sizes) => sizes.lock().extend(objects.filter(is_wanted)),
        }
        Ok(page)
    }

    fn note(&self, key: Key, bytes: u64) {
        match &self.found {
            // Whoever wants this one's size asks once more, and is told.
            Found::Index { .. } if bytes == 0 && !key.is_of_nothing() => {
                drop(self.context.empty(key, self.remote.url()));
            }
            Found::Index { scope, .. } => self.context.sizes.record_claim(&key, *scope, bytes),
            Found::Aside(sizes) => _ = sizes.lock().insert(key, bytes),
        }
    }

    fn is_known(&self, key: &Key) -> bool {
        match &self.found {
            Found::Index { scope, .. } => self.context.sizes.get(key, *scope).is_some(),
            Found::Aside(sizes) => sizes.lock().contains_key(key),
        }
    }
}

/// A name that comes right before an object's, and behind those of all objects before it but a few.
fn just_before(key: &Key) -> String {
    let mut name = key.path();
    // The suffix of a manifest, or the last digit.
    name.truncate(if key.is_manifest { name.len() - ".dir".len() } else { name.len() - 1 });
    name
}

#[cfg(test)]
mod tests;
