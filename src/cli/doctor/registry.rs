//! A registry: its repository, its configuration, what it needs consent for, and whether its
//! remotes answer.

use std::{collections::BTreeMap, sync::Arc};

use super::{Check, folders::found};
use crate::{
    cli::{
        args::{DoctorArgs, RepoArgs},
        context::{Context, resolve},
        exit::{Failure, chain},
        progress::Waiting,
        settings::Environment,
    },
    dvc::{
        config::Level,
        output::{Content, Origin},
    },
    git::CommitId,
    id::Key,
    registry::{CredentialsSource, Registry, RemoteDescription},
    remote::{Cause, Remote, RemoteError},
    tree::{self, Tree},
};

pub(super) fn checks(
    context: &Context,
    repo: &str,
    args: &DoctorArgs,
    environment: &Environment,
) -> Vec<Check> {
    let repo = RepoArgs {
        repo: repo.to_owned(),
        trust_remote: args.trust_remote,
        remote: args.remote.clone(),
    };
    let mut checks = Vec::new();
    if let Err(failed) = examine(context, &repo, environment, &mut checks) {
        checks.push(failed);
    }
    checks
}

/// Goes on as long as what was found allows it.
fn examine(
    context: &Context,
    repo: &RepoArgs,
    environment: &Environment,
    checks: &mut Vec<Check>,
) -> Result<(), Check> {
    let failed = |failure: Failure| Check::failed("repository", failure);
    let registry = context.registry(repo, &[None]).map_err(failed)?;
    let _waiting = Waiting::new("asking the registry", context.settings.verbosity);
    let (commit, branch) = resolve(&registry, None).map_err(failed)?;
    checks.push(repository(&registry, commit, branch.as_deref()));
    checks.push(configuration(context, &registry, commit)?);
    let tree = tree::build(registry.repository(), commit, &tree::Known::default())
        .map_err(|error| Check::fail("outputs", chain(&error)))?;
    checks.push(declarations(&tree));
    let remotes = registry.remotes(commit).map_err(|error| failed(error.into()))?;
    checks.extend(remotes.iter().map(|remote| configured(remote, environment)));
    let is_tracking = tree.outputs().next().is_some();
    if is_tracking && !remotes.iter().any(|remote| remote.is_default) {
        checks.push(
            Check::warn("remote", "no default remote is configured")
                .hint("set core.remote in DVC's configuration, or name one with --remote"),
        );
    }
    checks.extend(probes(&registry, &tree).iter().filter_map(|probe| probe.run(context)));
    Ok(())
}

fn repository(registry: &Registry, commit: CommitId, branch: Option<&str>) -> Check {
    let name = registry.name();
    let at = format!("{name}, {} at {commit}", branch.unwrap_or("HEAD"));
    match registry.stale() {
        Some(why) => Check::warn("repository", format!("{at}, as it was mirrored before: {why}"))
            .hint(format!("does `git ls-remote {name}` work in this shell?")),
        None if !registry.has_project(commit) => {
            Check::warn("repository", format!("{at}: it has no .dvc folder"))
                .hint("is it the right one? Its files are shown as git has them")
        }
        None => Check::ok("repository", at),
    }
}

fn configuration(context: &Context, registry: &Registry, commit: CommitId) -> Result<Check, Check> {
    const WHAT: &str = "DVC settings";
    let warnings = registry.config_warnings(commit);
    let warnings = warnings.map_err(|error| Check::failed(WHAT, error.into()))?;
    let settings = registry.dvc_settings(commit).unwrap_or_default();
    let has_own = settings.iter().any(|setting| setting.level == Level::Repo);
    let levels = [
        found("system", Some(&context.settings.dvc_system_config)),
        found("global", Some(&context.settings.dvc_global_config)),
        format!("repo {}", if has_own { ".dvc/config" } else { "none" }),
        found("local", registry.local_config().as_ref()),
    ];
    Ok(match warnings.first() {
        None => Check::ok(WHAT, levels.join(", ")),
        Some(first) => {
            let detail = format!("{} not understood, the first: {first}", warnings.len());
            Check::warn(WHAT, detail).hint("dvcfs config list REPO --origin shows what counts")
        }
    })
}

/// What the files that declare outputs say.
fn declarations(tree: &Tree) -> Check {
    let outputs = tree.outputs().count();
    match tree.problems.first() {
        None => Check::ok("outputs", format!("{outputs} are tracked")),
        Some(first) => {
            let count = tree.problems.len();
            let first = format!("{}: {}", first.path, first.why);
            let detail =
                format!("{outputs} are tracked, {count} not understood, the first: {first}");
            Check::warn("outputs", detail).hint("the log of a mount names them all")
        }
    }
}

/// How a remote is configured.
fn configured(remote: &RemoteDescription, environment: &Environment) -> Check {
    let default = if remote.is_default { " (default)" } else { "" };
    let what = format!("remote {}{default}", remote.name);
    let url = match &remote.url {
        Ok(url) => url,
        Err(why) if remote.is_default => return Check::fail(what, why),
        Err(why) => return Check::warn(what, why),
    };
    let detail = format!("{url}, credentials: {}", credentials(&remote.credentials, environment));
    match remote.untrusted.first() {
        None => Check::ok(what, detail),
        Some(untrusted) => {
            let setting = &untrusted.setting;
            let detail = format!("{url}: the repository sets {setting}, and you have not agreed");
            let status = if remote.is_default { super::Status::Fail } else { super::Status::Warn };
            Check::new(status, what, detail)
                .hint("if you trust this repository with your credentials, add --trust-remote")
        }
    }
}

/// Where credentials come from, by its name.
fn credentials(source: &CredentialsSource, environment: &Environment) -> String {
    match source {
        CredentialsSource::Nothing => "none needed".to_owned(),
        CredentialsSource::Configuration(level) => {
            format!("those in DVC's settings ({})", format!("{level:?}").to_lowercase())
        }
        CredentialsSource::Profile(name, None) => format!("profile {name}"),
        CredentialsSource::Profile(name, Some(file)) => {
            format!("profile {name} in {}", file.display())
        }
        CredentialsSource::File(file) => format!("the file {}", file.display()),
        CredentialsSource::AwsChain => aws_chain(environment),
    }
}

/// The first place in the order of the AWS libraries that has something to say.
fn aws_chain(environment: &Environment) -> String {
    let named = |name: &str| environment.get(name).map(|value| value.display().to_string());
    let home = environment.get("HOME");
    let usual = home.map(|home| home.join(".aws/credentials")).filter(|file| file.exists());
    if named("AWS_ACCESS_KEY_ID").is_some() {
        "AWS_ACCESS_KEY_ID in the environment".to_owned()
    } else if let Some(profile) = named("AWS_PROFILE") {
        format!("profile {profile} (AWS_PROFILE)")
    } else if let Some(file) = named("AWS_SHARED_CREDENTIALS_FILE") {
        format!("profile default in {file}")
    } else if let Some(file) = usual {
        format!("profile default in {}", file.display())
    } else if let Some(role) = named("AWS_ROLE_ARN") {
        format!("web identity, role {role}")
    } else if named("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
        .or_else(|| named("AWS_CONTAINER_CREDENTIALS_FULL_URI"))
        .is_some()
    {
        "the container's role".to_owned()
    } else {
        "no keys and no profile, so the machine's role if it has one".to_owned()
    }
}

/// A question to a remote that outputs lie in.
struct Probe {
    remote: Arc<dyn Remote>,
    key: Key,
    path: String,
}

/// One for each remote that is in use: an object that should be there.
fn probes(registry: &Registry, tree: &Tree) -> Vec<Probe> {
    let mut probes = BTreeMap::new();
    for tracked in tree.outputs() {
        let output = &tracked.output;
        let key = match output.content {
            Content::Blob(blob) if !blob.is_empty_content() => Key::from(blob),
            Content::Tree(manifest) => Key::from(manifest),
            _ => continue,
        };
        if !output.is_cached || output.is_versioned || matches!(output.origin, Origin::Import(_)) {
            continue;
        }
        let project = &tree.projects[tracked.project];
        let remote = registry.remote_of((&project.root, project.config), output);
        let path = output.path.to_string();
        probes.entry(remote.url().to_owned()).or_insert(Probe { remote, key, path });
    }
    probes.into_values().collect()
}

impl Probe {
    /// Asks; nothing where the lack of consent keeps that from being asked, which was told before.
    fn run(&self, context: &Context) -> Option<Check> {
        const WHAT: &str = "reachable";
        let url = self.remote.url();
        match context.runtime.block_on(self.remote.size(self.key)) {
            Ok(_) => Some(Check::ok(WHAT, format!("{url} has {}", self.path))),
            Err(error) if error.cause == Cause::Untrusted => None,
            Err(error) if error.cause == Cause::Missing => {
                let detail = format!("{url} answers, but lacks {}", self.path);
                let check = Check::warn(WHAT, detail);
                Some(check.hint("push it from where it was added: dvc push"))
            }
            Err(error) => Some(Self::refused(WHAT, &error)),
        }
    }

    fn refused(what: &str, error: &RemoteError) -> Check {
        let check = Check::fail(what, format!("{}: {}", error.url, error.reason));
        let usual = match error.cause {
            Cause::Denied => {
                Some("does `aws s3 ls` with the same URL work in this shell?".to_owned())
            }
            Cause::Unreachable => {
                Some("is the network up, and the server's name right?".to_owned())
            }
            Cause::Missing
            | Cause::Misconfigured
            | Cause::Untrusted
            | Cause::Unsupported
            | Cause::Full
            | Cause::Local => None,
        };
        Check { hint: error.hint.clone().or(usual), ..check }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_told_by_where_they_come_from() {
        let told = |source| credentials(&source, &Environment::default());
        assert_eq!(told(CredentialsSource::Nothing), "none needed");
        let settings = CredentialsSource::Configuration(Level::Local);
        assert_eq!(told(settings), "those in DVC's settings (local)");
        assert_eq!(told(CredentialsSource::Profile("team".into(), None)), "profile team");
        let file = CredentialsSource::File("/k".into());
        assert_eq!(told(file), "the file /k");
        assert!(told(CredentialsSource::AwsChain).contains("the machine's role"));
    }
}
