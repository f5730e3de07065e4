//! One download of one object, shared by all who read it meanwhile.

use std::{
    ops::Range,
    pin::pin,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{sync::Notify, task::JoinSet};

use super::{
    BlobError,
    budget::{Rank, Urgency},
    first,
    memory::Part,
    stream::{Answer, Ask, Pull, Stream},
    target::Target,
    window::Cursor,
};
use crate::cache::{BlockSet, CachedBlob, Partial, Room, blocks_of};

/// How often one download begins anew, because the size was wrong or the disk failed.
const TROUBLES: u8 = 4;

/// How often one read is tried again, because the disk failed or memory let its bytes go.
const READS: u8 = 8;

/// Bytes read at a time where all are wanted.
const WHOLE_STEP: u64 = 1 << 20;

/// How far ahead of itself a download goes that nobody waits for.
const FILL_AHEAD: u64 = 32 << 20;

/// A blob or manifest on its way here.
///
/// When the last holder drops it, the requests of a large blob stop and its partial stays; the
/// first request of a blob, and a small blob, run to their end, so that an open that follows a
/// `stat` finds them.
#[derive(Debug)]
pub struct Fetch {
    pub(super) target: Arc<Target>,
    /// How urgent its first request is, and for whom its bytes are kept.
    pub(super) rank: Rank,
    state: Mutex<State>,
    changed: Notify,
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) phase: Phase,
    /// As the remote, or before it has answered the index, tells it.
    pub(super) size: Option<u64>,
    /// Counts the beginnings, so that what belongs to an earlier one is not taken for this one's.
    pub(super) life: u64,
    /// Whether the cache's disk has failed under it.
    pub(super) is_past_cache: bool,
    /// Blocks that earlier beginnings brought.
    pub(super) came: BlockSet,
    /// How often it began anew because of the size or the disk.
    troubles: u8,
    is_in_flight: bool,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// Looking in the cache, or the first request is under way.
    First,
    /// A large blob, block by block.
    Streaming(Box<Stream>),
    /// Checked and in the cache.
    Cached(Arc<CachedBlob>),
    /// Checked, small, and in memory as long as that lasts.
    Whole,
    Failed(BlobError),
}

/// Where the bytes of a read are.
enum Ready {
    Cached(Arc<CachedBlob>),
    Partial(Arc<Partial>, Range<u64>),
    Bytes(Bytes),
}

impl Fetch {
    pub(super) fn new(target: Target, urgency: Urgency) -> Self {
        Self {
            target: Arc::new(target),
            rank: Rank::new(urgency),
            state: Mutex::new(State {
                phase: Phase::First,
                size: None,
                life: 0,
                is_past_cache: false,
                came: BlockSet::default(),
                troubles: 0,
                is_in_flight: false,
            }),
            changed: Notify::new(),
            tasks: Mutex::default(),
        }
    }

    pub(super) fn past_cache(self) -> Self {
        self.state.lock().is_past_cache = true;
        self
    }

    /// A reader with its own place and read-ahead.
    pub fn reader(self: &Arc<Self>) -> Reader {
        Reader { fetch: self.clone(), cursor: Mutex::default() }
    }

    /// Brings all of it in when nothing more urgent has to be done, and waits until it is checked.
    /// Gives its size, or nothing where the cache does not take it; `progress` is told of bytes as
    /// they come.
    pub(super) async fn fill(
        self: &Arc<Self>,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Option<u64>, BlobError> {
        let (mut at, mut told) = (0_u64, 0);
        loop {
            let size = self.await_size().await?;
            let is_kept = match &self.state.lock().phase {
                Phase::Cached(_) => {
                    progress(size.saturating_sub(told));
                    return Ok(Some(size));
                }
                Phase::Streaming(stream) => stream.is_on_disk(),
                Phase::Whole => false,
                Phase::First | Phase::Failed(_) => true,
            };
            if !is_kept {
                return Ok(None);
            }
            let range = at..at.saturating_add(WHOLE_STEP);
            let plan = at..range.end.saturating_add(FILL_AHEAD);
            self.ready(&Ask { range, plan, urgency: Urgency::Background }).await?;
            at = (at + WHOLE_STEP).min(size.saturating_sub(1));
            progress(at.saturating_sub(told));
            told = told.max(at);
        }
    }

    /// The size of the whole object in bytes, as soon as the first answer tells it.
    pub async fn size(&self) -> Result<u64, BlobError> {
        self.rank.raise(Urgency::Demand);
        let _waiting = self.target.context.budget.wait();
        self.await_size().await
    }

    async fn await_size(&self) -> Result<u64, BlobError> {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let state = self.state.lock();
                match (&state.phase, state.size) {
                    (Phase::Failed(error), _) => return Err(error.clone()),
                    (_, Some(size)) => return Ok(size),
                    _ => {}
                }
            }
            changed.await;
        }
    }

    /// The whole checked file, once it is in the cache; from then on reading needs no runtime.
    pub fn cached(&self) -> Option<Arc<CachedBlob>> {
        match &self.state.lock().phase {
            Phase::Cached(blob) => Some(blob.clone()),
            _ => None,
        }
    }

    /// Whether it is cached and somebody has had to do with that file since.
    pub fn is_spoilt(&self) -> bool {
        self.cached().is_some_and(|blob| !blob.fate().is_right())
    }

    /// The size in bytes, as far as it is known by now.
    pub fn known_size(&self) -> Option<u64> {
        self.state.lock().size
    }

    /// The size, or what is claimed of it before anybody was asked.
    fn likely_size(&self) -> Option<u64> {
        let target = &self.target;
        let claimed = || target.context.sizes.get(&target.key, target.scope());
        self.known_size().or_else(|| Some(claimed()?.bytes))
    }

    /// For whom its bytes are kept.
    pub(super) fn room(&self) -> Room {
        if self.rank.is(Urgency::Demand) { Room::Wanted } else { Room::Spare }
    }

    pub(super) fn has_failed(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Failed(_))
    }

    /// Starts the first request.
    pub(super) fn begin(self: &Arc<Self>) {
        let life = {
            let mut state = self.state.lock();
            if !std::mem::replace(&mut state.is_in_flight, true) {
                self.target.context.stats.in_flight.add(1);
            }
            state.life
        };
        let unended = Unended { fetch: self.clone(), life };
        self.target.context.runtime.spawn(async move {
            if let Err(error) = first::run(&unended.fetch, life).await {
                unended.fetch.fail(life, error);
            }
        });
    }

    /// Begins anew with another size, or without the disk; gives up when that does not end.
    pub(super) fn restart(self: &Arc<Self>, life: u64, size: Option<u64>, is_past_cache: bool) {
        let is_hopeless = {
            let mut state = self.state.lock();
            if state.life != life || matches!(state.phase, Phase::Failed(_)) {
                return;
            }
            state.troubles += u8::from(size.is_some() || is_past_cache);
            let is_hopeless = state.troubles > TROUBLES;
            if !is_hopeless {
                state.life += 1;
                match std::mem::replace(&mut state.phase, Phase::First) {
                    Phase::Streaming(stream) => state.came = stream.into_came(),
                    Phase::Cached(blob) => state.came.insert(blocks_of(0..blob.size())),
                    Phase::First | Phase::Whole | Phase::Failed(_) => {}
                }
                state.size = size;
                state.is_past_cache |= is_past_cache;
            }
            is_hopeless
        };
        if is_hopeless {
            self.fail(life, self.target.unreachable("its size or the disk keeps changing"));
        } else {
            self.begin();
        }
    }

    /// Ends with an error for everybody who reads or will read through this fetch.
    pub(super) fn fail(&self, life: u64, error: BlobError) {
        self.with_life(life, |state| {
            state.phase = Phase::Failed(error);
            self.landed(state);
        });
    }

    /// Ends with checked content.
    pub(super) fn complete(&self, life: u64, phase: Phase, size: u64) {
        self.with_life(life, |state| {
            state.phase = phase;
            state.size = Some(size);
            self.landed(state);
        });
    }

    /// Changes the state and wakes who waits for that, unless it was begun anew since `life`.
    pub(super) fn with_life<T>(
        &self,
        life: u64,
        change: impl FnOnce(&mut State) -> T,
    ) -> Option<T> {
        let result = {
            let mut state = self.state.lock();
            (state.life == life).then(|| change(&mut state))
        };
        self.changed.notify_waiters();
        result
    }

    /// Like [`Self::with_life`] for the stream of a large blob.
    pub(super) fn with_stream<T>(
        &self,
        life: u64,
        change: impl FnOnce(&mut Stream) -> T,
    ) -> Option<T> {
        self.with_life(life, |state| match &mut state.phase {
            Phase::Streaming(stream) => Some(change(stream)),
            _ => None,
        })
        .flatten()
    }

    /// Runs `task` until it ends or the last holder of this fetch drops it.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(task, &self.target.context.runtime);
    }

    async fn ready(self: &Arc<Self>, ask: &Ask) -> Result<Ready, BlobError> {
        let mut failures = None;
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(ready) = self.try_ready(ask, &mut failures) {
                return ready;
            }
            changed.await;
        }
    }

    /// Answers a read or starts what it needs.
    fn try_ready(
        self: &Arc<Self>,
        ask: &Ask,
        failures: &mut Option<u64>,
    ) -> Option<Result<Ready, BlobError>> {
        self.rank.raise(ask.urgency);
        let mut pulls = Vec::new();
        let (life, answer) = {
            let mut state = self.state.lock();
            let answer = match &mut state.phase {
                Phase::Failed(error) => return Some(Err(error.clone())),
                Phase::Cached(blob) => return Some(Ok(Ready::Cached(blob.clone()))),
                Phase::First => return None,
                Phase::Whole => {
                    match self.target.context.memory.get(self.target.owner, Part::Whole) {
                        Some(bytes) => return Some(Ok(Ready::Bytes(cut(&bytes, &ask.range)))),
                        None => Answer::Gone,
                    }
                }
                Phase::Streaming(stream) => stream.answer(&self.target, ask, failures, &mut pulls),
            };
            (state.life, answer)
        };
        for (blocks, rank) in pulls {
            self.spawn(Pull::new(self, life, blocks, rank).run());
        }
        match answer {
            Answer::Wait => None,
            Answer::Gone => {
                self.restart(life, None, false);
                None
            }
            Answer::Partial(partial, range) => Some(Ok(Ready::Partial(partial, range))),
            Answer::Bytes(bytes) => Some(Ok(Ready::Bytes(bytes))),
            Answer::Failed(error) => Some(Err(error)),
        }
    }

    /// Whether a read of `range` need not wait.
    fn has(&self, range: &Range<u64>) -> bool {
        match &self.state.lock().phase {
            Phase::Cached(_) => true,
            Phase::Streaming(stream) => stream.has(range),
            Phase::First | Phase::Whole | Phase::Failed(_) => false,
        }
    }

    fn landed(&self, state: &mut State) {
        if std::mem::take(&mut state.is_in_flight) {
            self.target.context.stats.in_flight.sub(1);
        }
    }

    fn life(&self) -> u64 {
        self.state.lock().life
    }

    async fn read(self: &Arc<Self>, ask: Ask) -> Result<Bytes, BlobError> {
        let range = &ask.range;
        for _ in 0..READS {
            let life = self.life();
            let ready = {
                let _waiting = self.target.context.budget.wait();
                self.ready(&ask).await?
            };
            let read = match ready {
                Ready::Bytes(bytes) => return Ok(bytes),
                Ready::Cached(blob) => {
                    self.read_file(move |range| read_range(&blob, range), range.clone()).await
                }
                Ready::Partial(partial, range) => {
                    let read = move |range: Range<u64>| {
                        let mut buffer = vec![0; (range.end - range.start) as usize];
                        let count = partial.read_at(&mut buffer, range.start).ok()?;
                        (count == buffer.len()).then(|| buffer.into())
                    };
                    self.read_file(read, range).await
                }
            };
            match read {
                Some(bytes) => return Ok(bytes),
                None => self.restart(life, None, true),
            }
        }
        Err(self.target.unreachable("the cache's disk keeps failing"))
    }

    /// Reads from a file off the asynchronous workers; nothing when the disk fails.
    async fn read_file(
        &self,
        read: impl FnOnce(Range<u64>) -> Option<Bytes> + Send + 'static,
        range: Range<u64>,
    ) -> Option<Bytes> {
        self.target.context.runtime.spawn_blocking(move || read(range)).await.ok().flatten()
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.landed(&mut self.state.lock());
    }
}

/// Ends a beginning that did not end by itself, so that nobody waits for ever.
struct Unended {
    fetch: Arc<Fetch>,
    life: u64,
}

impl Drop for Unended {
    fn drop(&mut self) {
        let fetch = &self.fetch;
        let is_waiting = fetch.with_life(self.life, |state| matches!(state.phase, Phase::First));
        if is_waiting == Some(true) {
            fetch.fail(self.life, fetch.target.unreachable("the download ended early"));
        }
    }
}

/// One reader of a [`Fetch`].
#[derive(Debug)]
pub struct Reader {
    fetch: Arc<Fetch>,
    cursor: Mutex<Cursor>,
}

impl Reader {
    /// The fetch that is read.
    pub const fn fetch(&self) -> &Arc<Fetch> {
        &self.fetch
    }

    /// Reads up to `length` bytes from `offset` on; fewer only at the end of the object.
    pub async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, BlobError> {
        self.fetch.read(self.ask(offset..offset.saturating_add(length as u64))).await
    }

    /// Fills `buffer` from `offset` on, where that takes no waiting for a remote; gives how much
    /// there was before the end.
    pub fn read_now(&self, offset: u64, buffer: &mut [u8]) -> Option<usize> {
        let range = offset..offset.saturating_add(buffer.len() as u64);
        if !self.fetch.has(&range) {
            return None;
        }
        match self.fetch.try_ready(&self.ask(range), &mut None)?.ok()? {
            Ready::Cached(blob) => blob.read_at(buffer, offset).ok(),
            Ready::Partial(partial, range) => {
                let wanted = (range.end - range.start) as usize;
                let count = partial.read_at(&mut buffer[..wanted], range.start).ok()?;
                (count == wanted).then_some(count)
            }
            Ready::Bytes(_) => None,
        }
    }

    /// Waits until all of the object is here and checked.
    pub async fn verified(&self) -> Result<(), BlobError> {
        let _waiting = self.fetch.target.context.budget.wait();
        let mut offset = 0;
        while offset < self.fetch.size().await?.max(1) && self.fetch.cached().is_none() {
            let ask = self.ask(offset..offset + WHOLE_STEP);
            self.fetch.ready(&ask).await?;
            offset = ask.range.end;
        }
        Ok(())
    }

    fn ask(&self, range: Range<u64>) -> Ask {
        let (is_here, size) = (self.fetch.has(&range), self.fetch.likely_size());
        let plan = self.cursor.lock().plan(range.clone(), size, is_here);
        Ask { range, plan, urgency: Urgency::Demand }
    }

    /// Reads the object from its beginning, at most `limit` bytes of it.
    pub async fn read_all(&self, limit: u64) -> Result<Bytes, BlobError> {
        let mut all = Vec::new();
        while (all.len() as u64) < limit {
            let step = WHOLE_STEP.min(limit - all.len() as u64) as usize;
            let bytes = self.read_at(all.len() as u64, step).await?;
            if bytes.is_empty() {
                break;
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all.into())
    }
}

/// A weak hold, for tasks that must not keep their fetch alive.
pub(super) type WeakFetch = Weak<Fetch>;

fn cut(bytes: &Bytes, range: &Range<u64>) -> Bytes {
    let end = range.end.min(bytes.len() as u64) as usize;
    bytes.slice((range.start as usize).min(end)..end)
}

/// The bytes of `range` that the file has; nothing when it cannot be read.
pub(super) fn read_range(blob: &CachedBlob, range: Range<u64>) -> Option<Bytes> {
    let end = range.end.min(blob.size());
    let mut buffer = vec![0; end.saturating_sub(range.start) as usize];
    let count = blob.read_at(&mut buffer, range.start).ok()?;
    (count == buffer.len()).then(|| buffer.into())
}
