#!/usr/bin/env bash
# Runs every check on a fresh Debian or Ubuntu machine that has Rust (rustup) and git.
# Fails if any check fails, and if no test ran.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/setup.sh

target=${CARGO_TARGET_DIR:-target}

# Makes a Python environment with DVC and the S3 servers that the tests run against; one that was
# made from the same requirements is used again.
make_environment() {
    local venv=$1
    # One that was moved does not work any more.
    if cmp -s tests/requirements.txt "$venv/requirements.txt" &&
        "$venv/bin/dvc" --version >/dev/null 2>&1; then
        return
    fi
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r tests/requirements.txt
    cp tests/requirements.txt "$venv/requirements.txt"
}

# Makes cargo-deb, which packs the program, unless it is there.
make_packer() {
    mkdir -p "$target/tools/bin"
    PATH=$(cd "$target/tools/bin" && pwd):$PATH
    if ! cargo deb --version >/dev/null 2>&1; then
        cargo install --quiet --locked --root "$target/tools" cargo-deb@3.8.0
    fi
}

# run_tests ARGUMENT... runs `cargo test` and fails unless at least one test passed.
run_tests() {
    local log passed
    log=$(mktemp)
    cargo test --locked "$@" 2>&1 | tee "$log"
    passed=$(awk '/^test result: ok\./ { sum += $4 } END { print sum + 0 }' "$log")
    rm -f "$log"
    if [ "$passed" -eq 0 ]; then
        echo "error: cargo test $*: no test ran" >&2
        return 1
    fi
    total=$((total + passed))
}

need_for_mounting
need_for_tests
install_missing
require_cargo
mkdir -p "$target"
# Of these two one waits for the network while the other computes.
make_environment "$target/venv" &
environment=$!
make_packer
wait "$environment"
DVCFS_TEST_VENV=$(cd "$target/venv" && pwd)
export DVCFS_TEST_VENV

if cargo fmt --version >/dev/null 2>&1; then
    cargo fmt --check
fi
if cargo clippy --version >/dev/null 2>&1; then
    cargo clippy --locked --all-targets -- -D warnings
fi

total=0
run_tests --lib
run_tests --test it
cargo test --locked --doc
cargo build --locked --bins --example demo
"$target/debug/examples/demo" --once
# With an example, so that dependencies have the features that were checked above, and are not checked
# again.
RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --lib --example demo

echo "All checks passed; $total tests."
