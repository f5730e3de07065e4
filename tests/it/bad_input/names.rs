//! Names that are long, odd or alike: in git, in a manifest, and on a mount.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
};

use super::{cat, refused};
use crate::{
    registry_builder::RegistryBuilder,
    support::{DATE, Sandbox, output, registry_on_disk, succeed},
};

/// The names, and each as DVC writes it into a manifest.
fn names() -> [(Vec<u8>, String); 9] {
    let long = "n".repeat(255);
    let escape = |name: &str| name.replace('\\', r"\\").replace('"', "\\\"");
    [
        (long.clone().into_bytes(), long),
        (b"two\nlines".to_vec(), r"two\nlines".into()),
        (b"not utf-8 \xff\x80".to_vec(), r"not utf-8 \udcff\udc80".into()),
        ("u\u{308}ber (NFD)".into(), r"u\u0308ber (NFD)".into()),
        ("\u{fc}ber (NFD)".into(), r"\u00fcber (NFD)".into()),
        (b"\x1b[31mred\x7f".to_vec(), r"\u001b[31mred\u007f".into()),
        ("right \u{202e}tfel".into(), r"right \u202etfel".into()),
        (br#"a "quote" \ back"#.to_vec(), escape(r#"a "quote" \ back"#)),
        (b"-rf *".to_vec(), "-rf *".into()),
    ]
}

/// The content that belongs to a name.
fn content(name: &[u8]) -> Vec<u8> {
    [b"content of ", name].concat()
}

/// A registry with every name in git below `git` and in a tracked folder `data`.
fn registry(sandbox: &Sandbox) -> RegistryBuilder {
    let registry = registry_on_disk(sandbox);
    let names = names();
    for (name, _) in &names {
        let path = registry.repository().join("git").join(OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content(name)).unwrap();
    }
    let files: Vec<_> = names
        .iter()
        .map(|(name, written)| (written.as_str(), registry.put(&content(name)).unwrap()))
        .collect();
    registry.track_folder("data", &files).unwrap();
    registry.commit("Add files", DATE).unwrap();
    registry
}

fn assert_all_are_there(folder: &Path) {
    let found = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_vec());
    let expected: BTreeSet<_> = names().into_iter().map(|(name, _)| name).collect();
    assert_eq!(found.collect::<BTreeSet<_>>(), expected, "{}", folder.display());
    for name in expected {
        let path = folder.join(OsStr::from_bytes(&name));
        assert_eq!(fs::read(&path).unwrap(), content(&name), "{}", path.display());
    }
}

#[test]
fn every_name_is_shown_and_found_as_it_is() {
    let sandbox = Sandbox::new();
    let registry = registry(&sandbox);
    let mount = sandbox.mount_with(registry.repository(), &["--rev", "main"]);
    assert_all_are_there(&mount.path("git"));
    assert_all_are_there(&mount.path("data"));
    let long = mount.path("data").join("n".repeat(256));
    assert_eq!(fs::read(long).unwrap_err().raw_os_error(), Some(36), "ENAMETOOLONG");
}

#[test]
fn every_name_is_copied_as_it_is() {
    let sandbox = Sandbox::new();
    let registry = registry(&sandbox);
    for folder in ["git", "data"] {
        let mut get = sandbox.dvcfs(["get"]);
        succeed(get.arg(registry.repository()).arg(folder).arg("-o").arg(sandbox.path("out")));
        assert_all_are_there(&sandbox.path("out"));
        fs::remove_dir_all(sandbox.path("out")).unwrap();
    }
}

#[test]
fn names_in_messages_cannot_write_to_the_terminal() {
    let sandbox = Sandbox::new();
    let registry = registry(&sandbox);
    for name in ["\u{1b}[31mred", "two\nlines and more", "right \u{202e}to left"] {
        let said = refused(&sandbox, &mut cat(&sandbox, registry.repository(), name));
        assert!(said.starts_with("exit 1\n"), "{said}");
        let is_plain = |c: char| c == '\n' || !(c.is_control() || c == '\u{202e}');
        assert!(said.chars().all(is_plain), "{said:?}");
    }
    // A path that is no text at all is a path like any other.
    let mut command = sandbox.dvcfs([OsStr::new("cat")]);
    command.arg(registry.repository()).arg(OsStr::from_bytes(b"git/not utf-8 \xff\x80"));
    let printed = output(&mut command);
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    assert_eq!(printed.stdout, content(b"not utf-8 \xff\x80"));
}

#[test]
fn names_of_branches_and_tags_are_shown_as_they_are() {
    let sandbox = Sandbox::new();
    let registry = registry(&sandbox);
    let odd = ["w\u{f6}rk", "wo\u{308}rk", "a/b/c", "commits", "tags", "-dash"];
    for name in odd {
        registry.git(&["update-ref", &format!("refs/heads/{name}"), "HEAD"]).unwrap();
    }
    let mount = sandbox.mount(registry.repository());
    for name in odd {
        let path = mount.path("branches").join(name).join("git/-rf *");
        assert_eq!(fs::read(path).unwrap(), content(b"-rf *"), "{name}");
    }
    // The layout's own names win.
    assert!(!mount.path("commits/git").exists());
}
