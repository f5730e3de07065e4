//! `dvcfs push`: brings a snapshot to the remotes, and to the branch that it is meant for.
//!
//! It is done here and not by the mount, where the user's credentials and terminal are. The mount
//! tells what there is to push.

use std::{
    fs::File,
    io::{self, IsTerminal, Write as _},
    num::NonZeroUsize,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use indicatif::HumanBytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::mpsc;

use super::{
    args::{PushArgs, RepoArgs},
    changes,
    context::Context,
    control::Request,
    counted,
    exit::{Code, Failure, chain},
    mounts::{Record, Records},
    print,
    progress::{Progress, Waiting},
    refresh,
    settings::{Settings, Verbosity},
    snapshot::ref_of_name,
    unpushed,
};
use crate::{
    blobs::Blobs,
    git::{CommitId, Pushed, Repository, TransportOptions},
    overlay::Base,
    path::escape,
    publish::{Hears, Lacking, Outbox, Plan, PushError, PushGround, plan, send},
    registry::Registry,
    remote::{Cause, RemoteError},
    steps,
};

/// What the mount answers by then.
const DEADLINE: Duration = Duration::from_secs(30);

/// What pushing to git may take.
const GIT_DEADLINE: Duration = Duration::from_hours(1);

/// How often somebody else may be faster.
const TRIES: usize = 5;

/// What there is to push, as the mount tells it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Unpushed {
    /// The name of the overlay, as its refs have it.
    pub(super) overlay: String,
    /// The commit that the mount shows.
    pub(super) shown: String,
    /// The newest commit that is not pushed.
    pub(super) commit: Option<String>,
    /// What lies below.
    pub(super) base: Base,
}

pub(super) fn run(settings: Settings, args: &PushArgs) -> Result<ExitCode, Failure> {
    let shown = escape(args.dir.as_os_str().as_encoded_bytes());
    let in_context = |failure: Failure| failure.context(format!("push {shown}"));
    let record = changes::mounted(&settings, &args.dir, "push")?;
    let _turn = turn(&settings, &record).map_err(in_context)?;
    let unpushed = Unpushed::of(&record).map_err(in_context)?;
    let Some(commit) = unpushed.newest() else {
        tell_nothing(args, unpushed.base.branch.as_deref(), settings.verbosity);
        return Ok(ExitCode::SUCCESS);
    };
    let Some(branch) = unpushed.base.branch.clone() else {
        let message =
            format!("push {shown}: the mount is of {}, which is no branch", unpushed.shown);
        let hint = "say where it is to go: dvcfs umount, then mount with --branch NAME as well";
        return Err(Failure::new(Code::Usage, message).hint(hint));
    };
    let context = Context::new(settings)?;
    let repo = RepoArgs {
        repo: record.repository.clone(),
        trust_remote: args.trust_remote,
        remote: args.remote.clone(),
    };
    let pushing = Pushing::new(&context, (&record, &repo), (unpushed, commit, branch));
    let done = pushing.and_then(|mut pushing| pushing.run(args)).map_err(in_context)?;
    done.tell(args, context.settings.verbosity);
    Ok(ExitCode::SUCCESS)
}

/// Keeps other pushes of a mount away, as long as the value lives.
fn turn(settings: &Settings, record: &Record) -> Result<File, Failure> {
    let begun = Records::new(&settings.runtime_dir).begin_push(&record.mount_point);
    let begun = begun.map_err(|error| Failure::new(Code::Failed, error.to_string()))?;
    begun.ok_or_else(|| {
        let failure = Failure::new(Code::Busy, "another push of this mount is under way");
        failure.hint("run it again once that has ended")
    })
}

/// Says that there is nothing to push.
fn tell_nothing(args: &PushArgs, branch: Option<&str>, verbosity: Verbosity) {
    if args.json {
        let done = json!({
            "commit": null,
            "branch": branch,
            "upstream": null,
            "sent": 0,
            "bytes": 0,
            "present": 0,
            "elsewhere": [],
            "merges": null,
            "is_done": !args.dry_run,
        });
        print(&(serde_json::to_string_pretty(&done).unwrap_or_default() + "\n"));
    } else if verbosity > Verbosity::Quiet {
        print("nothing to push: dvcfs snapshot records what was changed\n");
    }
}

impl Unpushed {
    /// Asks a mount.
    fn of(record: &Record) -> Result<Self, Failure> {
        let answer = record.ask(&Request::Unpushed, DEADLINE)?;
        let odd = |error: serde_json::Error| Failure::new(Code::Failed, error.to_string());
        serde_json::from_value(answer).map_err(odd)
    }

    fn newest(&self) -> Option<CommitId> {
        self.commit.as_deref().and_then(CommitId::parse)
    }
}

/// A push under way.
struct Pushing<'a> {
    context: &'a Context,
    record: &'a Record,
    registry: Arc<Registry>,
    blobs: Arc<Blobs>,
    outbox: Outbox,
    overlay: String,
    base: Base,
    commit: CommitId,
    branch: String,
    /// The remote as git calls it, and its URL without password.
    upstream: (String, String),
}

/// Where the branch is upstream.
enum Upstream {
    /// At a commit that ours builds on, or nowhere.
    Fits,
    /// At one that builds on ours.
    HasIt(CommitId),
    /// At one that ours has to be merged with.
    Ahead(CommitId),
}

/// What was done, or would be.
struct Done {
    /// Where the branch is afterwards.
    commit: CommitId,
    branch: String,
    upstream: String,
    sent: usize,
    bytes: u64,
    present: usize,
    /// Where clones look, and what they need was not brought.
    elsewhere: Vec<String>,
    /// Where the branch is that is still to be merged with.
    merges: Option<CommitId>,
}

impl<'a> Pushing<'a> {
    fn new(
        context: &'a Context,
        (record, repo): (&'a Record, &RepoArgs),
        (Unpushed { overlay, base, .. }, commit, branch): (Unpushed, CommitId, String),
    ) -> Result<Self, Failure> {
        let registry = context.registry(repo, &[Some(&commit.to_string())])?;
        context.settle_trust(&registry, commit)?;
        // Nothing is served.
        let (invalid, _) = mpsc::channel(1);
        let blobs = context.blobs(&registry, invalid);
        let outbox = Outbox::open(&context.settings.state_dir);
        let outbox = outbox
            .map_err(|error| Failure::new(Code::Failed, format!("open the outbox: {error}")))?;
        let repository = registry.repository();
        let remote = repository.upstream_of(&branch)?;
        let upstream = (remote.clone(), repository.url_of(&remote)?);
        Ok(Self {
            context,
            record,
            registry,
            blobs,
            outbox,
            overlay,
            base,
            commit,
            branch,
            upstream,
        })
    }

    fn run(&mut self, args: &PushArgs) -> Result<Done, Failure> {
        let mut sent = (0, 0);
        for _ in 0..TRIES {
            let upstream = self.look_upstream()?;
            let (plan, mut done) = self.bring_data(args)?;
            sent = (sent.0 + done.sent, sent.1 + done.bytes);
            (done.sent, done.bytes) = sent;
            match upstream {
                Upstream::HasIt(tip) => done.commit = tip,
                Upstream::Ahead(tip) => done.merges = Some(tip),
                Upstream::Fits => {}
            }
            match upstream {
                _ if args.dry_run => return Ok(done),
                Upstream::Fits if !self.push()? => {}
                Upstream::Fits => {
                    self.let_go(&plan)?;
                    return Ok(done);
                }
                Upstream::HasIt(tip) => {
                    self.let_go(&plan)?;
                    if plan.elsewhere.is_empty() {
                        self.go_on_from(tip, args.json)?;
                    }
                    return Ok(done);
                }
                Upstream::Ahead(tip) => {
                    self.go_on_from(tip, args.json)?;
                    let merged = Unpushed::of(self.record)?;
                    self.commit = merged.newest().unwrap_or(self.commit);
                    self.base = merged.base;
                }
            }
        }
        let (branch, url) = (&self.branch, &self.upstream.1);
        let message = format!("{branch} of {url} moved {TRIES} times meanwhile");
        Err(Failure::new(Code::Busy, message).hint("run it again"))
    }

    /// Brings the remotes what the commits need and they lack.
    fn bring_data(&self, args: &PushArgs) -> Result<(Plan, Done), Failure> {
        let verbosity = self.context.settings.verbosity;
        let since = self.base.since.as_deref().and_then(CommitId::parse);
        let commits = self.repository().to_push(self.commit, &self.upstream.0, since)?;
        let waiting = Waiting::new("looking what the remotes lack", verbosity);
        let waits = self.outbox.needed_by(&self.overlay).map_err(|error| {
            Failure::new(Code::Failed, format!("read what waits in the outbox: {error}"))
        })?;
        let looked = self.context.runtime.block_on(async {
            let plan = plan(self.ground(), &commits, &waits).await?;
            let lacking = plan.lacking(self.ground()).await?;
            Ok::<_, PushError>((plan, lacking))
        });
        let (plan, lacking) = looked.map_err(|error| self.unplanned(error, args))?;
        drop(waiting);
        let done = Done {
            commit: self.commit,
            branch: self.branch.clone(),
            upstream: self.upstream.1.clone(),
            sent: lacking.len(),
            bytes: lacking.iter().map(|lacking| lacking.size).sum(),
            present: plan.objects.len() - lacking.len(),
            elsewhere: plan.elsewhere.iter().cloned().collect(),
            merges: None,
        };
        if !args.dry_run {
            self.send(&plan, &lacking, args.jobs, done.bytes)?;
        }
        Ok((plan, done))
    }

    /// Why it cannot be told what the remotes lack. One that was named may be none at all.
    fn unplanned(&self, error: PushError, args: &PushArgs) -> Failure {
        let failure = Failure::from(error);
        match (&args.remote, self.registry.remote_names(self.commit)) {
            (Some(name), Ok(names))
                if failure.code == Code::Failed && !names.contains(&name.to_lowercase()) =>
            {
                let failure = Failure::new(Code::Usage, format!("no remote is called {name}"));
                failure.hint(format!("there are these: {}", names.join(", ")))
            }
            _ => failure,
        }
    }

    /// Has git push the commit; tells whether nobody else was faster.
    fn push(&self) -> Result<bool, Failure> {
        let (remote, branch) = (&self.upstream.0, &self.branch);
        match self.repository().push(remote, self.commit, branch, &self.transport())? {
            Pushed::Updated | Pushed::UpToDate => Ok(true),
            Pushed::Behind => Ok(false),
            Pushed::Rejected(why) => Err(self.refused(&why)),
        }
    }

    /// Has the mount go on from what others have pushed.
    fn go_on_from(&self, tip: CommitId, prints_json: bool) -> Result<(), Failure> {
        let request = Request::Merge { commit: tip.to_string(), reference: self.upstream_ref() };
        refresh::go_on(self.record, &request, prints_json).map(drop)
    }

    fn ground(&self) -> PushGround<'_> {
        PushGround { registry: &self.registry, blobs: &self.blobs, outbox: &self.outbox }
    }

    fn repository(&self) -> &Repository {
        self.registry.repository()
    }

    fn upstream_ref(&self) -> String {
        self.repository().upstream_ref(&self.upstream.0, &self.branch)
    }

    fn transport(&self) -> TransportOptions {
        let settings = &self.context.settings;
        TransportOptions {
            interactive: io::stdin().is_terminal(),
            timeout: GIT_DEADLINE,
            ssh_command: settings.ssh_command.clone(),
            ..TransportOptions::default()
        }
    }

    /// Looks where the branch is upstream, and gets what others have pushed there.
    fn look_upstream(&self) -> Result<Upstream, Failure> {
        let (repository, remote, branch) = (self.repository(), &self.upstream.0, &self.branch);
        let seen = unpushed::last_seen(repository, &self.base, &self.upstream_ref())?;
        let Some(tip) = repository.upstream_tip(remote, branch, &self.transport())? else {
            return seen.map_or(Ok(Upstream::Fits), |seen| Err(self.deleted(seen)));
        };
        let tip = if repository.builds_on(self.commit, tip)? {
            tip
        } else {
            let tip = repository.fetch_branch(remote, branch, &self.transport())?;
            tip.ok_or_else(|| self.gone())?
        };
        let dropped = unpushed::dropped(repository, &self.base, (&self.upstream_ref(), tip))?;
        if let Some(dropped) = dropped {
            return Err(unpushed::rewritten(&self.base, dropped, &self.upstream.1));
        }
        Ok(if repository.builds_on(self.commit, tip)? {
            Upstream::Fits
        } else if repository.builds_on(tip, self.commit)? {
            Upstream::HasIt(tip)
        } else {
            Upstream::Ahead(tip)
        })
    }

    fn gone(&self) -> Failure {
        let (branch, url) = (&self.branch, &self.upstream.1);
        Failure::new(Code::Conflict, format!("{branch} was deleted at {url}"))
    }

    fn deleted(&self, seen: CommitId) -> Failure {
        let (remote, branch) = (&self.upstream.0, &self.branch);
        let git_dir = self.repository().git_dir().display();
        let elsewhere = unpushed::elsewhere(&self.base);
        self.gone().hint(format!(
            "nothing is lost; bring it back as it was and push again: git -C {git_dir} push \
             {remote} {seen}:refs/heads/{branch}; or, {elsewhere}"
        ))
    }

    fn refused(&self, why: &str) -> Failure {
        let (branch, url) = (&self.branch, &self.upstream.1);
        let message = format!("{url} does not take {branch}: {why}");
        Failure::new(Code::Failed, message).hint(
            "the data is there and the snapshot is kept; push again when it may, or mount with \
             another --branch NAME",
        )
    }

    /// Brings the remotes what they lack, and asks them for it.
    fn send(
        &self,
        plan: &Plan,
        lacking: &[Lacking],
        jobs: NonZeroUsize,
        bytes: u64,
    ) -> Result<(), Failure> {
        let bar = Arc::new(Progress::new("push", bytes, self.context.settings.verbosity));
        // Locked while they are shown, so that what is shown last is the last of them.
        let (sent, arrived) = (Mutex::new(0), Mutex::new(0));
        let (moving, all) = (Arc::clone(&bar), lacking.len());
        let hears = Hears {
            bytes: Arc::new(move |more| {
                let mut sent = sent.lock();
                *sent += more;
                moving.set(bytes, (*sent).max(0) as u64);
            }),
            object: Arc::new({
                let bar = Arc::clone(&bar);
                move || {
                    let mut arrived = arrived.lock();
                    *arrived += 1;
                    bar.files(*arrived, all);
                }
            }),
        };
        let sent = self.context.runtime.block_on(async {
            send(self.ground(), plan, lacking, (jobs, &hears)).await?;
            plan.confirm(self.ground(), lacking).await
        });
        Ok(sent?)
    }

    /// The snapshot is where everybody has it: the cache gets its blobs, and its refs go. It stays
    /// where clones look for its data elsewhere.
    fn let_go(&self, plan: &Plan) -> Result<(), Failure> {
        if !plan.elsewhere.is_empty() {
            return self.tell_pushed(false);
        }
        let repository = self.repository();
        let is_newest = repository.own_ref(&ref_of_name(&self.overlay))? == Some(self.commit);
        let keys = plan.objects.iter().map(|object| object.key);
        let cache = self.blobs.cache();
        self.outbox.hand_over(&self.overlay, keys, is_newest, cache).map_err(|error| {
            Failure::new(Code::Failed, format!("pushed, and then: empty the outbox: {error}"))
        })?;
        steps::reached("outbox emptied");
        self.tell_pushed(true)
    }

    /// Has the mount know what was pushed, and let go of it where that is over.
    fn tell_pushed(&self, is_over: bool) -> Result<(), Failure> {
        let request = Request::Pushed { commit: self.commit.to_string(), is_over };
        let told = self.record.ask(&request, DEADLINE);
        told.map(drop).map_err(|failure| failure.context("pushed, and then"))
    }
}

impl Done {
    fn tell(&self, args: &PushArgs, verbosity: Verbosity) {
        let Self { commit, branch, upstream, sent, bytes, present, elsewhere, merges } = self;
        if args.json {
            let done = json!({
                "commit": commit.to_string(),
                "branch": branch,
                "upstream": upstream,
                "sent": sent,
                "bytes": bytes,
                "present": present,
                "elsewhere": elsewhere,
                "merges": merges.map(|tip| tip.to_string()),
                "is_done": !args.dry_run,
            });
            print(&(serde_json::to_string_pretty(&done).unwrap_or_default() + "\n"));
        } else if verbosity > Verbosity::Quiet {
            let (size, would) = (HumanBytes(*bytes), if args.dry_run { "would be " } else { "" });
            let ends = match (merges, args.dry_run) {
                (Some(tip), _) => format!(
                    "is at {tip}, which would be merged first; what both sides changed may stop that"
                ),
                (None, true) => format!("would be at {commit}"),
                (None, false) => format!("is at {commit}"),
            };
            let files = counted(*sent as u64, "file");
            print(&format!(
                "{files} {would}pushed ({size}), {present} there before\n\
                 {branch} of {upstream} {ends}\n"
            ));
        }
        if !elsewhere.is_empty() && !args.dry_run {
            let (places, dir) = (elsewhere.join(" and "), args.dir.display());
            let warning = format!(
                "warning: clones look for it on {places}, which it was not pushed to; it waits here \
                 until dvcfs push {dir}, without --remote, brings it there"
            );
            // A closed stderr is no reason to fail.
            _ = writeln!(io::stderr(), "{}", escape(warning.as_bytes()));
        }
    }
}

impl From<PushError> for Failure {
    fn from(error: PushError) -> Self {
        let code = match &error {
            PushError::Blob(error) => return error.into(),
            PushError::Put { path, source } => return Self::from(&**source).context(path),
            PushError::Nowhere { .. } => Code::Missing,
            PushError::Other { .. } | PushError::Damaged { .. } | PushError::Manifest { .. } => {
                Code::Integrity
            }
            PushError::Lost { .. } | PushError::Disk { .. } => Code::Failed,
            PushError::Tree(_) | PushError::Git { .. } => Code::Repository,
        };
        let failure = Self::new(code, chain(&error));
        match &error {
            PushError::Nowhere { .. } => {
                failure.hint("push it from where it was added: dvc push, or dvcfs push there")
            }
            PushError::Other { .. } => failure
                .hint("remove this object from the remote if it is damaged there, and push again"),
            PushError::Damaged { .. } => {
                failure.hint("put the file into the mount again, and make another snapshot")
            }
            PushError::Lost { .. } => failure.hint("push again; does something remove objects?"),
            _ => failure,
        }
    }
}

impl From<&RemoteError> for Failure {
    fn from(error: &RemoteError) -> Self {
        let code = match error.cause {
            Cause::Missing => Code::Missing,
            Cause::Denied | Cause::Untrusted => Code::Credentials,
            Cause::Unreachable => Code::Network,
            Cause::Misconfigured | Cause::Unsupported | Cause::Full | Cause::Local => Code::Failed,
        };
        Self { code, message: chain(error), hint: error.hint.clone() }
    }
}
