//! `mount.dvcfs`: what mount(8), and through it `/etc/fstab` and systemd, run for the type dvcfs.
//!
//! It is this program under another name. Options are those of `dvcfs mount`, exit codes those of
//! mount(8), and it returns when the mount answers.

mod options;

use std::{
    ffi::{OsStr, OsString},
    io::Write,
    path::Path,
    process::ExitCode,
};

use clap::FromArgMatches;

use self::options::{TAKEN, are_for_reading_only, ours, translate};
use super::{
    args::{Cli, Command, HelperArgs, MountArgs},
    complain,
    exit::{Code, Failure},
    mount,
    settings::{Environment, Settings},
};

/// The name that mount(8) calls.
pub(super) const NAME: &str = "mount.dvcfs";

/// The name that it calls for the type that the mount table shows.
const NAME_AS_SHOWN: &str = "mount.fuse.dvcfs";

/// What people put into `/etc/fstab` and type.
pub(super) const EXAMPLES: &str = "\
# /etc/fstab: at boot, once the network is there; a machine without it starts all the same
https://git.example/team/registry.git /srv/voices dvcfs rev=v1.2,_netdev,nofail 0 0
# at the first access, by systemd
/home/ann/registry /srv/registry dvcfs noauto,x-systemd.automount,_netdev 0 0
# by hand
mount -t dvcfs -o rev=v1.2,cache-size=200G /home/ann/registry /mnt";

/// The grammar of its command line.
pub(super) fn grammar() -> clap::Command {
    HelperArgs::grammar()
}

/// The options that can follow `-o`: name, value, and what they do.
pub(super) fn described(grammar: &clap::Command) -> Vec<(String, String, String)> {
    let described = ours(grammar).map(|(name, arg)| {
        let value = arg.get_value_names().filter(|_| arg.get_action().takes_values());
        let value = value.map(|names| format!("={}", names.join("")));
        let help = arg.get_help().map(ToString::to_string);
        (name.to_owned(), value.unwrap_or_default(), help.unwrap_or_default())
    });
    described.collect()
}

/// The options that are taken and do nothing.
pub(super) fn taken() -> String {
    TAKEN.join(", ")
}

/// Whether the program was started by one of these names.
pub(super) fn is_called_for(program: &OsStr) -> bool {
    let name = Path::new(program).file_name();
    [NAME, NAME_AS_SHOWN].iter().any(|known| name == Some(OsStr::new(known)))
}

/// Mounts as mount(8) asks for it.
pub(super) fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match HelperArgs::grammar().try_get_matches_from(arguments) {
        Ok(matches) => HelperArgs::from_arg_matches(&matches),
        Err(error) => Err(error),
    };
    let args = match args {
        Ok(args) => args,
        Err(error) => {
            // Without a terminal or pipe to print to, the exit code has to do.
            _ = error.print();
            let is_wrong = error.use_stderr();
            return ExitCode::from(if is_wrong { Code::Usage.of_mount() } else { 0 });
        }
    };
    end_when_interrupted();
    find_home();
    mount(&args).unwrap_or_else(|failure| {
        complain(&failure);
        ExitCode::from(failure.code.of_mount())
    })
}

fn mount(args: &HelperArgs) -> Result<ExitCode, Failure> {
    let (settings, mount_args) = understand(args)
        .map_err(|failure| failure.context(format!("mount on {}", args.dir.display())))?;
    if args.is_fake {
        return Ok(ExitCode::SUCCESS);
    }
    mount::run(settings, &mount_args)
}

/// What `dvcfs mount` would be asked.
fn understand(args: &HelperArgs) -> Result<(Settings, MountArgs), Failure> {
    let mut grammar = Cli::grammar();
    grammar.build();
    let tolerate = |failure: Failure| {
        // A closed stderr is no reason to fail.
        _ = writeln!(std::io::stderr(), "warning: {}", failure.message);
        Ok(())
    };
    let mut line: Vec<OsString> = ["dvcfs", "mount"].map(Into::into).into();
    line.extend(if args.is_sloppy {
        translate(&grammar, &args.options, tolerate)?
    } else {
        translate(&grammar, &args.options, Err)?
    });
    line.extend((0..args.verbose).map(|_| "--verbose".into()));
    line.extend(["--".into(), args.repo.clone().into(), args.dir.clone().into()]);
    let matches = grammar.try_get_matches_from_mut(line);
    let cli = matches.and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = cli.map_err(|error| wrong(&error))?;
    let settings = Settings::resolve(&cli.common, &Environment::current())?;
    let Command::Mount(mount_args) = cli.command else {
        return Err(Failure::new(Code::Usage, "no mount was asked for"));
    };
    let is_for_reading = args.read_only || are_for_reading_only(&args.options);
    if is_for_reading && mount_args.overlay.is_some() {
        return Err(Failure::new(Code::Usage, "it cannot be read-only and have an overlay"));
    }
    // Other file systems cover what is in the folder, too.
    Ok((settings, MountArgs { nonempty: true, foreground: false, ..mount_args }))
}

/// What is wrong with the value of an option, on one line.
fn wrong(error: &clap::Error) -> Failure {
    let said = error.to_string();
    let said = said.trim_start_matches("error: ").split("\n\n").next().unwrap_or_default();
    Failure::new(Code::Usage, said.replace("'--", "'"))
}

/// Ends with mount(8)'s own code when the user gives up before the mount answers.
fn end_when_interrupted() {
    extern "C" fn end(_signal: libc::c_int) {
        // SAFETY: ending a process at once is allowed in a signal handler.
        unsafe { libc::_exit(i32::from(Code::INTERRUPTED)) }
    }
    let end: extern "C" fn(libc::c_int) = end;
    // SAFETY: the handler does nothing that a handler may not do.
    unsafe { libc::signal(libc::SIGINT, end as libc::sighandler_t) };
}

/// Has git and the AWS libraries find the user's settings where nobody says where home is, as in
/// what systemd starts at boot.
fn find_home() {
    if std::env::var_os("HOME").is_none()
        && let Some(home) = std::env::home_dir()
    {
        // SAFETY: the process has a single thread here.
        unsafe { std::env::set_var("HOME", home) };
    }
}
