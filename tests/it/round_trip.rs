//! Data goes through a mount to DVC, and from DVC to a mount, over S3, for every family of
//! fixtures.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    s3server::{Options, S3Server},
    support::{
        Dvc, FIXTURES, Fixture, Listing, Mount, Sandbox, assert_same, eventually, list, noise,
        output, succeed, text,
    },
};

/// What is done to a fixture.
struct Family {
    name: &'static str,
    revision: &'static str,
    /// Files that get new bytes, or are new.
    written: &'static [&'static str],
    removed: &'static [&'static str],
    /// Outputs that DVC is told to add again; where their `.dvc` file lies elsewhere, that, to be
    /// committed again.
    added: &'static [&'static str],
    /// The same where a `.dvc` file tells no size of a folder, or of a file that stayed the same:
    /// DVC adds one.
    sized: &'static [&'static str],
    /// What DVC pulls; nothing for everything.
    pulled: &'static [&'static str],
}

const FAMILIES: [Family; 13] = [
    Family {
        name: "audio-registry",
        revision: "v2.1",
        written: &[
            "audio/quiet.wav",
            "audio/speech/new/s200.wav",
            "audio/speech/s001.wav",
            "audio/extra.wav",
            "notes/changes.txt",
            "notes/new.txt",
        ],
        removed: &["audio/music/track 1.wav"],
        added: &["audio/quiet.wav", "audio/music", "audio/extra.wav"],
        sized: &["audio/speech"],
        pulled: &[],
    },
    Family {
        name: "git-extras",
        revision: "g1",
        written: &["d.bin", "folder/e.bin", "folder/real.txt"],
        removed: &["lfs.dat"],
        added: &["d.bin", "folder/e.bin"],
        sized: &[],
        pulled: &[],
    },
    Family {
        name: "hostile",
        revision: "base",
        written: &["good.bin", "gooddir/new.bin"],
        removed: &[],
        added: &["good.bin", "gooddir"],
        sized: &[],
        pulled: &[],
    },
    Family {
        name: "imports",
        revision: "i2",
        written: &["new.bin", "other.bin"],
        removed: &[],
        added: &["new.bin", "other.bin"],
        sized: &[],
        pulled: &["new.bin", "other.bin"],
    },
    Family {
        name: "layouts",
        revision: "y2",
        written: &["crlf.bin", "late.bin", "new.bin", "flow.bin", "sounds/new.wav", "texts/t1.txt"],
        removed: &[],
        added: &["crlf.bin", "late.bin", "new.bin", "dvc_files/flow.dvc", "dvc_files/sounds.dvc"],
        sized: &["dvc_files/deep/texts.dvc"],
        pulled: &[],
    },
    Family {
        name: "legacy-2x",
        revision: "l2",
        written: &["binary.bin", "lf-twin.txt", "run.sh", "new.bin"],
        removed: &["ratio31.bin"],
        added: &["binary.bin", "lf-twin.txt", "run.sh", "new.bin"],
        sized: &[],
        pulled: &[],
    },
    Family {
        name: "mixed-2-3",
        revision: "m4",
        written: &["umlaut.txt", "fresh.txt", "docs/added.txt", "wav/a.wav"],
        removed: &["crlf.txt"],
        added: &["umlaut.txt", "fresh.txt", "docs", "wav"],
        sized: &[],
        pulled: &[],
    },
    Family {
        name: "modes",
        revision: "x2",
        written: &["tool.sh", "git-tool.sh", "empties/new.bin", "bin/new", "empty.bin"],
        removed: &["user-only.sh"],
        added: &["tool.sh", "empties", "bin", "empty.bin"],
        sized: &[],
        pulled: &[],
    },
    Family {
        name: "nested-dirs",
        revision: "n2",
        written: &["many/g13/h6/f0433.txt", "many/g13/new", "order/a/c", "order/a-c", "void/full"],
        removed: &["order/a.b"],
        added: &["many", "order", "void"],
        sized: &[],
        pulled: &[],
    },
    Family {
        name: "odd-names",
        revision: "o1",
        written: &["single/#hash.txt", "single/1e3", "tree/back\\slash new", "tree/sp ace.txt"],
        removed: &["tree/quo'te.txt", "single/dq\"x.txt"],
        added: &["single/#hash.txt", "single/1e3", "tree"],
        sized: &[],
        pulled: &[],
    },
    Family {
        name: "pipeline",
        revision: "p2",
        written: &["new.bin", "notes.txt"],
        removed: &[],
        added: &["new.bin"],
        sized: &[],
        pulled: &[],
    },
    Family {
        name: "remotes",
        revision: "q3",
        written: &["chain.bin", "cold.bin", "colddir/new.bin", "default.bin"],
        removed: &[],
        added: &["chain.bin", "cold.bin", "colddir", "default.bin"],
        sized: &[],
        pulled: &[],
    },
    Family {
        name: "subrepos",
        revision: "s1",
        written: &[
            "data/new.bin",
            "proj/a/a.bin",
            "proj/a/dir/new.bin",
            "proj/a/nested/n.bin",
            "proj/b/b.bin",
            "proj/b/new.bin",
        ],
        removed: &[],
        added: &[
            "data",
            "proj/a/a.bin",
            "proj/a/dir",
            "proj/a/nested/n.bin",
            "proj/b/b.bin",
            "proj/b/new.bin",
        ],
        sized: &[],
        pulled: &[],
    },
];

/// Each project of a fixture, innermost first, with what lies in it and in no other.
const PROJECTS: [&str; 4] = ["proj/a/nested", "proj/a", "proj/b", ""];

/// A fixture whose stores are in a bucket.
struct Trip {
    server: S3Server,
    top: PathBuf,
    mount: Option<Mount>,
    family: &'static Family,
    /// Last, so that it outlives the mount.
    sandbox: Sandbox,
}

impl Trip {
    /// Unpacks a fixture and mounts a branch at its revision, writable.
    fn new(family: &'static Family) -> Self {
        let sandbox = Sandbox::new();
        let fixture = Fixture::read(family.name);
        let place = fixture.unpack(&sandbox);
        let bucket = sandbox.folder("s3/bucket");
        for entry in fs::read_dir(&place.top).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name().to_str().unwrap().starts_with("store") {
                fs::rename(entry.path(), bucket.join(entry.file_name())).unwrap();
            }
        }
        let server = S3Server::start(sandbox.path("s3"), Options::default());
        let mut trip = Self { sandbox, server, top: place.top, mount: None, family };
        let clone = trip.top.join("clone");
        let commit = format!("{}^{{commit}}", family.revision);
        succeed(trip.git("clone").args(["branch", "work", &commit]));
        succeed(trip.git("clone").args(["push", "--quiet", "origin", "work"]));
        trip.configure(&clone);
        let overlay = format!("--overlay={}", trip.sandbox.path("overlay").display());
        let dir = trip.sandbox.folder("mnt");
        let args = ["--rev", "work", &overlay];
        trip.mount = Some(trip.sandbox.mount_at(&dir, &clone, &args));
        trip
    }

    fn git(&self, clone: &str) -> std::process::Command {
        self.sandbox.git(&self.top.join(clone))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.mount.as_ref().unwrap().path(name)
    }

    fn run(&self, command: &str, args: &[&str]) -> (Option<i32>, String) {
        let mut dvcfs = self.sandbox.dvcfs([command]);
        let output = output(dvcfs.arg(self.mount.as_ref().unwrap().dir()).args(args));
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    fn must(&self, command: &str, args: &[&str]) {
        let (code, said) = self.run(command, args);
        assert_eq!(code, Some(0), "{}: {command}: {said}", self.family.name);
    }

    /// Has every remote of a clone that is a folder beside it be the bucket.
    fn configure(&self, clone: &Path) {
        for project in PROJECTS {
            let folder = clone.join(project).join(".dvc");
            let Ok(config) = fs::read_to_string(folder.join("config")) else { continue };
            let mut local = String::new();
            let mut header = "";
            for line in config.lines() {
                let line = line.split("  #").next().unwrap().trim();
                if line.starts_with('[') {
                    header = line;
                }
                if let Some((_, store)) = line
                    .split_once("url = ../")
                    .map(|(key, url)| (key, url.rsplit('/').next().unwrap()))
                {
                    let url = [header, "\n    url = s3://bucket/", store];
                    let server = ["\n    endpointurl = ", &self.server.endpoint(), "\n"].concat();
                    local.extend(url.into_iter().chain([server.as_str()]));
                }
            }
            fs::write(folder.join("config.local"), local).unwrap();
        }
    }

    /// A clone of what is upstream, with settings of its own.
    fn fresh(&self, name: &str) -> PathBuf {
        let clone = self.top.join(name);
        let mut git = self.sandbox.git(&self.top);
        let bare = self.top.join("repo.git");
        succeed(git.args(["clone", "--quiet", "--branch", "work"]).arg(bare).arg(&clone));
        self.configure(&clone);
        clone
    }

    /// New bytes for a file.
    fn content(name: &str, seed: u64) -> Vec<u8> {
        if [".txt", ".md", ".sh"].iter().any(|ending| name.ends_with(ending)) {
            return format!("{name}, version {seed}\n").into_bytes();
        }
        noise(seed + name.len() as u64, 70_000)
    }
}

/// The projects of a clone with those of the given paths that lie in each, relative to it.
fn by_project<'a>(clone: &Path, paths: &[&'a str]) -> Vec<(PathBuf, Vec<&'a str>)> {
    let mut left: Vec<_> = paths.to_vec();
    let projects = PROJECTS.into_iter().filter(|project| clone.join(project).join(".dvc").is_dir());
    let projects = projects.map(|project| {
        let is_in = |path: &&str| project.is_empty() || path.starts_with(&format!("{project}/"));
        let (inside, outside) = left.iter().partition(|path| is_in(path));
        left = outside;
        let skipped = if project.is_empty() { 0 } else { project.len() + 1 };
        (clone.join(project), inside.into_iter().map(|path: &str| &path[skipped..]).collect())
    });
    projects.collect()
}

/// A tree without what belongs to git, DVC and us alone.
fn data_of(root: &Path) -> Listing {
    let is_ours = |path: &[u8]| {
        let path = String::from_utf8_lossy(path).into_owned();
        let mut names = path.split('/');
        let private = ["cache", "tmp", "config.local"];
        let is_private = PROJECTS.iter().any(|project| {
            private.iter().any(|name| {
                let place = Path::new(project).join(".dvc").join(name);
                Path::new(&path).starts_with(place)
            })
        });
        is_private || names.any(|name| [".git", ".dvcfs", ".revs"].contains(&name))
    };
    list(root).into_iter().filter(|(path, _)| !is_ours(path)).collect()
}

/// Changes a fixture through a mount, publishes it, has DVC fetch and judge it, has DVC change it,
/// and sees that in the mount.
fn round_trip(name: &str) {
    let family = FAMILIES.iter().find(|family| family.name == name).unwrap();
    let trip = Trip::new(family);
    for (name, seed) in family.written.iter().zip(100..) {
        let path = trip.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, Trip::content(name, seed)).unwrap();
    }
    for name in family.removed {
        fs::remove_file(trip.path(name)).unwrap();
    }
    trip.must("snapshot", &["-m", "Change through a mount"]);
    trip.must("push", &[]);

    let fresh = trip.fresh("fresh");
    let mut dvc = Dvc::start(&trip.sandbox);
    let data = judge(&trip, &mut dvc, &fresh);
    for (name, seed) in family.written.iter().zip(100..) {
        assert!(fs::read(fresh.join(name)).unwrap() == Trip::content(name, seed), "{name}");
    }
    if family.pulled.is_empty() {
        assert_same(family.name, &data, &data_of(trip.mount.as_ref().unwrap().dir()));
    }
    add_again(&trip, &mut dvc, &fresh, family.added);
    let changed = text(trip.git("fresh").args(["status", "--porcelain"]));
    assert_eq!(changed, "", "{}: dvc add changes what is recorded", family.name);
    add_again(&trip, &mut dvc, &fresh, family.sized);
    let changed = text(trip.git("fresh").args(["diff", "--unified=0", "--no-prefix"]));
    let lines = changed.lines().filter(|line| line.starts_with(['+', '-']));
    let lines: Vec<_> = lines.filter(|line| !line.starts_with("+++ ")).collect();
    let is_size = |line: &&str| line.starts_with("+  size: ") || line.starts_with("--- ");
    assert!(lines.iter().all(is_size), "{}: {changed}", family.name);
    assert_eq!(lines.len(), 2 * family.sized.len(), "{}: {changed}", family.name);
    succeed(trip.git("fresh").args(["checkout", "--quiet", "."]));

    follow_dvc(&trip, &mut dvc, &fresh);
}

/// Has DVC add the same files again, or commit what these `.dvc` files track.
fn add_again(trip: &Trip, dvc: &mut Dvc, fresh: &Path, added: &[&str]) {
    for (project, targets) in by_project(fresh, added) {
        let (records, outputs): (Vec<_>, Vec<_>) =
            targets.into_iter().partition(|target| target.ends_with(".dvc"));
        let commands = [(&["add"][..], outputs), (&["commit", "--force"][..], records)];
        let commands = commands.iter().filter(|(_, targets)| !targets.is_empty());
        let commands: Vec<_> =
            commands.map(|(words, targets)| [*words, targets].concat()).collect();
        let commands: Vec<_> = commands.iter().map(|words| &words[..]).collect();
        dvc.must(&trip.sandbox, &project, &commands);
    }
}

/// Has DVC pull everything into a fresh clone and find nothing to say about it; gives what is there.
fn judge(trip: &Trip, dvc: &mut Dvc, fresh: &Path) -> Listing {
    for (project, pulled) in by_project(fresh, trip.family.pulled) {
        let with = |words: &[&'static str]| [words, &pulled].concat();
        let mut commands = vec![with(&["pull"]), with(&["status"]), with(&["status", "--cloud"])];
        // It takes no targets. Told later, DVC would hash old text anew, and in another way.
        commands.push(vec!["data", "status"]);
        let commands: Vec<_> = commands.iter().map(|words| &words[..]).collect();
        let said = dvc.must(&trip.sandbox, &project, &commands);
        let at = format!("{} in {}", trip.family.name, project.display());
        assert_eq!(said[1], "Data and pipelines are up to date.\n", "{at}");
        assert!(said[2].ends_with("are in sync.\n"), "{at}: {}", said[2]);
        assert_no_changes(trip.family, &said[3], &at);
    }
    data_of(fresh)
}

/// What `dvc data status` says, as far as it can be clean.
fn assert_no_changes(family: &Family, told: &str, at: &str) {
    let has = |words: &[&str]| words.iter().any(|word| told.contains(word));
    if !family.pulled.is_empty() {
        // What was not pulled is not there.
        let is_told = |name: &&str| told.lines().any(|line| line.trim().ends_with(*name));
        assert!(!has(&["added:", "modified:", "renamed:", "unknown:"]), "{at}: {told}");
        assert!(!family.pulled.iter().any(is_told), "{at}: {told}");
    } else if family.name == "odd-names" {
        // DVC tells of renames where it reads its own odd names differently.
        let others = ["added:", "modified:", "deleted:", "unknown:", "uncommitted", "Not in cache"];
        assert!(!has(&others), "{at}: {told}");
    } else {
        assert!(told.starts_with("No changes.\n"), "{at}: {told}");
    }
}

/// DVC changes what was written before, and publishes it; the mount shows it.
fn follow_dvc(trip: &Trip, dvc: &mut Dvc, fresh: &Path) {
    let Some(name) = trip.family.added.iter().find(|name| trip.family.written.contains(name))
    else {
        return;
    };
    let bytes = Trip::content(name, 200);
    fs::remove_file(fresh.join(name)).unwrap();
    fs::write(fresh.join(name), &bytes).unwrap();
    for (project, targets) in by_project(fresh, &[name]) {
        if let [target] = targets[..] {
            let record = format!("{target}.dvc");
            dvc.must(&trip.sandbox, &project, &[&["add", target], &["push", &record]]);
        }
    }
    succeed(trip.git("fresh").args(["commit", "--quiet", "--all", "--message", "Change by DVC"]));
    succeed(trip.git("fresh").args(["push", "--quiet", "origin", "work"]));
    succeed(trip.git("clone").args(["fetch", "--quiet", "origin", "+work:work"]));
    trip.must("refresh", &[]);
    eventually("the mount shows what DVC recorded", || fs::read(trip.path(name)).unwrap() == bytes);
}

macro_rules! families {
    ($($test:ident: $name:literal,)*) => {
        $(#[test]
        fn $test() {
            round_trip($name);
        })*

        const TRIED: &[&str] = &[$($name),*];
    };
}

families! {
    an_audio_registry_goes_there_and_back: "audio-registry",
    links_and_submodules_go_there_and_back: "git-extras",
    what_is_sound_beside_defects_goes_there_and_back: "hostile",
    data_beside_imports_goes_there_and_back: "imports",
    hand_made_layouts_go_there_and_back: "layouts",
    data_of_dvc_2_goes_there_and_back: "legacy-2x",
    data_of_dvc_2_and_3_goes_there_and_back: "mixed-2-3",
    modes_go_there_and_back: "modes",
    deep_folders_go_there_and_back: "nested-dirs",
    odd_names_go_there_and_back: "odd-names",
    data_beside_pipelines_goes_there_and_back: "pipeline",
    outputs_in_several_remotes_go_there_and_back: "remotes",
    projects_in_projects_go_there_and_back: "subrepos",
}

/// What a bucket keeps by version is left as it is, and says so; what is beside it goes on.
#[test]
fn text_beside_a_versioned_bucket_goes_there() {
    static FAMILY: Family = Family {
        name: "cloud-versioned",
        revision: "c2",
        written: &["README.md"],
        removed: &[],
        added: &[],
        sized: &[],
        pulled: &[],
    };
    let trip = Trip::new(&FAMILY);
    fs::write(trip.path("README.md"), "read this\n").unwrap();
    fs::write(trip.path("f.wav"), noise(1, 1000)).unwrap();
    let (code, said) = trip.run("snapshot", &["-m", "Change through a mount"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("left as it is: f.wav: a bucket keeps it by version"), "{said}");
    trip.must("push", &[]);
    let changed = ["diff", "--name-status", "c2", "origin/work"];
    trip.fresh("fresh");
    assert_eq!(text(trip.git("fresh").args(changed)), "A\tREADME.md");
    assert!(fs::read(trip.path("f.wav")).unwrap() == noise(1, 1000));
}

#[test]
fn no_family_is_left_out() {
    let tried: BTreeSet<_> = TRIED.iter().chain(&["cloud-versioned"]).collect();
    assert_eq!(tried, FIXTURES.iter().collect());
}
