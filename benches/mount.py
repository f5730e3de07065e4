#!/usr/bin/env python3
"""Figures of docs/PERFORMANCE.md: a mount beside the disk it caches on, in one run.

    cargo build --release && python3 benches/mount.py [--dvcfs target/release/dvcfs] [--work DIR]

Makes a registry with a local remote, mounts it, and times the same work on the mount and on plain
copies of the same files on the disk below the cache. Each line is the best of several alternating
rounds; the ratio is what counts, since both sides met the same machine. Needs FUSE; touches only
the folder it makes.
"""

import argparse
import hashlib
import json
import mmap
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

GIB = 1 << 30


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dvcfs", default="target/release/dvcfs")
    parser.add_argument("--work", help="folder for data, on the disk to be measured")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="dvcfs-bench-", dir=args.work))
    bench = Bench(pathlib.Path(args.dvcfs).resolve(), work, args.rounds)
    try:
        bench.run()
    finally:
        bench.close()


class Bench:
    def __init__(self, program, work, rounds):
        self.program, self.work, self.rounds = program, work, rounds
        self.plain, self.store = work / "plain", work / "store"
        self.repo, self.mount = work / "repo", work / "mnt"
        self.env = dict(
            os.environ,
            HOME=str(work / "home"),
            DVCFS_CACHE_DIR=str(work / "cache"),
            DVCFS_STATE_DIR=str(work / "state"),
            DVCFS_RUNTIME_DIR=str(work / "run"),
            GIT_AUTHOR_NAME="bench", GIT_AUTHOR_EMAIL="bench@localhost",
            GIT_COMMITTER_NAME="bench", GIT_COMMITTER_EMAIL="bench@localhost",
        )
        for folder in (self.plain, self.store, self.repo, self.mount, work / "home"):
            folder.mkdir()

    # -- the registry

    def put(self, path):
        """Stores a plain file as a blob and gives its md5."""
        digest = hashlib.md5()
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
        name = digest.hexdigest()
        blob = self.store / "files/md5" / name[:2] / name[2:]
        if not blob.exists():
            blob.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, blob)
        return name

    def track_file(self, path):
        md5 = self.put(path)
        relative = path.relative_to(self.plain)
        dotfile = self.repo / f"{relative}.dvc"
        dotfile.parent.mkdir(parents=True, exist_ok=True)
        size = path.stat().st_size
        dotfile.write_text(
            f"outs:\n- md5: {md5}\n  size: {size}\n  hash: md5\n  path: {path.name}\n")

    def track_folder(self, folder):
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        rows = [{"md5": self.put(p), "relpath": str(p.relative_to(folder))} for p in files]
        rows.sort(key=lambda row: row["relpath"])
        text = json.dumps(rows, sort_keys=True).encode()
        md5 = hashlib.md5(text).hexdigest() + ".dir"
        manifest = self.store / "files/md5" / md5[:2] / md5[2:]
        manifest.parent.mkdir(parents=True, exist_ok=True)
        manifest.write_bytes(text)
        size = sum(path.stat().st_size for path in files)
        (self.repo / f"{folder.name}.dvc").write_text(
            f"outs:\n- md5: {md5}\n  size: {size}\n  nfiles: {len(files)}\n"
            f"  hash: md5\n  path: {folder.name}\n")

    def make(self):
        noise = random.Random(7)
        big = self.plain / "big.bin"
        with open(big, "wb") as file:
            for _ in range(1024):
                file.write(noise.randbytes(1 << 20))
        self.track_file(big)
        for name, size, count in (("s16k", 16 << 10, 500), ("s400k", 400 << 10, 200),
                                  ("s2m", 2 << 20, 60)):
            folder = self.plain / name
            folder.mkdir()
            for number in range(count):
                (folder / f"{number:05}.bin").write_bytes(noise.randbytes(size))
            self.track_folder(folder)
        wide = self.plain / "wide"
        for number in range(20_000):
            path = wide / f"d{number % 100:03}" / f"{number:06}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{number % 500}\n")
        self.track_folder(wide)
        dvc = self.repo / ".dvc"
        dvc.mkdir()
        (dvc / "config").write_text(
            f"[core]\n    remote = st\n['remote \"st\"']\n    url = {self.store}\n")
        git = ["git", "-C", str(self.repo)]
        subprocess.run([*git, "init", "-q", "-b", "main"], check=True, env=self.env)
        subprocess.run([*git, "add", "-A"], check=True, env=self.env)
        subprocess.run([*git, "commit", "-qm", "data"], check=True, env=self.env)

    def start(self):
        subprocess.run([str(self.program), "mount", str(self.repo), str(self.mount),
                        "--rev", "main", "--no-follow"], check=True, env=self.env)

    def stop(self):
        if os.path.ismount(self.mount):
            subprocess.run([str(self.program), "umount", str(self.mount)], env=self.env)

    def close(self):
        self.stop()
        shutil.rmtree(self.work, ignore_errors=True)

    # -- measuring

    def compare(self, what, work):
        """Alternates the work on both sides; keeps the best of each."""
        best = {}
        for _ in range(self.rounds):
            for side, root in (("disk", self.plain), ("mount", self.mount)):
                begin = time.perf_counter()
                work(root)
                taken = time.perf_counter() - begin
                best[side] = min(taken, best.get(side, taken))
        ratio = best["mount"] / best["disk"]
        print(f"| {what} | {best['disk']:.4f} | {best['mount']:.4f} | {ratio:.2f} |", flush=True)

    def run(self):
        self.make()
        self.start()
        warm(self.mount)
        print("| work | disk, s | mount, s | mount / disk |\n|---|---|---|---|")
        self.compare("1 GiB, sequential, warm", sequential)
        self.compare("1 GiB, 20,000 random reads of 4 KiB, warm", scattered)
        self.compare("1 GiB, mmap, every page, warm", mapped)
        for name, label in (("s16k", "500 files of 16 KiB"), ("s400k", "200 files of 400 KiB"),
                            ("s2m", "60 files of 2 MiB")):
            self.compare(f"{label}: open, read, close, warm", lambda root, n=name: whole(root / n))
        self.compare("20,000 names (find)", lambda root: find(root / "wide"))
        self.compare("20,000 names with attributes (ls -lR)", lambda root: listed(root / "wide"))
        self.stop()
        self.open_many()

    def open_many(self):
        """How long until a registry with 10,000 `.dvc` files is mounted and listed."""
        for number in range(10_000):
            dotfile = self.repo / f"many/d{number % 100:02}" / f"{number:05}.bin.dvc"
            dotfile.parent.mkdir(parents=True, exist_ok=True)
            dotfile.write_text(
                f"outs:\n- md5: {hashlib.md5(str(number).encode()).hexdigest()}\n"
                f"  size: 5\n  hash: md5\n  path: {number:05}.bin\n")
        git = ["git", "-C", str(self.repo)]
        subprocess.run([*git, "add", "-A"], check=True, env=self.env)
        subprocess.run([*git, "commit", "-qm", "many"], check=True, env=self.env)
        subprocess.run([*git, "gc", "-q"], check=True, env=self.env)
        taken = []
        for _ in range(self.rounds):
            begin = time.perf_counter()
            self.start()
            os.listdir(self.mount / "many/d42")
            taken.append(time.perf_counter() - begin)
            self.stop()
        print(f"\n10,000 `.dvc` files: mounted and listed in {min(taken):.2f} s")


def warm(root):
    for folder, _, names in os.walk(root):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                while file.read(1 << 20):
                    pass


def sequential(root):
    fd = os.open(root / "big.bin", os.O_RDONLY)
    buffer = bytearray(1 << 20)
    while os.readv(fd, [buffer]):
        pass
    os.close(fd)


def scattered(root):
    places = random.Random(1)
    fd = os.open(root / "big.bin", os.O_RDONLY)
    for _ in range(20_000):
        os.pread(fd, 4096, places.randrange(GIB // 4096) * 4096)
    os.close(fd)


def mapped(root):
    with open(root / "big.bin", "rb") as file:
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
            total = 0
            for at in range(0, GIB, 4096):
                total += view[at]


def whole(folder):
    for name in os.listdir(folder):
        fd = os.open(folder / name, os.O_RDONLY)
        while os.read(fd, 4 << 20):
            pass
        os.close(fd)


def find(folder):
    subprocess.run(["find", folder], stdout=subprocess.DEVNULL, check=True)


def listed(folder):
    subprocess.run(["ls", "-lR", folder], stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    sys.exit(main())
