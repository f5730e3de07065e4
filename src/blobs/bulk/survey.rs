//! How large a store is, worked out from one page of it, and what follows for asking.
//!
//! Hashes are spread evenly, so the share of all hashes that a page of objects spans tells how many
//! objects there are. A page that begins at an object whose size is wanted costs nothing: it takes
//! the place of the question for that one.

use std::{
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use lru::LruCache;
use parking_lot::Mutex;

use crate::{
    id::{Key, Scheme},
    remote::{PAGE, Page},
};

/// How long an estimate is believed.
const FRESH: Duration = Duration::from_mins(10);

/// How long a remote that refused to list is not asked to again.
const REFUSED: Duration = Duration::from_hours(1);

/// Stores that are remembered.
const STORES: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// How many questions a page costs: it takes longer to make and to send.
const PRICE: usize = 4;

/// How much of a page is counted on, since hashes are only evenly spread on the whole.
const COUNTED_ON: f64 = 0.9;

/// What is known of one layout of one remote.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Survey {
    /// About so many objects.
    Objects(f64),
    /// It cannot be listed.
    Unlistable,
}

/// What was found out of stores lately, and how much they were asked.
#[derive(Debug)]
pub(in crate::blobs) struct Surveys(Mutex<LruCache<Name, Store>>);

type Name = (String, Scheme);

#[derive(Debug, Default)]
struct Store {
    survey: Option<(Instant, Survey)>,
    /// Questions for single objects, since all of it was listed.
    questions: usize,
}

impl Default for Surveys {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(STORES)))
    }
}

impl Surveys {
    /// The survey of a remote's layout, if there was one lately.
    pub(super) fn find(&self, url: &str, scheme: Scheme) -> Option<Survey> {
        let mut stores = self.0.lock();
        let (since, survey) = stores.get(&(url.to_owned(), scheme))?.survey?;
        let lasts = match survey {
            Survey::Objects(_) => FRESH,
            Survey::Unlistable => REFUSED,
        };
        (since.elapsed() < lasts).then_some(survey)
    }

    /// Remembers one.
    pub(super) fn note(&self, url: &str, scheme: Scheme, survey: Survey) {
        self.with(url, scheme, |store| store.survey = Some((Instant::now(), survey)));
    }

    /// How many questions there were for single objects.
    pub(super) fn questions(&self, url: &str, scheme: Scheme) -> usize {
        self.with(url, scheme, |store| store.questions)
    }

    /// Counts more of them.
    pub(super) fn count(&self, url: &str, scheme: Scheme, questions: usize) {
        self.with(url, scheme, |store| store.questions = store.questions.saturating_add(questions));
    }

    /// Begins to count anew, since all of the store is known.
    pub(super) fn settle(&self, url: &str, scheme: Scheme) {
        self.with(url, scheme, |store| store.questions = 0);
    }

    fn with<T>(&self, url: &str, scheme: Scheme, work: impl FnOnce(&mut Store) -> T) -> T {
        let mut stores = self.0.lock();
        work(stores.get_or_insert_mut((url.to_owned(), scheme), Store::default))
    }
}

/// How many objects there are, if a page that begins at `first` looks like this one.
pub(super) fn estimate(first: &Key, page: &Page) -> f64 {
    let end = match (&page.next, page.objects.last()) {
        (None, _) => 1.0,
        (Some(_), Some((last, _))) => place(last),
        // Nothing but strangers: that much is not worth listing.
        (Some(_), None) => return f64::MAX,
    };
    let span = (end - place(first)).max(f64::EPSILON);
    page.objects.len() as f64 / span
}

/// Splits keys, which are sorted, into runs that one page should cover each.
pub(super) fn runs(keys: &[Key], objects: f64) -> Vec<&[Key]> {
    let span = PAGE as f64 * COUNTED_ON / objects.max(1.0);
    let mut runs = Vec::new();
    let mut rest = keys;
    while let Some(first) = rest.first() {
        let end = place(first) + span;
        let length = rest.partition_point(|key| place(key) <= end).max(1);
        let (run, after) = rest.split_at(length);
        runs.push(run);
        rest = after;
    }
    runs
}

/// Whether a page for all of these is cheaper than a question for each.
pub(super) const fn is_worth_a_page(run: &[Key]) -> bool {
    run.len() > PRICE
}

/// Whether so many questions cost more than a list of all objects.
pub(super) fn are_worth_a_list(questions: usize, objects: f64) -> bool {
    questions as f64 > objects / PAGE as f64 * PRICE as f64
}

/// Names from the first to the last of a layout, so that a page should cover what lies between two
/// that follow each other.
pub(super) fn borders(scheme: Scheme, objects: f64) -> Vec<Key> {
    let pages = (objects / (PAGE as f64 * COUNTED_ON)).ceil().max(1.0);
    let border = |n: u64| {
        let mut digest = [0; 16];
        let place = (n as f64 / pages * 2_f64.powi(64)) as u64;
        digest[..8].copy_from_slice(&place.to_be_bytes());
        Key { digest, scheme, is_manifest: false }
    };
    (0..=pages as u64).map(border).collect()
}

/// Where among all hashes a key is, from 0 to 1.
fn place(key: &Key) -> f64 {
    let (bits, _) = key.digest.as_chunks();
    u64::from_be_bytes(bits[0]) as f64 / 2_f64.powi(64)
}

#[cfg(test)]
mod tests {
    use md5::{Digest as _, Md5};

    use super::*;

    fn keys(count: u32) -> Vec<Key> {
        let key = |n: u32| Key {
            digest: Md5::digest(n.to_be_bytes()).into(),
            scheme: Scheme::Md5,
            is_manifest: false,
        };
        let mut keys: Vec<_> = (0..count).map(key).collect();
        keys.sort_unstable();
        keys
    }

    fn page(keys: &[Key], start: usize) -> Page {
        let objects: Vec<_> = keys[start..].iter().take(PAGE).map(|key| (*key, 1)).collect();
        let next = (start + PAGE < keys.len()).then(String::new);
        Page { objects, next }
    }

    #[test]
    fn one_page_tells_the_size_of_the_store() {
        for count in [900, 3000, 50_000] {
            let keys = keys(count);
            for start in [0, keys.len() / 3, keys.len() / 2] {
                let estimate = estimate(&keys[start], &page(&keys, start)) / f64::from(count);
                assert!((estimate - 1.0).abs() < 0.2, "{count} from {start}: {estimate}");
            }
        }
        let strangers = Page { objects: Vec::new(), next: Some(String::new()) };
        assert!(runs(&keys(500), estimate(&keys(1)[0], &strangers)).len() == 500);
    }

    #[test]
    fn a_run_is_what_a_page_covers() {
        let keys = keys(20_000);
        // Every tenth of them is wanted.
        let wanted: Vec<_> = keys.iter().copied().step_by(10).collect();
        let runs = runs(&wanted, 20_000.0);
        assert!(runs.concat() == wanted);
        assert!((20..=24).contains(&runs.len()), "{}", runs.len());
        for run in runs {
            let covered = |key| keys.binary_search(key).unwrap();
            assert!(covered(run.last().unwrap()) - covered(&run[0]) < PAGE);
        }
    }

    #[test]
    fn borders_span_all_hashes_in_order() {
        let borders = borders(Scheme::Md5, 90_000.0);
        assert_eq!(borders.len(), 101);
        assert!(borders.is_sorted() && borders[0].digest == [0; 16]);
        assert_eq!(borders[100].digest[..8], [0xff; 8]);
    }

    #[test]
    fn what_is_known_of_a_store_is_known_by_layout() {
        let surveys = Surveys::default();
        surveys.note("s3://one", Scheme::Md5, Survey::Objects(7.0));
        assert_eq!(surveys.find("s3://one", Scheme::Md5), Some(Survey::Objects(7.0)));
        assert_eq!(surveys.find("s3://one", Scheme::Dos2Unix), None);
        surveys.note("s3://one", Scheme::Md5, Survey::Unlistable);
        assert_eq!(surveys.find("s3://one", Scheme::Md5), Some(Survey::Unlistable));
    }
}
