//! Loads whose own cost is low.

use std::{
    ffi::CString,
    fs::{self, File},
    hint::black_box,
    os::{
        fd::AsRawFd,
        unix::{
            ffi::OsStrExt,
            fs::{FileExt, MetadataExt},
        },
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const MIB: usize = 1 << 20;

/// Bytes read in one slice of sequential reading.
const SLICE: usize = 32 * MIB;

/// Reads or faults in one slice of random ones.
const RANDOM: usize = 2000;

/// Files in one slice of opens.
const FILES: usize = 500;

/// Slices of each side.
const ROUNDS: usize = 61;

/// Does one thing to `a` and `b` in turn, in slices short enough for both to meet the same machine,
/// and prints the fastest and the median slice of each and their ratios.
pub(crate) fn pair(operation: &str, a: &Path, b: &Path) {
    match operation {
        "read" => alternate(sequential(a), sequential(b)),
        "random" => alternate(random(a), random(b)),
        "map" => alternate(mapped(a), mapped(b)),
        "open" => alternate(opens(a, false), opens(b, false)),
        "open-read" => alternate(opens(a, true), opens(b, true)),
        other => panic!("no operation {other:?}"),
    }
}

fn alternate(mut a: impl FnMut(usize), mut b: impl FnMut(usize)) {
    let mut times: [Vec<Duration>; 2] = Default::default();
    for round in 0..ROUNDS {
        let begun = Instant::now();
        a(round);
        times[0].push(begun.elapsed());
        let begun = Instant::now();
        b(round);
        times[1].push(begun.elapsed());
    }
    for side in &mut times {
        side.sort();
    }
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let (best, middle) =
        (|side: usize| micros(times[side][0]), |side: usize| micros(times[side][ROUNDS / 2]));
    println!(
        "{{\"a_best\":{:.1},\"b_best\":{:.1},\"a_median\":{:.1},\"b_median\":{:.1},\
         \"best_ratio\":{:.3},\"median_ratio\":{:.3}}}",
        best(0),
        best(1),
        middle(0),
        middle(1),
        best(1) / best(0),
        middle(1) / middle(0)
    );
}

fn sequential(path: &Path) -> impl FnMut(usize) {
    let (file, slices) = open_slices(path);
    let mut buffer = vec![0; MIB];
    move |round| {
        let start = (round % slices) * SLICE;
        for at in (start..start + SLICE).step_by(MIB) {
            file.read_exact_at(&mut buffer, at as u64).unwrap();
        }
    }
}

fn random(path: &Path) -> impl FnMut(usize) {
    let (file, slices) = open_slices(path);
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut buffer = [0; 4096];
    move |_| {
        for _ in 0..RANDOM {
            let at = numbers.below(slices * SLICE / 4096) * 4096;
            file.read_exact_at(&mut buffer, at as u64).unwrap();
        }
    }
}

fn mapped(path: &Path) -> impl FnMut(usize) {
    let (file, slices) = open_slices(path);
    move |round| {
        let start = (round % slices) * SLICE;
        // SAFETY: a new mapping of a file that nobody changes; it is unmapped below.
        let map = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                SLICE,
                libc::PROT_READ,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                start as libc::off_t,
            )
        };
        assert_ne!(map, libc::MAP_FAILED);
        // SAFETY: the mapping has SLICE bytes and lives until it is unmapped.
        let bytes = unsafe { std::slice::from_raw_parts(map.cast::<u8>(), SLICE) };
        black_box(bytes.iter().step_by(4096).map(|byte| u64::from(*byte)).sum::<u64>());
        // SAFETY: nobody uses the mapping any more.
        unsafe { libc::munmap(map, SLICE) };
    }
}

fn opens(folder: &Path, is_read: bool) -> impl FnMut(usize) {
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| CString::new(entry.unwrap().path().as_os_str().as_bytes()).unwrap())
        .collect();
    paths.sort();
    let mut buffer = vec![0_u8; MIB];
    move |round| {
        for at in 0..FILES {
            let path = &paths[(round * FILES + at) % paths.len()];
            // SAFETY: plain system calls on a path and a buffer that are ours.
            unsafe {
                let file = libc::open(path.as_ptr(), libc::O_RDONLY);
                assert!(file >= 0, "{path:?}");
                let mut count = if is_read { buffer.len() as isize } else { 0 };
                while count == buffer.len() as isize {
                    count = libc::read(file, buffer.as_mut_ptr().cast(), buffer.len());
                    assert!(count >= 0, "{path:?}");
                }
                libc::close(file);
            }
        }
    }
}

/// Opens, reads and closes every file of a folder once.
pub(crate) fn each(folder: &Path) {
    let files = fs::read_dir(folder).unwrap().count();
    let mut read = opens(folder, true);
    let begun = Instant::now();
    for round in 0..files / FILES {
        read(round);
    }
    let read = (files / FILES * FILES) as f64;
    println!("{{\"micros\":{:.2}}}", begun.elapsed().as_secs_f64() * 1e6 / read);
}

/// Goes through a tree, asking for the attributes of each entry or not.
pub(crate) fn walk(dir: &Path, with_attributes: bool) {
    let begun = Instant::now();
    let (mut entries, mut bytes) = (0_u64, 0);
    let mut folders = vec![PathBuf::from(dir)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            entries += 1;
            if with_attributes {
                bytes += entry.metadata().unwrap().size();
            }
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            }
        }
    }
    let secs = begun.elapsed().as_secs_f64();
    println!("{{\"entries\":{entries},\"bytes\":{bytes},\"secs\":{secs:.4}}}");
}

fn open_slices(path: &Path) -> (File, usize) {
    let file = File::open(path).unwrap();
    let slices = file.metadata().unwrap().len() as usize / SLICE;
    (file, slices)
}

/// Numbers that look random and are the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}
