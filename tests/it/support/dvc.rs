//! DVC itself, as the judge of what we print.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use serde_json::json;

use super::Sandbox;

/// Real DVC, started once for many commands.
pub(crate) struct Dvc {
    process: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Dvc {
    pub(crate) fn start(sandbox: &Sandbox) -> Self {
        let venv = std::env::var("DVCFS_TEST_VENV")
            .expect("DVCFS_TEST_VENV must name a Python environment with dvc[s3]");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/dvc_runner.py");
        let mut command = sandbox.tool(format!("{venv}/bin/python"));
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let questions = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        Self { process, questions, answers }
    }

    /// What a command of DVC prints in each case of arguments, or nothing where it fails.
    pub(crate) fn run(
        &mut self,
        sandbox: &Sandbox,
        folder: &Path,
        command: &str,
        cases: &[Vec<String>],
    ) -> Vec<Option<Vec<u8>>> {
        let cases: Vec<_> =
            cases.iter().map(|case| [&[command.to_owned()], &case[..]].concat()).collect();
        self.batch(sandbox, folder, &cases)
    }

    /// What each of these commands prints.
    ///
    /// # Panics
    ///
    /// When one of them fails.
    pub(crate) fn must(
        &mut self,
        sandbox: &Sandbox,
        folder: &Path,
        commands: &[&[&str]],
    ) -> Vec<String> {
        let owned = |words: &&[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let printed = self.batch(sandbox, folder, &commands.iter().map(owned).collect::<Vec<_>>());
        let text = |(number, bytes): (usize, Option<Vec<u8>>)| {
            let bytes = bytes.unwrap_or_else(|| {
                let why = fs::read_to_string(sandbox.path(format!("dvc/out-{number}.err")));
                panic!("dvc {:?} in {}: {why:?}", commands[number], folder.display())
            });
            String::from_utf8(bytes).unwrap()
        };
        printed.into_iter().enumerate().map(text).collect()
    }

    fn batch(
        &mut self,
        sandbox: &Sandbox,
        folder: &Path,
        cases: &[Vec<String>],
    ) -> Vec<Option<Vec<u8>>> {
        // DVC keeps what it has read of a revision; another one must not see it.
        let site = tempfile::tempdir_in(sandbox.folder("dvc")).unwrap();
        let out = sandbox.path("dvc/out-");
        let batch = json!({"folder": folder, "site": site.path(), "out": out, "cases": cases});
        writeln!(self.questions, "{batch}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        let codes: Vec<i32> = serde_json::from_str(&answer).unwrap();
        let printed = codes.iter().enumerate().map(|(number, code)| {
            (*code == 0).then(|| fs::read(format!("{}{number}", out.display())).unwrap())
        });
        printed.collect()
    }
}

impl Drop for Dvc {
    fn drop(&mut self) {
        // It may have ended by itself.
        _ = self.process.kill();
        self.process.wait().unwrap();
    }
}
