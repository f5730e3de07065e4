//! Faults while a mount runs: servers that go, caches that are damaged under open files, signals,
//! and secrets that must not get out meanwhile.

mod cached_files;
mod descriptors;
mod disks;
mod ends;
mod secrets;
mod servers;
mod waiting;
