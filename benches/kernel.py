#!/usr/bin/env python3
"""What the kernel side costs: a mount, the disk below its cache, and a yardstick, in one run.

    cargo build --release --bins --examples && python3 benches/kernel.py [PART...]

Parts: large small first spin idle busy million (all without arguments). Needs root, which passing
files to the kernel takes. The yardstick (`benches/limit`) is a FUSE file system that knows its
whole tree in advance and does nothing but answer. Each ratio is taken in one run, both sides in
turn; what counts is the ratio. Touches only the folder it makes.
"""

import argparse
import os
import subprocess
import sys
import time

from bench import Workshop, leave_memory, row, table, warm

MODES = ("passthrough", "no-open")
SIZES = (("16 KiB", "s16k", 16 << 10, 2000), ("400 KiB", "s400k", 400 << 10, 1000),
         ("2 MiB", "s2m", 2 << 20, 500))
MILLION = 1_000_000


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="target/release")
    parser.add_argument("--work", help="folder for data, on the disk to be measured")
    parser.add_argument("parts", nargs="*", metavar="PART")
    args = parser.parse_args()
    parts = {"large": large, "small": small, "first": first, "spin": spin, "idle": idle,
             "busy": busy, "million": million}
    with Workshop(args.work, args.target) as workshop:
        wanted = args.parts or list(parts)
        if set(wanted) - {"million"}:
            make(workshop)
        for part in wanted:
            if part == "million":
                make_million(workshop)
            parts[part](workshop)


def make(shop):
    shop.fill("big", 1, 1 << 30, "file.bin")
    shop.track_file(shop.plain / "big/file.bin")
    for _, folder, size, count in SIZES:
        shop.fill(folder, count, size)
        shop.track_folder(folder)
    shop.commit()
    with shop.ours() as mount:
        warm(mount.path)


def large(shop):
    table("1 GiB, warm: speed as part of the disk's", "passthrough", "the yardstick's",
          "passthrough / yardstick's", "no-open", "the yardstick's", "no-open / yardstick's")
    plain = shop.plain / "big/file.bin"
    blob = shop.cached(plain)
    speeds = {}
    for mode in MODES:
        # The yardstick shows the very file that ours caches.
        for side, open_mount, path in (
                ("ours", lambda: shop.ours("--open-mode", mode), "big/file.bin"),
                ("least", lambda: shop.least(mode, blob.parent), blob.name)):
            # How pages came to memory decides how large they are: all are read from the disk.
            for file in (plain, blob):
                leave_memory(file)
            with open_mount() as mount:
                file = mount.path / path
                # The kernel sorts pages by how often they were read.
                for _ in range(3):
                    warm(file.parent)
                    warm(plain.parent)
                for load in ("read", "random", "map"):
                    figures = shop.measure("pair", load, plain, file)
                    speeds[load, mode, side] = 1 / figures["median_ratio"]
    for load, what in (("read", "in order"), ("random", "4 KiB at random"),
                       ("map", "mapped, every page")):
        ratios = []
        for mode in MODES:
            ours, least = speeds[load, mode, "ours"], speeds[load, mode, "least"]
            ratios += [ours, least, ours / least]
        row(what, *ratios)


def small(shop):
    table("500 files: open, read, close; warm", "disk, us", "no-open / disk", "the yardstick's",
          "passthrough / disk", "the yardstick's", "passthrough / yardstick's")
    for label, folder, _, _ in SIZES:
        plain, ratios = shop.plain / folder, []
        for open_mount in (
                lambda: shop.ours("--open-mode", "no-open"),
                lambda: shop.least("no-open"),
                lambda: shop.ours("--open-mode", "passthrough", "--spin", "off"),
                lambda: shop.least("passthrough")):
            with open_mount() as mount:
                warm(mount.path / folder)
                figures = shop.measure("pair", "open-read", plain, mount.path / folder)
                ratios.append(figures["median_ratio"])
        row(label, figures["a_median"], *ratios, ratios[2] / ratios[3])


def first(shop):
    """Each file once, on mounts that have not seen it, its blob in the cache."""
    table("1,000 files of 400 KiB, first pass", "us a file", "/ yardstick")
    taken = {"yardstick": [], "passthrough": [], "no-open": []}
    for _ in range(5):
        for name, open_mount in (("yardstick", lambda: shop.least("passthrough")),
                                 ("passthrough", lambda: shop.ours("--open-mode", "passthrough")),
                                 ("no-open", lambda: shop.ours("--open-mode", "no-open"))):
            with open_mount() as mount:
                figures = shop.measure("each", mount.path / "s400k")
                taken[name].append(figures["micros"])
    best = {name: min(times) for name, times in taken.items()}
    for name, micros in best.items():
        row(name, micros, micros / best["yardstick"])


def spin(shop):
    table("500 files, passthrough, warm", "spinning off, us", "auto, us", "off / auto")
    for label, folder, _, _ in SIZES:
        micros = {}
        for setting in ("off", "auto"):
            with shop.ours("--open-mode", "passthrough", "--spin", setting) as mount:
                warm(mount.path / folder)
                figures = shop.measure(
                    "pair", "open-read", mount.path / folder, mount.path / folder)
                micros[setting] = figures["b_median"]
        row(label, micros["off"], micros["auto"], micros["off"] / micros["auto"])


def idle(shop):
    with shop.ours() as mount:
        warm(mount.path / "s16k")
        time.sleep(30)
        before = mount.processor_time()
        time.sleep(60)
        used = mount.processor_time() - before
    print(f"\nIdle, after reading: {used * 1000:.3f} ms of processor time in 60 s")


def busy(shop):
    """Every processor has other work to do; both mounts take turns meanwhile."""
    table("500 files, every processor busy", "spinning off, us", "auto, us", "auto / off")
    burn = "while True: pass"
    other = shop.work / "other"
    other.mkdir()
    for label, folder, _, _ in SIZES:
        with shop.ours("--open-mode", "passthrough", "--spin", "off") as off, \
             shop.ours("--open-mode", "passthrough", "--spin", "auto", place=other) as auto:
            for mount in (off, auto):
                warm(mount.path / folder)
            burners = [subprocess.Popen([sys.executable, "-c", burn])
                       for _ in range(os.cpu_count())]
            try:
                figures = shop.measure("pair", "open-read", off.path / folder, auto.path / folder)
            finally:
                for burner in burners:
                    burner.kill()
                    burner.wait()
        row(label, figures["a_median"], figures["b_median"], figures["median_ratio"])


def make_million(shop):
    """One manifest of a million files, a thousand blobs between them, and the same tree on disk."""
    blobs = []
    for number in range(1000):
        path = shop.plain / "blob"
        path.write_text(f"{number:06}\n")
        blobs.append(shop.put(path))
        path.unlink()
    entries = {}
    for number in range(MILLION):
        folder = f"part-{number // 100_000:02}/speaker-{number // 10_000 % 10:03}/chapter-" \
                 f"{number // 1000 % 10:03}"
        entries[f"{folder}/utterance-{number:06}.flac"] = blobs[number % 1000]
    for path in entries:
        plain = shop.plain / "wide" / path
        plain.parent.mkdir(parents=True, exist_ok=True)
        with open(plain, "wb") as file:
            file.truncate(7)
    shop.track_entries("wide", entries)
    shop.commit()
    with shop.ours() as mount:
        warm(mount.path / "wide/part-00/speaker-000")


def million(shop):
    table("a million files", "disk, s", "yardstick, first / again, s", "ours, first / again, s",
          "ours / yardstick, first / again")
    def walked(*args):
        return lambda root: shop.measure("walk", root / "wide", *args)["secs"]
    def ran(*command):
        def run(root):
            begin = time.perf_counter()
            subprocess.run([*command, str(root / "wide")], stdout=subprocess.DEVNULL, check=True)
            return time.perf_counter() - begin
        return run
    loads = (("names", walked()), ("names with attributes", walked("attributes")),
             ("find", ran("find")), ("ls -lR", ran("ls", "-lR")), ("du", ran("du", "-s")))
    for what, load in loads:
        disk = min(load(shop.plain) for _ in range(2))
        with shop.least("no-open") as mount:
            least = load(mount.path), min(load(mount.path) for _ in range(2))
        with shop.ours() as mount:
            before = mount.resident()
            ours = load(mount.path), min(load(mount.path) for _ in range(2))
            grown = mount.resident()
        row(what, disk, f"{least[0]:.2f} / {least[1]:.2f}", f"{ours[0]:.2f} / {ours[1]:.2f}",
            f"{ours[0] / least[0]:.2f} / {ours[1] / least[1]:.2f}")
        print(f"<!-- daemon: {before >> 20} MiB before, {grown >> 20} MiB after -->")


if __name__ == "__main__":
    sys.exit(main())
