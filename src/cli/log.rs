//! The log: what is in it, where it goes, and in which form.

use std::io;

use tracing_subscriber::{
    EnvFilter, Layer, Registry, fmt, layer::SubscriberExt, util::SubscriberInitExt,
};

use super::{
    args::LogFormat,
    settings::{Settings, Verbosity},
};

/// Starts the log. `silenced` is left out unless more is wanted.
///
/// Where systemd reads stderr, entries go to its journal with level and fields of their own;
/// elsewhere to stderr, wherever that leads. A form that somebody asks for is written to stderr.
pub(super) fn start(settings: &Settings, silenced: &str) {
    let layer = match settings.log_format {
        None if is_journal(settings) => journal().unwrap_or_else(text),
        None | Some(LogFormat::Text) => text(),
        Some(LogFormat::Json) => json(),
    };
    let started = tracing_subscriber::registry()
        .with(layer.with_filter(filter(settings.verbosity, silenced)))
        .try_init();
    if let Err(error) = started {
        tracing::debug!("the log is set up already: {error}");
    }
}

/// Whether the log goes to systemd's journal, which has a place for it already.
pub(super) fn is_journal(settings: &Settings) -> bool {
    let Ok(stderr) = rustix::fs::fstat(rustix::stdio::stderr()) else { return false };
    let told = settings.journal_stream.as_deref();
    settings.log_format.is_none() && told == Some(&format!("{}:{}", stderr.st_dev, stderr.st_ino))
}

type AnyLayer = Box<dyn Layer<Registry> + Send + Sync>;

fn journal() -> Option<AnyLayer> {
    let journal = tracing_journald::layer();
    let journal = journal.inspect_err(|error| {
        use io::Write;
        // A closed stderr is no reason to fail.
        _ = writeln!(io::stderr(), "warning: the journal cannot be written: {error}");
    });
    let journal = journal.ok()?.with_syslog_identifier("dvcfs".into());
    Some(journal.with_field_prefix(Some("DVCFS".into())).boxed())
}

fn text() -> AnyLayer {
    // A mount in the background goes on with a file in the terminal's place.
    fmt::layer().with_writer(io::stderr).with_ansi(false).with_target(false).boxed()
}

fn json() -> AnyLayer {
    fmt::layer().json().flatten_event(true).with_writer(io::stderr).boxed()
}

/// Libraries say what they have to say in errors, which are reported; their own logs repeat it.
fn filter(verbosity: Verbosity, silenced: &str) -> EnvFilter {
    EnvFilter::try_from_env("DVCFS_LOG").unwrap_or_else(|_| match verbosity {
        Verbosity::Quiet => EnvFilter::new(format!("dvcfs=error{silenced}")),
        Verbosity::Normal => EnvFilter::new(format!("dvcfs=warn{silenced}")),
        Verbosity::Verbose => EnvFilter::new("dvcfs=info"),
        Verbosity::Everything => EnvFilter::new("debug"),
    })
}
