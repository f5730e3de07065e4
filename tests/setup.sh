# Sourced by demo.sh and all.sh: installs what a fresh Debian or Ubuntu machine lacks.
# Rust (rustup) and git are expected to be there.

missing=()

# need PACKAGE COMMAND... notes a package as missing unless the command succeeds.
need() {
    local package=$1
    shift
    if ! "$@" >/dev/null 2>&1; then
        missing+=("$package")
    fi
}

# What building and mounting take.
need_for_mounting() {
    # libgit2 and the cryptography underneath TLS are C.
    need gcc command -v cc
    need libc6-dev test -e /usr/include/stdio.h
    need fuse3 command -v fusermount3
}

# What the tests take: programs that they run on mounts, and Python for DVC itself.
need_for_tests() {
    need python3 command -v python3
    need python3-venv python3 -c 'import ensurepip, venv'
    need rsync command -v rsync
    need sox command -v soxi
    need ffmpeg command -v ffprobe
    need sqlite3 command -v sqlite3
    need tar command -v tar
    need attr command -v getfattr
    need procps command -v ps
    need util-linux command -v flock
    # For manual pages, and for a terminal where there is none.
    need groff-base command -v groff
    need bsdutils command -v script
    need mount command -v mount
    need systemd command -v systemd-analyze
    # What a package of the program depends on is found by it.
    need dpkg-dev command -v dpkg-shlibdeps
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

install_missing() {
    if [ ${#missing[@]} -eq 0 ]; then
        return
    fi
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "error: not installed: ${missing[*]}" >&2
        return 1
    fi
    echo "Installing ${missing[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

require_cargo() {
    # rustup puts cargo where only the shells of the next log-in look.
    PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
    if ! command -v cargo >/dev/null 2>&1; then
        echo "error: cargo is not installed; get it with rustup" >&2
        return 1
    fi
}
