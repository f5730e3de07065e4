//! Where a repository lies: a path or a URL.

use std::{
    ffi::OsString,
    fmt,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use super::error::GitError;
use crate::path::escape;

/// The schemes git itself speaks; any other would make it run a program named after the scheme.
const SCHEMES: [&str; 5] = ["https", "http", "ssh", "git", "file"];

/// What the user typed, sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A work tree, a folder in one, or a bare repository; absolute if the working folder was.
    Path(PathBuf),
    /// Something to mirror.
    Url(Url),
}

impl Location {
    /// Sorts `text` as `git clone` does: what exists is a path, then come `scheme://`, the scp form
    /// `host:path`, and paths that do not exist. Relative paths start from `cwd`.
    ///
    /// Refused are texts that git would take for an option or for the name of a program to run.
    pub fn parse(text: &str, cwd: &Path) -> Result<Self, GitError> {
        let refuse = |reason| {
            let shown = match text.rsplit_once('@') {
                Some((_, host)) if !text.contains("://") && has_password(text) => {
                    format!("***@{host}")
                }
                _ => redact(text),
            };
            let location = escape(shown.as_bytes());
            Err(GitError::InvalidLocation { location, reason })
        };
        match text {
            "" => return refuse("it is empty"),
            _ if text.starts_with('-') => return refuse("it looks like an option"),
            _ if text.contains(char::is_control) => return refuse("it has control characters"),
            _ if cwd.join(text).exists() => return Ok(Self::Path(cwd.join(text))),
            _ => {}
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            return match check_url(scheme, rest) {
                Ok(()) => Ok(Self::Url(Url(text.to_owned()))),
                Err(reason) => refuse(reason),
            };
        }
        match scp_host(text) {
            None => Ok(Self::Path(cwd.join(text))),
            Some(_) if names_helper(text) => refuse("remote helpers are not allowed"),
            Some(_) if has_password(text) => {
                refuse("this form takes no password; write ssh://user@host/path")
            }
            Some(host) if is_option(host) => refuse("its host looks like an option"),
            Some(_) => Ok(Self::Url(Url(text.to_owned()))),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => f.write_str(&escape(path.as_os_str().as_encoded_bytes())),
            Self::Url(url) => url.fmt(f),
        }
    }
}

/// A URL that git can fetch from; made by [`Location::parse`] only.
///
/// Printing it, also by `{:?}`, hides passwords and tokens.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Url(String);

impl Url {
    /// The URL as typed, with its password: for git's configuration, never for people.
    pub(super) fn secret(&self) -> &str {
        &self.0
    }

    /// The URL without password, token and query.
    pub fn redacted(&self) -> String {
        redact(&self.0)
    }

    /// The folder on this machine that a `file` URL names, its percent escapes undone as git does.
    pub fn local_path(&self) -> Option<PathBuf> {
        let path = self.0.strip_prefix("file://")?;
        let bytes: Vec<u8> = percent_encoding::percent_decode_str(path).collect();
        Some(PathBuf::from(OsString::from_vec(bytes)))
    }

    /// A folder name for this URL's mirror: readable, unique, and the same whatever the password.
    pub(super) fn mirror_name(&self) -> String {
        let key = self.redacted();
        let key = key.trim_end_matches('/');
        let last = key.rsplit(['/', ':']).next().unwrap_or_default().trim_end_matches(".git");
        let is_plain = |c: &char| c.is_ascii_alphanumeric() || "._-".contains(*c);
        let readable: String = last.chars().filter(is_plain).take(40).collect();
        let query = self.0.split_once('?').map_or("", |(_, query)| query);
        let hash =
            git2::Oid::hash_object(git2::ObjectType::Blob, (key.to_owned() + query).as_bytes())
                .expect("hashing bytes in memory cannot fail")
                .to_string();
        format!("{}-{}", readable.trim_start_matches('.'), &hash[..20])
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.redacted())
    }
}

fn check_url(scheme: &str, rest: &str) -> Result<(), &'static str> {
    if names_helper(scheme) {
        return Err("remote helpers are not allowed");
    }
    if !SCHEMES.contains(&scheme) {
        return Err("only https, http, ssh, git and file URLs can be mirrored");
    }
    if scheme == "file" && !rest.starts_with('/') {
        return Err("a file URL needs an absolute path, as in file:///srv/registry.git");
    }
    let authority = rest.split('/').next().unwrap_or_default();
    if scheme != "file" && authority.is_empty() {
        return Err("it has no host");
    }
    if is_option(authority) { Err("its host looks like an option") } else { Ok(()) }
}

/// Whether this is git's `<helper>::<address>`, which runs the program `git-remote-<helper>`.
fn names_helper(text: &str) -> bool {
    let is_helper =
        |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || "+-._".contains(c));
    text.split_once("::").is_some_and(|(name, _)| is_helper(name))
}

/// Whether ssh would take the user or the host for an option.
fn is_option(authority: &str) -> bool {
    let host = authority.rsplit('@').next().unwrap_or_default();
    authority.starts_with('-') || host.starts_with('-')
}

/// The host of the scp form: what stands before a colon that no slash precedes.
fn scp_host(text: &str) -> Option<&str> {
    let after_literal = text.find(']').map_or(0, |end| end + 1);
    let colon = after_literal + text[after_literal..].find(':')?;
    let host = &text[..colon];
    (!host.is_empty() && !host.contains('/')).then_some(host)
}

/// Whether this is `user:password@host:path`, where git would take the user for the host and show
/// the rest.
fn has_password(text: &str) -> bool {
    let authority = text.split('/').next().unwrap_or_default();
    authority.rsplit_once('@').is_some_and(|(user, host)| user.contains(':') && host.contains(':'))
}

/// Hides what may be secret in every URL within `text`: a password, with http also the user (which
/// may be a token), and the query.
pub(super) fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        let end = tail.find(|c: char| c.is_whitespace() || "'\"`".contains(c));
        let (url, after) = tail.split_at(end.unwrap_or(tail.len()));
        out.push_str(head);
        push_redacted(&mut out, head.ends_with("ssh://"), url);
        rest = after;
    }
    out + rest
}

fn push_redacted(out: &mut String, keeps_user: bool, url: &str) {
    let (url, query) = url.split_once('?').map_or((url, ""), |(url, _)| (url, "?***"));
    let (authority, path) = url.split_at(url.find('/').unwrap_or(url.len()));
    match authority.rsplit_once('@') {
        None => out.push_str(authority),
        Some((user, host)) => {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            let shown = if keeps_user { name } else { "***" };
            let hidden = if keeps_user && !password.is_empty() { ":***" } else { "" };
            out.extend([shown, hidden, "@", host]);
        }
    }
    out.push_str(path);
    out.push_str(query);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Location, GitError> {
        Location::parse(text, Path::new("/nonexistent"))
    }

    fn url(text: &str) -> Url {
        match parse(text) {
            Ok(Location::Url(url)) => url,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn urls_of_every_form_are_recognised() {
        for text in [
            "https://git.example/team/registry.git",
            "http://git.example/r",
            "ssh://git@git.example:2222/r.git",
            "git://git.example/r",
            "file:///srv/r.git",
            "git@git.example:team/registry.git",
            "host:r",
            "[::1]:r.git",
            "git@[::1]:r.git",
            "[git@git.example:2222]:r.git",
            "git@git.example:~/my registry.git",
            "git@git.example:team@place/r",
            "ssh://git@[::1]:2222/~team/r.git",
            "https://git.example/my%20registry",
        ] {
            assert_eq!(url(text).secret(), text);
        }
    }

    #[test]
    fn a_file_url_names_a_folder_by_its_bytes() {
        let path = |text| url(text).local_path().unwrap();
        assert_eq!(path("file:///srv/my registry"), Path::new("/srv/my registry"));
        assert_eq!(path("file:///srv/my%20100%25"), Path::new("/srv/my 100%"));
        let bytes = OsString::from_vec(b"/srv/caf\xe9".to_vec());
        assert_eq!(path("file:///srv/caf%e9"), Path::new(&bytes));
        assert_eq!(url("https://git.example/srv").local_path(), None);
    }

    #[test]
    fn paths_start_from_the_working_folder() {
        for text in ["registry", "./a:b", "../x", "/abs/host:path"] {
            let expected = Location::Path(Path::new("/nonexistent").join(text));
            assert_eq!(parse(text).unwrap(), expected);
        }
    }

    #[test]
    fn what_exists_is_a_path_even_with_a_colon() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a:b")).unwrap();
        let location = Location::parse("a:b", folder.path()).unwrap();
        assert_eq!(location, Location::Path(folder.path().join("a:b")));
    }

    #[test]
    fn whatever_could_run_a_program_is_refused() {
        for text in [
            "",
            "-u/bin/sh",
            "--upload-pack=touch /tmp/x",
            "ext::sh -c id",
            "fd::17",
            "helper::https://git.example/r",
            "foo://host/path",
            "ssh://-oProxyCommand=id/r",
            "ssh://git@-oProxyCommand=id/r",
            "-oProxyCommand=id:r",
            "git@-oProxyCommand=id:r",
            "https:///r",
            "file://relative/r",
            "https://git.example/r\nx",
            "me:pw@git.example:team/registry.git",
            "me:p@w@[::1]:r",
        ] {
            assert!(matches!(parse(text), Err(GitError::InvalidLocation { .. })), "{text}");
        }
    }

    #[test]
    fn printing_shows_no_secret() {
        for (text, shown) in [
            ("https://user:pa@ss@git.example/r", "https://***@git.example/r"),
            ("https://token@git.example/r?key=1", "https://***@git.example/r?***"),
            ("ssh://git:pw@git.example/r", "ssh://git:***@git.example/r"),
            ("ssh://git@git.example/r", "ssh://git@git.example/r"),
            ("git@git.example:r", "git@git.example:r"),
        ] {
            assert_eq!(url(text).to_string(), shown);
            assert_eq!(format!("{:?}", url(text)), format!("{shown:?}"));
        }
        for text in ["foo://user:pw@host/r", "user:pw@host:r", "user:p@pw@[::1]:r"] {
            let refused = parse(text).unwrap_err().to_string();
            assert!(!refused.contains("pw"), "{refused}");
        }
    }

    #[test]
    fn redaction_finds_urls_inside_messages() {
        let text = "fatal: 'https://u:p@h/r' and https://t@h2/x?y failed, see https://h3/a@b";
        let expected =
            "fatal: 'https://***@h/r' and https://***@h2/x?*** failed, see https://h3/a@b";
        assert_eq!(redact(text), expected);
    }

    #[test]
    fn mirror_names_are_readable_and_do_not_depend_on_the_password() {
        let name = url("https://a:b@git.example/team/registry.git/").mirror_name();
        assert!(name.starts_with("registry-"), "{name}");
        assert_eq!(name, url("https://a:c@git.example/team/registry.git").mirror_name());
        assert_ne!(name, url("https://git.example/other/registry.git").mirror_name());
        assert_ne!(url("https://h/r?id=1").mirror_name(), url("https://h/r?id=2").mirror_name());
        let hostile = url("https://git.example/..%2f/../..").mirror_name();
        assert!(!hostile.starts_with('.') && !hostile.contains('/'), "{hostile}");
    }
}
