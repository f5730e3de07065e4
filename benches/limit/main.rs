//! What a FUSE file system can reach on this machine, and how to measure one beside it.
//!
//! ```text
//! limit mount DIR NATIVE passthrough|no-open   serves the folder NATIVE on DIR, at the least cost
//! limit pair OPERATION A B                     does the same to both sides in turn, as JSON
//! limit each DIR                               opens, reads and closes every file once, as JSON
//! limit walk DIR [attributes]                  goes through a tree once, as JSON
//! ```
//!
//! The yardstick knows the whole of NATIVE in advance and does nothing for a request but answer
//! it, so what it takes is what the kernel takes.

#![allow(clippy::unwrap_used, reason = "a benchmark that fails has no figure to give")]
#![allow(clippy::print_stdout, reason = "figures go to standard output")]

mod load;
mod serve;
mod tree;

use std::path::Path;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["mount", dir, native, mode] => {
            serve::mount(Path::new(dir), Path::new(native), mode == "passthrough");
        }
        ["pair", operation, a, b] => load::pair(operation, Path::new(a), Path::new(b)),
        ["each", dir] => load::each(Path::new(dir)),
        ["walk", dir] => load::walk(Path::new(dir), false),
        ["walk", dir, "attributes"] => load::walk(Path::new(dir), true),
        _ => println!(
            "usage: limit mount DIR NATIVE MODE | pair OPERATION A B | each DIR | walk DIR"
        ),
    }
}
