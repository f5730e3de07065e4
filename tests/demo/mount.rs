//! The real `dvcfs`, run as a child, and where it keeps everything.

use std::{
    fs::{self, File},
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::s3server::{ACCESS_KEY, SECRET_KEY};

/// How often something that takes a moment is looked at again.
const PAUSE: Duration = Duration::from_millis(50);
/// How long mounting may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the mount may take to end, before it is ended by force.
const GRACE: Duration = Duration::from_secs(5);

/// The folders and files of one demonstration.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) registry: PathBuf,
    pub(crate) mount_point: PathBuf,
    /// Sourced by a shell, it finds `dvcfs` and the mount.
    pub(crate) script: PathBuf,
    log: PathBuf,
    program: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl Place {
    /// Lays out `folder`. Fails if `dvcfs` is not built.
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        let place = Self {
            registry: folder.join("registry"),
            mount_point: folder.join("mount"),
            script: folder.join("env.sh"),
            log: folder.join("dvcfs.log"),
            program: find_program()?,
            environment: environment(folder),
        };
        fs::create_dir(&place.mount_point)?;
        fs::write(&place.script, place.script_text()?)?;
        Ok(place)
    }

    fn script_text(&self) -> Result<String> {
        let bin = self.program.parent().context("a program lies in a folder")?;
        let set = |(name, value): &(&str, String)| format!("export {name}='{value}'\n");
        let settings: String = self.environment.iter().map(set).collect();
        Ok(format!(
            "unset AWS_PROFILE AWS_SESSION_TOKEN\n{settings}export PATH='{}':\"$PATH\"\n\
             REGISTRY='{}'\ncd '{}'\n",
            bin.display(),
            self.registry.display(),
            self.mount_point.display(),
        ))
    }
}

/// Keeps the child away from the settings and keys of whoever runs the demonstration.
fn environment(folder: &Path) -> Vec<(&'static str, String)> {
    let place = |name| folder.join(name).display().to_string();
    let nothing = || "/dev/null".to_owned();
    vec![
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ("AWS_CONFIG_FILE", nothing()),
        ("AWS_SHARED_CREDENTIALS_FILE", nothing()),
        ("DVCFS_CONFIG", nothing()),
        ("DVCFS_CACHE_DIR", place("cache")),
        ("DVCFS_STATE_DIR", place("state")),
        ("DVCFS_RUNTIME_DIR", place("run")),
    ]
}

/// `$DVCFS_BIN`, or the `dvcfs` that was built beside this example.
fn find_program() -> Result<PathBuf> {
    if let Some(program) = std::env::var_os("DVCFS_BIN") {
        return Ok(fs::canonicalize(program)?);
    }
    let example = std::env::current_exe()?;
    let profile = example.parent().and_then(Path::parent).context("no folder of programs")?;
    let program = profile.join("dvcfs");
    ensure!(program.is_file(), "{} is not there; build it: cargo build", program.display());
    Ok(program)
}

/// A running mount; dropping it ends it.
pub(crate) struct Mount<'a> {
    place: &'a Place,
    child: Child,
}

impl<'a> Mount<'a> {
    pub(crate) fn start(place: &'a Place) -> Result<Self> {
        let log = File::create(&place.log)?;
        let child = Command::new(&place.program)
            .args(["mount", "--foreground", "--trust-remote", "--follow=2s"])
            .args([&place.registry, &place.mount_point])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", place.registry.parent().unwrap_or(&place.registry))
            .envs(place.environment.iter().cloned())
            // Ctrl-C is for this process alone, which then ends the mount in good order.
            .process_group(0)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("run {}", place.program.display()))?;
        Ok(Self { place, child })
    }

    pub(crate) async fn wait_until_it_answers(&mut self) -> Result<()> {
        let outside = fs::metadata(&self.place.registry)?.dev();
        let deadline = Instant::now() + PATIENCE;
        while fs::metadata(&self.place.mount_point)?.dev() == outside {
            self.fail_if_ended()?;
            ensure!(Instant::now() < deadline, "the mount does not come up: {}", self.log());
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Waits until the child ends by itself, as after `dvcfs umount`.
    pub(crate) async fn wait_until_it_ends(&mut self) -> Result<()> {
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("dvcfs ended ({status}): {}", self.log()),
                None => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    fn fail_if_ended(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("dvcfs ended ({status}): {}", self.log()),
            None => Ok(()),
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.place.log).unwrap_or_default()
    }

    /// Ends the mount, first by asking, in the end by force.
    fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(PAUSE);
        }
        self.detach();
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    fn detach(&self) {
        let umount = Command::new(&self.place.program)
            .args(["umount", "--lazy"])
            .arg(&self.place.mount_point)
            .envs(self.place.environment.iter().cloned())
            .status();
        // The child is killed next, whatever came of this.
        drop(umount);
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            println!("could not end the mount: {error:#}");
        }
    }
}
