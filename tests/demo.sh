#!/usr/bin/env bash
# Shows dvcfs at work on a small registry, without an account or a network:
# installs what is missing, builds, and runs tests/demo. Ctrl-C ends it and removes everything.
#
# usage: tests/demo.sh [--release] [--once]
#
# The build is the unoptimised one, which takes about half as long; reading is then slower than
# with --release, but still far faster than the demonstration needs.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/setup.sh

profile=()
profile_dir=debug
if [ "${1:-}" = --release ]; then
    profile=(--release)
    profile_dir=release
    shift
fi

need_for_mounting
install_missing
require_cargo
cargo build --locked "${profile[@]}" --bin dvcfs --example demo
exec "${CARGO_TARGET_DIR:-target}/$profile_dir/examples/demo" "$@"
