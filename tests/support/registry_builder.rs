//! Makes registries as `git`, `dvc add` and `dvc push` would, byte for byte, without either the
//! wait or the installation of DVC.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use dvcfs::id::{BlobId, Digest, Key, Scheme, TreeId, hex};
use md5::{Digest as _, Md5};

/// A file's content that lies in the remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blob {
    digest: Digest,
    /// In bytes.
    pub(crate) size: u64,
}

impl Blob {
    /// The MD5 in hexadecimal digits, as DVC writes it.
    pub(crate) fn md5(&self) -> String {
        hex(&self.digest)
    }

    /// Where the blob lies below the remote's URL, or below a cache folder.
    pub(crate) fn path(&self) -> String {
        Key::from(BlobId { digest: self.digest, scheme: Scheme::Md5 }).path()
    }
}

/// A repository and its remote, being written.
pub(crate) struct RegistryBuilder {
    repository: PathBuf,
    objects: PathBuf,
}

impl RegistryBuilder {
    /// Begins a repository in the new folder `repository`; objects go to the folder `objects`,
    /// which a remote shows.
    pub(crate) fn start(repository: &Path, objects: &Path) -> Result<Self> {
        fs::create_dir_all(repository)?;
        fs::create_dir_all(objects)?;
        let builder = Self { repository: repository.to_owned(), objects: objects.to_owned() };
        builder.git(&["init", "--quiet", "--initial-branch=main"])?;
        Ok(builder)
    }

    /// The work tree.
    pub(crate) fn repository(&self) -> &Path {
        &self.repository
    }

    /// The folder that holds the remote's objects.
    pub(crate) fn objects(&self) -> &Path {
        &self.objects
    }

    /// As `dvc init`, with `config` as the settings that go with the repository.
    pub(crate) fn init(&self, config: &str) -> Result<()> {
        self.text(".dvc/config", config)?;
        self.text(".dvc/.gitignore", "/config.local\n/tmp\n/cache\n")?;
        self.text(
            ".dvcignore",
            "# Add patterns of files dvc should ignore, which could improve\n\
             # the performance. Learn more at\n\
             # https://dvc.org/doc/user-guide/dvcignore\n",
        )
    }

    /// Puts a blob into the remote.
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<Blob> {
        let digest = Md5::digest(bytes).into();
        self.upload(BlobId { digest, scheme: Scheme::Md5 }.into(), bytes)?;
        Ok(Blob { digest, size: bytes.len() as u64 })
    }

    /// Puts the content of a file into the remote.
    pub(crate) fn put_file(&self, source: &Path) -> Result<Blob> {
        let mut hasher = Md5::new();
        let mut buffer = vec![0; 1 << 20];
        let mut file = fs::File::open(source)?;
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => hasher.update(&buffer[..count]),
            }
        }
        self.put_known(source, hasher.finalize().into())
    }

    /// Puts the content of a file into the remote, its MD5 being known.
    pub(crate) fn put_known(&self, source: &Path, digest: Digest) -> Result<Blob> {
        let blob = Blob { digest, size: source.metadata()?.len() };
        let target = self.objects.join(blob.path());
        create_parent(&target)?;
        // A copy would fill the holes of a sparse file.
        fs::hard_link(source, &target).context("link an object")?;
        protect(&target)?;
        Ok(blob)
    }

    fn upload(&self, key: Key, bytes: &[u8]) -> Result<()> {
        let target = self.objects.join(key.path());
        if !target.exists() {
            write(&target, bytes)?;
            protect(&target)?;
        }
        Ok(())
    }

    /// As `dvc add` of a file.
    pub(crate) fn track_file(&self, path: &str, blob: &Blob) -> Result<()> {
        let (md5, size) = (blob.md5(), blob.size);
        self.track(path, &format!("md5: {md5}\n  size: {size}"))
    }

    /// As `dvc add` of a folder; `files` are sorted by name here.
    pub(crate) fn track_folder(&self, path: &str, files: &[(&str, Blob)]) -> Result<()> {
        let mut files = files.to_vec();
        files.sort_by_key(|(name, _)| *name);
        let entry = |(name, blob): &(&str, Blob)| {
            format!(r#"{{"md5": "{}", "relpath": "{name}"}}"#, blob.md5())
        };
        let manifest = files.iter().map(entry).collect::<Vec<_>>().join(", ");
        let manifest = format!("[{manifest}]");
        let id = TreeId { digest: Md5::digest(&manifest).into(), scheme: Scheme::Md5 };
        self.upload(id.into(), manifest.as_bytes())?;
        let size: u64 = files.iter().map(|(_, blob)| blob.size).sum();
        self.track(path, &format!("md5: {id}\n  size: {size}\n  nfiles: {}", files.len()))
    }

    fn track(&self, path: &str, content: &str) -> Result<()> {
        let (folder, name) = path.rsplit_once('/').unwrap_or((".", path));
        let text = format!("outs:\n- {content}\n  hash: md5\n  path: {name}\n");
        self.text(&format!("{path}.dvc"), &text)?;
        self.ignore(folder, name)
    }

    fn ignore(&self, folder: &str, name: &str) -> Result<()> {
        let path = format!("{folder}/.gitignore");
        let line = format!("/{name}\n");
        let before = match fs::read_to_string(self.repository.join(&path)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error.into()),
        };
        if before.lines().any(|known| known == line.trim_end()) {
            return Ok(());
        }
        self.text(&path, &(before + &line))
    }

    /// Puts a file into the work tree.
    pub(crate) fn text(&self, path: &str, text: &str) -> Result<()> {
        write(&self.repository.join(path), text.as_bytes())
    }

    /// Commits everything; gives the commit's hash.
    pub(crate) fn commit(&self, message: &str, date: &str) -> Result<String> {
        self.git(&["add", "--all"])?;
        self.run(&["commit", "--quiet", "--message", message], date)?;
        self.git(&["rev-parse", "HEAD"])
    }

    /// Runs `git` in the repository; gives what it prints.
    pub(crate) fn git(&self, args: &[&str]) -> Result<String> {
        self.run(args, "2026-02-10T12:00:00+00:00")
    }

    fn run(&self, args: &[&str], date: &str) -> Result<String> {
        let output = Command::new("git")
            .args(args)
            .current_dir(&self.repository)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .envs([("GIT_AUTHOR_NAME", "Ann"), ("GIT_COMMITTER_NAME", "Ann")])
            .envs([("GIT_AUTHOR_EMAIL", "ann@localhost"), ("GIT_COMMITTER_EMAIL", "ann@localhost")])
            .envs([("GIT_AUTHOR_DATE", date), ("GIT_COMMITTER_DATE", date)])
            .output()
            .context("run git")?;
        let reason = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "git {}: {}", args.join(" "), reason.trim());
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    }
}

fn create_parent(path: &Path) -> Result<()> {
    let folder = path.parent().context("a file has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    create_parent(path)?;
    fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}

/// As DVC leaves objects; it checks writable ones anew and removes what it takes for damaged.
fn protect(path: &Path) -> Result<()> {
    let mode = fs::Permissions::from_mode(0o444);
    fs::set_permissions(path, mode).with_context(|| format!("protect {}", path.display()))
}
