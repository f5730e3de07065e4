//! The question whether a registry may choose where the user's credentials go, and the answers
//! given so far.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, BufRead, IsTerminal, Write},
    path::PathBuf,
};

use super::exit::{Code, Failure};
use crate::{atomic, path::escape, registry::Untrusted};

/// Endpoints that were agreed to, by repository.
#[derive(Debug)]
pub(super) struct Trust {
    file: PathBuf,
    agreed: BTreeMap<String, BTreeSet<String>>,
}

impl Trust {
    /// Reads what was agreed to; an unreadable file counts as nothing.
    pub(super) fn load(state_dir: &std::path::Path) -> Self {
        let file = state_dir.join("trust.json");
        let text = fs::read(&file).unwrap_or_default();
        Self { file, agreed: serde_json::from_slice(&text).unwrap_or_default() }
    }

    /// The endpoints agreed to for a repository.
    pub(super) fn endpoints(&self, repository: &str) -> Vec<String> {
        self.agreed.get(repository).into_iter().flatten().cloned().collect()
    }

    /// Asks on the terminal, once for each setting; a yes is remembered. Without a terminal, and
    /// after a no, the failure says what to type.
    pub(super) fn ask(&mut self, repository: &str, open: &[Untrusted]) -> Result<(), Failure> {
        for untrusted in open {
            let can_ask = io::stdin().is_terminal() && io::stderr().is_terminal();
            if !(can_ask && confirm(untrusted)?) {
                return Err(refusal(untrusted));
            }
            let agreed = self.agreed.entry(repository.to_owned()).or_default();
            agreed.insert(untrusted.setting.clone());
        }
        let text = serde_json::to_vec_pretty(&self.agreed).unwrap_or_default();
        atomic::write(&self.file, &text, 0o600).map_err(|error| {
            let message = format!("remember the answer in {}: {error}", self.file.display());
            Failure::new(Code::Failed, message)
        })
    }
}

fn confirm(untrusted: &Untrusted) -> Result<bool, Failure> {
    let question = format!(
        "The repository's own configuration says of remote \"{}\":\n    {}\n\
         Your credentials would be used there. Agree, for this repository? [y/N] ",
        escape(untrusted.remote.as_bytes()),
        escape(untrusted.setting.as_bytes()),
    );
    let failed = |error: io::Error| Failure::new(Code::Failed, format!("ask for trust: {error}"));
    let mut terminal = io::stderr();
    terminal.write_all(question.as_bytes()).and_then(|()| terminal.flush()).map_err(failed)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn refusal(untrusted: &Untrusted) -> Failure {
    let message = format!(
        "the repository's configuration sets {} for remote \"{}\", and you have not agreed to that",
        untrusted.setting, untrusted.remote
    );
    Failure::new(Code::Credentials, message)
        .hint("if you trust this repository with your credentials, add --trust-remote")
}
