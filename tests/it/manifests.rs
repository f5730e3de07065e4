//! Manifests as they are kept compiled in the state directory.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::{
    registry_builder::RegistryBuilder,
    support::{DATE, EIO, Sandbox, lose_manifests, registry_on_disk},
};

/// Enough files for a manifest that is kept on disk.
const COUNT: usize = 6000;

/// A registry with one folder of many files and one of few.
fn registry(sandbox: &Sandbox) -> RegistryBuilder {
    let registry = registry_on_disk(sandbox);
    let blob = registry.put(b"the same in each").unwrap();
    let names: Vec<_> = (0..COUNT).map(|n| format!("clip-{n:06}.wav")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), blob)).collect();
    registry.track_folder("many", &files).unwrap();
    registry.track_folder("few", &[("a", blob)]).unwrap();
    registry.commit("Add two folders", DATE).unwrap();
    registry
}

/// The one compiled file there is.
fn compiled(sandbox: &Sandbox) -> PathBuf {
    let files = fs::read_dir(sandbox.path("state/manifests")).unwrap();
    let files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    let [file] = files.as_slice() else { panic!("{files:?}") };
    file.clone()
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().into_string().unwrap());
    let mut names = fs::read_dir(folder)?.map(name).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

fn expected() -> Vec<String> {
    (0..COUNT).map(|n| format!("clip-{n:06}.wav")).collect()
}

#[test]
fn a_manifest_is_compiled_once_and_then_not_needed_any_more() {
    let sandbox = Sandbox::new();
    let registry = registry(&sandbox);
    let mount = sandbox.mount(registry.repository());
    assert_eq!(names(&mount.path("main/many")).unwrap(), expected());
    drop(mount);
    let before = fs::metadata(compiled(&sandbox)).unwrap().modified().unwrap();

    lose_manifests(&registry);
    fs::remove_dir_all(sandbox.cache()).unwrap();
    let mount = sandbox.mount(registry.repository());
    assert_eq!(names(&mount.path("main/many")).unwrap(), expected());
    assert_eq!(fs::read(mount.path("main/many/clip-001234.wav")).unwrap(), b"the same in each");
    assert_eq!(fs::metadata(compiled(&sandbox)).unwrap().modified().unwrap(), before);
}

#[test]
fn a_compiled_manifest_that_is_damaged_is_made_again() {
    let sandbox = Sandbox::new();
    let registry = registry(&sandbox);
    drop_after(&sandbox, &registry, |root| {
        assert_eq!(names(&root.join("many")).unwrap(), expected());
    });
    let file = compiled(&sandbox);
    let whole = fs::read(&file).unwrap();
    for at in [3, 70, whole.len() / 2, whole.len() - 5] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&file, damaged).unwrap();
        drop_after(&sandbox, &registry, |root| {
            assert_eq!(names(&root.join("many")).unwrap(), expected(), "byte {at}");
        });
        assert!(fs::read(&file).unwrap() == whole, "byte {at}");
    }
}

fn drop_after(sandbox: &Sandbox, registry: &RegistryBuilder, ask: impl FnOnce(&Path)) {
    let mount = sandbox.mount(registry.repository());
    ask(&mount.path("main"));
}

#[test]
fn a_compiled_manifest_that_is_cut_while_it_is_open_is_made_again_once() {
    let sandbox = Sandbox::new();
    let registry = registry(&sandbox);
    drop_after(&sandbox, &registry, |root| {
        names(&root.join("many")).unwrap();
    });
    let file = compiled(&sandbox);
    let whole = fs::read(&file).unwrap();
    let cut = || {
        let file = File::options().write(true).open(&file).unwrap();
        file.set_len(whole.len() as u64 / 2).unwrap();
        file.write_all_at(&[0; 64], whole.len() as u64 / 4).unwrap();
    };
    let mount = sandbox.mount(registry.repository());
    let first = mount.path("main/many/clip-000000.wav");
    assert_eq!(fs::metadata(&first).unwrap().len(), 16);
    cut();
    assert_eq!(names(&mount.path("main/many")).unwrap(), expected());
    assert_eq!(fs::read(first).unwrap(), b"the same in each");
    assert!(fs::read(&file).unwrap() == whole);
}

#[test]
fn a_compiled_manifest_that_cannot_be_made_again_closes_its_folder_alone() {
    let sandbox = Sandbox::new();
    let registry = registry(&sandbox);
    drop_after(&sandbox, &registry, |root| {
        names(&root.join("many")).unwrap();
    });
    let file = compiled(&sandbox);
    let mut damaged = fs::read(&file).unwrap();
    for byte in damaged.iter_mut().skip(64).step_by(1000) {
        *byte ^= 1;
    }
    fs::write(&file, damaged).unwrap();
    lose_manifests_of(&registry, "many");
    fs::remove_dir_all(sandbox.cache()).unwrap();
    let mount = sandbox.mount(registry.repository());
    let refused = names(&mount.path("main/many")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(EIO));
    assert_eq!(names(&mount.path("main/few")).unwrap(), ["a"]);
    assert_eq!(names(&mount.path("main")).unwrap().iter().filter(|n| *n == "many").count(), 1);
}

/// Takes the manifest of one folder out of the remote.
fn lose_manifests_of(registry: &RegistryBuilder, folder: &str) {
    let text = fs::read_to_string(registry.repository().join(format!("{folder}.dvc"))).unwrap();
    let id = text.lines().find_map(|line| line.strip_prefix("- md5: ")).unwrap();
    let path = registry.objects().join("files/md5").join(&id[..2]).join(&id[2..]);
    fs::remove_file(path).unwrap();
}

#[test]
fn list_and_diff_make_a_damaged_one_again_too() {
    let sandbox = Sandbox::new();
    let registry = registry(&sandbox);
    let list = || {
        let mut command = sandbox.dvcfs(["list", "--recursive", "--dvc-only"]);
        let output = command.arg(registry.repository()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let before = list();
    assert_eq!(before.lines().count(), COUNT + 1);
    let file = compiled(&sandbox);
    let whole = fs::read(&file).unwrap();
    let damage = || {
        let mut damaged = whole.clone();
        damaged[whole.len() / 2] ^= 1;
        fs::write(&file, damaged).unwrap();
    };
    damage();
    assert_eq!(list(), before);
    assert!(fs::read(&file).unwrap() == whole);

    registry.git(&["rm", "--quiet", "many.dvc"]).unwrap();
    registry.commit("Remove a folder", DATE).unwrap();
    damage();
    let mut command = sandbox.dvcfs(["diff"]);
    let output = command.arg(registry.repository()).args(["HEAD~1", "HEAD"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("many/clip-005999.wav"), "{text:.400}");
    assert!(fs::read(&file).unwrap() == whole);
}
