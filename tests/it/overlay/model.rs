//! Random changes to a writable mount and to a plain folder: both must end up the same.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::{
    fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with},
    io::Errno,
};

use super::{Writable, in_both_open_modes};
use crate::support::{md5_of, noise, succeed};

in_both_open_modes! {
    random_changes_end_up_as_on_a_disk,
}

/// How many times a mount begins anew, and how many changes there are each time.
const ROUNDS: u64 = 6;
const CHANGES: usize = 400;

/// Numbers that look random, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % sides
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.roll(choices.len())]
    }

    fn path(&mut self) -> String {
        const NAMES: [&str; 9] =
            ["data", "docs", "sub", "deep", "a.bin", "b.bin", "c.bin", "page.txt", "x"];
        let mut path =
            self.of(&["data", "docs", "README.md", "link", "x", "y", "data/sub"]).to_owned();
        for _ in 0..self.of(&[0, 0, 1, 1, 2]) {
            write!(path, "/{}", self.of(&NAMES)).unwrap();
        }
        path
    }
}

#[derive(Debug)]
enum Change {
    Write(String, u64, usize),
    Replace(String, usize),
    Resize(String, u64),
    Create(String),
    Unlink(String),
    Rmdir(String),
    Mkdir(String),
    Rename(String, String),
    RenameToFree(String, String),
    Symlink(String),
    Pipe(String),
    Mode(String, u32),
    Owner(String, u32),
    Read(String),
    Hold(String),
    WriteHeld(usize, u64, usize),
    ReadHeld(usize),
    ResizeHeld(usize, u64),
    Release(usize),
}

fn change(dice: &mut Dice) -> Change {
    let (path, offset, size) = (dice.path(), dice.roll(30_000) as u64, dice.roll(9000));
    match dice.roll(26) {
        0..=2 => Change::Write(path, offset, size),
        3 => Change::Replace(path, size),
        4 => Change::Resize(path, offset),
        5 | 6 => Change::Create(path),
        7 | 8 => Change::Unlink(path),
        9 => Change::Rmdir(path),
        10 | 11 => Change::Mkdir(path),
        12..=15 => Change::Rename(path, dice.path()),
        16 => Change::RenameToFree(path, dice.path()),
        17 => Change::Symlink(path),
        18 => {
            if dice.roll(4) == 0 {
                Change::Pipe(path)
            } else {
                Change::Owner(path, 7)
            }
        }
        19 => Change::Mode(path, dice.of(&[0o600, 0o755, 0o444, 0o4711, 0o700])),
        20 => Change::Read(path),
        21 | 22 => Change::Hold(path),
        23 => Change::WriteHeld(dice.roll(4), offset, size),
        24 => {
            if dice.roll(2) == 0 {
                Change::ReadHeld(dice.roll(4))
            } else {
                Change::ResizeHeld(dice.roll(4), offset)
            }
        }
        _ => Change::Release(dice.roll(4)),
    }
}

/// One of the two places, with the files that are held open in it.
struct Side {
    root: PathBuf,
    held: Vec<File>,
}

impl Side {
    fn apply(&mut self, change: &Change) -> io::Result<Vec<u8>> {
        let at = |path: &str| self.root.join(path);
        let open = |path: &str| OpenOptions::new().read(true).write(true).open(at(path));
        let is_pipe = |path: &str| {
            use std::os::unix::fs::FileTypeExt;
            fs::metadata(at(path)).is_ok_and(|found| found.file_type().is_fifo())
        };
        let none = |result: io::Result<()>| result.map(|()| Vec::new());
        match change {
            // A pipe would wait for its other end.
            Change::Write(path, ..)
            | Change::Replace(path, _)
            | Change::Read(path)
            | Change::Create(path)
            | Change::Hold(path)
            | Change::Resize(path, _)
                if is_pipe(path) =>
            {
                Ok(Vec::new())
            }
            Change::Write(path, offset, size) => {
                none(open(path)?.write_all_at(&noise(*offset, *size), *offset))
            }
            Change::Replace(path, size) => none(fs::write(at(path), noise(1, *size))),
            Change::Resize(path, size) => none(open(path)?.set_len(*size)),
            Change::Create(path) => File::create_new(at(path)).map(|_| Vec::new()),
            Change::Unlink(path) => none(fs::remove_file(at(path))),
            Change::Rmdir(path) => none(fs::remove_dir(at(path))),
            Change::Mkdir(path) => none(fs::create_dir(at(path))),
            Change::Rename(old, new) => none(fs::rename(at(old), at(new))),
            Change::RenameToFree(old, new) => {
                let flags = RenameFlags::NOREPLACE;
                none(renameat_with(CWD, at(old), CWD, at(new), flags).map_err(Into::into))
            }
            Change::Symlink(path) => none(symlink("data/a.bin", at(path))),
            Change::Pipe(path) => {
                let made = mknodat(CWD, at(path), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0);
                none(made.map_err(Into::into))
            }
            Change::Mode(path, mode) => {
                none(fs::set_permissions(at(path), Permissions::from_mode(*mode)))
            }
            Change::Owner(path, id) => {
                none(std::os::unix::fs::lchown(at(path), Some(*id), Some(*id)))
            }
            Change::Read(path) => fs::read(at(path)),
            Change::Hold(path) => {
                let file = open(path)?;
                if self.held.len() < 4 {
                    self.held.push(file);
                }
                Ok(Vec::new())
            }
            Change::WriteHeld(number, offset, size) => match self.held.get(*number) {
                Some(file) => none(file.write_all_at(&noise(*offset, *size), *offset)),
                None => Ok(Vec::new()),
            },
            Change::ResizeHeld(number, size) => match self.held.get(*number) {
                Some(file) => none(file.set_len(*size)),
                None => Ok(Vec::new()),
            },
            Change::ReadHeld(number) => match self.held.get(*number) {
                Some(file) => {
                    let found = file.metadata()?;
                    let mut bytes = vec![0; found.len() as usize];
                    file.read_exact_at(&mut bytes, 0)?;
                    bytes.extend(found.mode().to_le_bytes());
                    Ok(bytes)
                }
                None => Ok(Vec::new()),
            },
            Change::Release(number) => {
                if *number < self.held.len() {
                    self.held.remove(*number);
                }
                Ok(Vec::new())
            }
        }
    }

    /// Everything below, with its kind, mode, owner and content.
    fn everything(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        describe(&self.root, Path::new(""), &mut found);
        found
    }
}

fn describe(root: &Path, folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(root.join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = folder.join(entry.file_name());
        let metadata = entry.metadata().unwrap();
        let mut text = format!("{:o} {}", metadata.mode(), metadata.uid());
        if metadata.is_dir() {
            describe(root, &path, found);
        } else if metadata.is_symlink() {
            write!(text, " to {}", fs::read_link(entry.path()).unwrap().display()).unwrap();
        } else if metadata.is_file() {
            let (md5, size) = md5_of(&entry.path())
                .unwrap_or_else(|error| panic!("{}: {error}", entry.path().display()));
            assert_eq!(size, metadata.len(), "{}", path.display());
            write!(text, " {size} bytes {md5}").unwrap();
        }
        found.insert(path, text);
    }
}

fn random_changes_end_up_as_on_a_disk() {
    for seed in 1..=3 {
        let mut writable = Writable::new();
        let plain = writable.sandbox.path("plain");
        succeed(Command::new("cp").arg("-a").arg(writable.mounted().dir()).arg(&plain));
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        for round in 0..ROUNDS {
            let mut log = String::new();
            let mut sides = [writable.mounted().dir(), &plain]
                .map(|root| Side { root: root.into(), held: Vec::new() });
            for number in 0..CHANGES {
                let change = change(&mut dice);
                let [mounted, expected] = [0, 1].map(|side| {
                    sides[side].apply(&change).map_err(|error| Errno::from_io_error(&error))
                });
                let outcome = mounted.as_ref().map(Vec::len);
                writeln!(log, "{change:?}: {outcome:?}").unwrap();
                assert!(
                    mounted == expected,
                    "seed {seed} round {round}: {:?} instead of {:?}\n{log}",
                    outcome,
                    expected.map(|bytes| bytes.len())
                );
                if number % 40 == 0 {
                    assert_eq!(
                        sides[0].everything(),
                        sides[1].everything(),
                        "seed {seed} round {round}\n{log}"
                    );
                }
            }
            for side in &mut sides {
                side.held.clear();
            }
            writable.remount();
            assert_eq!(
                sides[0].everything(),
                sides[1].everything(),
                "seed {seed} after round {round}\n{log}"
            );
        }
    }
}

/// Every file and link below, with its content; folders are there by what is in them.
fn contents(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    describe(root, Path::new(""), &mut found);
    let is_told = |path: &Path| {
        let name = path.file_name().unwrap().to_string_lossy();
        !name.ends_with(".dvc") && name != ".gitignore" && !root.join(path).is_dir()
            || root.join(path).is_symlink()
    };
    found.retain(|path, _| is_told(path));
    // Neither git nor DVC keeps every bit of a mode, nor the owner.
    for text in found.values_mut() {
        let words: Vec<_> = text.split(' ').map(str::to_owned).collect();
        *text = words[2..].join(" ");
    }
    found
}

/// Snapshots of whatever was changed at random, all of it or a part, change nothing that is shown.
#[test]
fn random_changes_are_shown_by_the_commits_of_them() {
    let mut recorded = 0;
    for seed in 1..=4 {
        let mut writable = Writable::new();
        let root = writable.mounted().dir().to_owned();
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed * 7));
        for round in 0..8 {
            let mut log = String::new();
            let mut side = Side { root: root.clone(), held: Vec::new() };
            for _ in 0..60 {
                let change = change(&mut dice);
                let outcome = side.apply(&change).map(|bytes| bytes.len());
                writeln!(log, "{change:?}: {outcome:?}").unwrap();
            }
            side.held.clear();
            let before = contents(&root);
            let paths: Vec<_> = (0..dice.of(&[0, 1, 1, 2, 3])).map(|_| dice.path()).collect();
            let is_there = |path: &&str| root.join(path).symlink_metadata().is_ok();
            let paths: Vec<_> = paths.iter().map(String::as_str).filter(is_there).collect();
            let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
            let said = loop {
                let (code, said) = writable.run("snapshot", &[&["-m", "x"], &paths[..]].concat());
                recorded += usize::from(code == Some(0) || said.contains(" recorded ("));
                // The kernel tells of the end of a file after whoever closed it goes on.
                if code != Some(9) {
                    break said;
                }
                assert!(std::time::Instant::now() < until, "{said}");
            };
            let what = format!("seed {seed} round {round} {paths:?}\n{said}\n{log}");
            assert_eq!(contents(&root), before, "{what}");
            writable.remount();
            assert_eq!(contents(&root), before, "mounted again: {what}");
        }
        let mut git = writable.sandbox.git(writable.registry.repository());
        succeed(git.args(["fsck", "--strict"]));
    }
    assert!(recorded > 8, "{recorded}");
}
