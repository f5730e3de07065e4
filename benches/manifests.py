#!/usr/bin/env python3
"""What many files cost: a million in one manifest, and a hundred thousand `.dvc` files.

    cargo build --release && python3 benches/manifests.py

Each line gives the time, how much of it the daemon's processor time was, and its resident memory
then and at its highest. The parts below the mount are
measured by `DVCFS_BENCH_LARGE=1 cargo bench --bench manifests`. Touches only the folder it makes.
"""

import argparse
import os
import subprocess
import time

from bench import Workshop, row, table

MILLION = 1_000_000
DOTFILES = 100_000
COMMITS = 1_000


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="target/release")
    parser.add_argument("--work", help="folder for data, on the disk to be measured")
    args = parser.parse_args()
    table("what", "seconds", "of them in the daemon", "daemon, MB now / at most")
    with Workshop(args.work, args.target) as shop:
        million(shop)
    with Workshop(args.work, args.target) as shop:
        dotfiles(shop)


def million(shop):
    """Digests of nothing: no content is asked for."""
    shop.track_entries("many", {
        f"speaker_{n // 1000:05}/clip_{n % 1000:06}.wav": f"{n * 0x9e3779b97f4a7c15f39cc060 % 2**128:032x}"
        for n in range(MILLION)})
    shop.commit()
    for which in ("first", "second"):
        with shop.ours() as mount:
            timed(mount, f"{which} mount: first look into the million", os.listdir, "many")
            timed(mount, "one folder of it", os.listdir, "many/speaker_00500")
            timed(mount, "walk by names", walk, "many")
            timed(mount, "walk again", walk, "many")


def dotfiles(shop):
    shop.commit()
    text = "outs:\n- md5: {:032x}\n  size: 6\n  hash: md5\n  path: {:06}.wav\n"

    def change(numbers, seed):
        yield f"commit refs/heads/main\ncommitter A <a@localhost> {1700000000 + seed} +0000\ndata 0\n"
        yield "from refs/heads/main^0\n" if seed == 0 else ""
        for n in numbers:
            data = text.format(n + seed * DOTFILES, n)
            yield f"M 100644 inline d{n // 100:04}/{n:06}.wav.dvc\ndata {len(data)}\n{data}\n"
        yield "\n"

    git = subprocess.Popen(["git", "-C", shop.repo, "fast-import", "--quiet"], stdin=subprocess.PIPE)
    for commit in range(COMMITS):
        numbers = range(DOTFILES) if commit == 0 else [commit * 7919 % DOTFILES]
        git.stdin.writelines(line.encode() for line in change(numbers, commit))
    git.stdin.close()
    assert git.wait() == 0
    begin = time.perf_counter()
    with shop.all_revisions() as mount:
        row("100,000 `.dvc` files: mounted", time.perf_counter() - begin, "", resident(mount))
        timed(mount, "first revision", os.listdir, "main/d0500")
        timed(mount, "next revision", os.listdir, "at/main~1/d0500")
        for back in range(100, 900, 200):
            timed(mount, f"{back} commits back", os.listdir, f"at/main~{back}/d0500")


def walk(root):
    """Counts what is below a folder by names and kinds alone."""
    count, open_folders = 0, [root]
    while open_folders:
        with os.scandir(open_folders.pop()) as entries:
            for entry in entries:
                count += 1
                if entry.is_dir():
                    open_folders.append(entry.path)
    return count


def timed(mount, what, ask, path):
    begin, used = time.perf_counter(), mount.processor_time()
    answer = ask(mount.path / path)
    seconds, used = time.perf_counter() - begin, mount.processor_time() - used
    assert answer
    row(what, seconds, used, resident(mount))


def resident(mount):
    """Megabytes now, and at the highest."""
    with open(f"/proc/{mount.pid}/status") as status:
        most = next(line for line in status if line.startswith("VmHWM"))
    return f"{mount.resident() // 1_000_000} / {int(most.split()[1]) // 1000}"


if __name__ == "__main__":
    main()
