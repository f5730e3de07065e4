//! What is here is answered at once, however many wait for what is not.

use std::{fs, thread};

use crate::{
    s3server::{Fault, Gate},
    support::{DATE, Sandbox, eventually, in_each_open_mode, list, noise, registry_on_s3},
};

in_each_open_mode! {
    what_is_cached_is_read_while_downloads_stall,
}

/// More than there are threads that talk to the kernel.
const WAITING: u64 = 24;

fn what_is_cached_is_read_while_downloads_stall() {
    let sandbox = Sandbox::new();
    let (registry, server) = registry_on_s3(&sandbox);
    let put = |seed| registry.put(&noise(seed, 20_000)).unwrap();
    let here = put(1000);
    registry.track_file("here", &here).unwrap();
    for number in 0..WAITING {
        registry.track_file(&format!("away-{number}"), &put(number)).unwrap();
    }
    registry.text("folder/text", "of git\n").unwrap();
    registry.commit("Add files", DATE).unwrap();
    let mount = sandbox.mount_with(registry.repository(), &["--rev", "main"]);
    assert!(fs::read(mount.path("here")).unwrap() == noise(1000, 20_000));

    server.reset();
    let gate = Gate::new();
    server.fail_always(Fault::Stall(gate.clone()));
    thread::scope(|scope| {
        for number in 0..WAITING {
            let path = mount.path(format!("away-{number}"));
            scope.spawn(move || assert!(fs::read(path).unwrap() == noise(number, 20_000)));
        }
        eventually("all wait for the server", || server.log().len() as u64 >= WAITING);
        // Were these to wait, too, the watchdog would end the mount.
        assert!(fs::read(mount.path("here")).unwrap() == noise(1000, 20_000));
        assert_eq!(fs::read(mount.path("folder/text")).unwrap(), b"of git\n");
        assert_eq!(list(&mount.path("folder")).len(), 1);
        assert_eq!(mount.path("away-3").metadata().unwrap().len(), 20_000);
        assert!(mount.path("nothing").metadata().is_err());
        gate.open();
        server.heal();
    });
}
