#!/usr/bin/env python3
"""What reading for the first time costs, beside everything that a user would take instead.

    cargo build --release --bins --examples && python3 benches/cold.py [PART...]

Parts: large first scattered clips again fill walk list sizes (all without arguments). Every part
measures all sides in turn, in each of several rounds, over one S3 server (`benches/store`) that
counts requests and bytes and answers as late as it is told. Figures are added to a file of one
JSON object a line; tables and plots are made of the medians of all that it has, so parts may be
measured at different times. `--tables` makes them without measuring.

Peers are looked for on PATH, or where a variable such as MOUNTPOINT, RCLONE, S3FS, S5CMD, AWS or
DVC says; who is not there is left out. Data takes 3 GiB and is made once.
"""

import argparse
import contextlib
import os
import pathlib
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import report
from shapes import SHAPES, provide
from sides import Bench, Store

DELAY_MS = 30
GIB = 1 << 30


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", type=pathlib.Path, default="target/release")
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder for registries")
    parser.add_argument("--work", type=pathlib.Path, help="folder for caches [default: in --data]")
    parser.add_argument("--results", type=pathlib.Path, help="[default: results.jsonl in --data]")
    parser.add_argument("--plots", type=pathlib.Path, default="docs/plots")
    parser.add_argument("--address", default="127.0.0.1:9400", help="where the server listens")
    parser.add_argument("--sides", help="only these, such as dvcfs,s5cmd")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tables", action="store_true", help="print tables, measure nothing")
    parser.add_argument("parts", nargs="*", metavar="PART")
    args = parser.parse_args()
    for name in ("target", "data"):
        setattr(args, name, getattr(args, name).resolve())
    args.work = (args.work or args.data / "work").resolve()
    args.results = args.results or args.data / "results.jsonl"
    if not args.tables:
        measure(args)
    report.write(args.results, args.plots)


def measure(args):
    parts = {part.__name__: part for part in (large, first, scattered, clips, again, fill, walk,
                                              listing, sizes)}
    parts["list"] = parts.pop("listing")
    args.work.mkdir(parents=True, exist_ok=True)
    provide(args.data, SHAPES, f"http://{args.address}")
    with Store(args.target / "examples/store", args.data / "s3", args.address) as store:
        bench = Bench(args, store)
        for bench.round in range(args.runs):
            for part in args.parts or parts:
                bench.clean()
                parts[part](bench)
        bench.clean()


def read(path, most=None):
    """Reads a file, or its first bytes; gives how many there were."""
    count, buffer = 0, memoryview(bytearray(1 << 20))
    with open(path, "rb", buffering=0) as file:
        while most is None or count < most:
            length = file.readinto(buffer[:None if most is None else most - count])
            if not length:
                break
            count += length
    return count


def large(bench):
    """1 GiB from beginning to end."""
    for label, delay, rate in (("0 ms", 0, 0), (f"{DELAY_MS} ms", DELAY_MS, 0),
                               (f"{DELAY_MS} ms, 90 MB/s a connection", DELAY_MS, 90)):
        bench.store.slow(delay, rate)
        work = f"1 GiB, {label}"
        for side in bench.mounts():
            with bench.mount(side, "large") as mount, bench.measured(work, side, mount.pid):
                assert read(mount.path / "large.bin") == GIB
        for side, command in bench.copiers("large", "large.bin").items():
            bench.run(work, side, command)
        bench.clean()
    bench.store.slow()
    bench.run("1 GiB, hashed", "md5sum", ["md5sum", bench.plain("large") / "large.bin"])


def first(bench):
    """The first 64 KiB of 1 GiB, from an unmounted state."""
    bench.store.slow(DELAY_MS)
    for side in bench.mounts():
        mount = bench.mount(side, "large")
        with contextlib.ExitStack() as stack:
            with bench.measured("first 64 KiB", side):
                stack.enter_context(mount)
                assert read(mount.path / "large.bin", 64 << 10) == 64 << 10
            with bench.measured("behind the reader of 64 KiB", side) as behind:
                time.sleep(1.5)
                behind["s"] = 0
    if bench.python:
        code = ("import sys, dvc.api; "
                "file = dvc.api.DVCFileSystem(sys.argv[1]).open('large.bin', 'rb'); "
                "assert len(file.read(65536)) == 65536")
        command = [bench.python, "-c", code, bench.repo("large")]
        bench.run("first 64 KiB", "DVCFileSystem", command, env=bench.site())


def scattered(bench):
    """64 reads of 128 KiB at random places of 1 GiB."""
    bench.store.slow(DELAY_MS)
    source = random.Random(42)
    places = [source.randrange(GIB >> 17) for _ in range(64)]
    for side in bench.mounts():
        with bench.mount(side, "large") as mount:
            with bench.measured("64 random reads", side, mount.pid):
                with open(mount.path / "large.bin", "rb", buffering=0) as file:
                    for place in places:
                        assert len(os.pread(file.fileno(), 128 << 10, place << 17)) == 128 << 10


def clip_paths(bench, count):
    plain = bench.plain("clips")
    paths = sorted(path.relative_to(plain) for path in plain.glob("clips/*/*.wav"))
    return paths[:count]


def clips(bench):
    """500 clips, in a random order and in that of their folders, by one reader and by eight."""
    bench.store.slow(DELAY_MS)
    ordered = clip_paths(bench, 500)
    shuffled = random.Random(3).sample(ordered, len(ordered))
    for work, paths, readers in (("500 clips, random", shuffled, 1),
                                 ("500 clips, in order", ordered, 1),
                                 ("500 clips, random, 8 readers", shuffled, 8)):
        for side in bench.mounts():
            with bench.mount(side, "clips") as mount:
                # What it costs to look the folders up is not what is measured here.
                with bench.measured(work, side, mount.pid), ThreadPoolExecutor(readers) as pool:
                    assert all(pool.map(lambda path: read(mount.path / path), paths))


def again(bench):
    """2,000 clips that were read before."""
    bench.store.slow()
    paths = clip_paths(bench, 2000)

    def twice(side, root, pid=None):
        for path in paths:
            read(root / path)
        with bench.measured("2,000 clips again", side, pid):
            for path in paths:
                read(root / path)

    twice("ext4", bench.plain("clips"))
    for side in bench.mounts():
        with bench.mount(side, "clips") as mount:
            twice(side, mount.path, mount.pid)


def fill(bench):
    """2,200 files into the cache."""
    bench.store.slow(DELAY_MS)
    work = "2,200 files"
    command = bench.ours("prefetch", "--trust-remote", bench.repo("clips"))
    bench.run(work, "dvcfs", command, env=bench.fresh())
    for side, command in bench.copiers("clips").items():
        bench.run(work, side, command)
    if "dvc" in bench.tools:
        clone = bench.folder("clone")
        command = f"git clone -q {bench.repo('clips')} {clone} && exec {bench.tools['dvc']} pull -q"
        bench.run(work, "dvc", ["sh", "-c", command], cwd=clone, env=bench.site())


def walk(bench):
    """100,000 files looked at."""
    bench.store.slow()
    commands = {"find": ["find", ".", "-type", "f"], "ls -lR": ["ls", "-lR"],
                "du": ["du", "-s", "--apparent-size"]}

    def looked_at(side, root, pid=None):
        for name, command in commands.items():
            with bench.measured(f"{name}, 100,000 files", side, pid):
                output = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE)
                assert name == "du" or output.stdout.count(b".txt") == 100_000
        # The sizes that were asked for are known now.
        with bench.measured("ls -lR again, 100,000 files", side, pid):
            subprocess.run(commands["ls -lR"], cwd=root, check=True, stdout=subprocess.DEVNULL)

    looked_at("ext4", bench.plain("wide") / "wide")
    for side in bench.mounts("s3fs"):
        with bench.mount(side, "wide") as mount:
            looked_at(side, mount.path / "wide", mount.pid)


def listing(bench):
    """Names of all files of a registry, and a look for changes where there are none."""
    bench.store.slow()
    for shape, what in (("wide", "100,000 files in one folder"), ("many", "10,000 .dvc files")):
        repo, work = bench.repo(shape), f"list -R, {what}"
        command = bench.ours("list", "--trust-remote", "-R", repo)
        bench.run(work, "dvcfs", command, env=bench.fresh())
        if "dvc" in bench.tools and bench.round == 0:
            command = [bench.tools["dvc"], "list", "-R", f"file://{repo}"]
            bench.run(work, "dvc", command, env=bench.site())
    work = "status, 10,000 .dvc files"
    mount = bench.mount("dvcfs", "many", "--overlay")
    with mount:
        bench.run(work, "dvcfs", bench.ours("status", mount.path), env=mount.env)
    if "dvc" in bench.tools and bench.round == 0:
        clone = bench.folder("clone")
        subprocess.run(["git", "clone", "-q", bench.repo("many"), clone], check=True)
        bench.run(work, "dvc", [bench.tools["dvc"], "status"], cwd=clone, env=bench.site())


def sizes(bench):
    """`ls -l` of 2,000 files of unknown size."""
    for work, lists in (("ls -l of 2,000 files", 1), ("ls -l of 2,000 files, no listing", 0)):
        bench.store.slow(DELAY_MS, lists=lists)
        with bench.mount("dvcfs", "folder") as mount, bench.measured(work, "dvcfs", mount.pid):
            subprocess.run(["ls", "-l", mount.path / "folder"], check=True,
                           stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
