#!/usr/bin/env bash
# Makes a Debian package in target/debian. Takes cargo-deb (cargo install --locked cargo-deb) and
# dpkg-dev. With --no-build the program in target/release is packed as it is; what else is said is
# passed on to cargo-deb.
#
#     systemd/package.sh [--no-build] [OPTION...]
#     systemd/package.sh --assets PROGRAM FOLDER
#
# The second form makes only what the package holds besides files of the repository: manual pages,
# completions, and the names that mount(8) calls.
set -euo pipefail
cd "$(dirname "$0")/.."

make_assets() {
    local program=$1 folder=$2
    rm -rf "$folder"
    mkdir -p "$folder/completions"
    "$program" man --out "$folder/man"
    "$program" completions bash >"$folder/completions/dvcfs"
    "$program" completions fish >"$folder/completions/dvcfs.fish"
    "$program" completions zsh >"$folder/completions/_dvcfs"
    ln -s ../bin/dvcfs "$folder/mount.dvcfs"
    ln -s mount.dvcfs "$folder/mount.fuse.dvcfs"
}

if [ "${1:-}" = --assets ]; then
    make_assets "$2" "$3"
    exit
fi
if [ "${1:-}" = --no-build ]; then
    shift
else
    cargo build --locked --release --bin dvcfs
fi
make_assets target/release/dvcfs target/assets
cargo deb --no-build --locked --strip "$@"
