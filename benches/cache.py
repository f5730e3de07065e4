#!/usr/bin/env python3
"""What a large or a small cache costs: scans, checks, eviction; beside md5sum and dd, in one run.

    cargo build --release && python3 benches/cache.py [PART...]

Parts: scan check pressure (all without arguments). Figures marked cold begin with empty caches of
the kernel, which takes root. Touches only the folder it makes.
"""

import argparse
import json
import os
import statistics
import subprocess
import time

from bench import Workshop, row, table

HALF_A_MILLION = 500_000
SIZE = 100_000
MIB = 1 << 20


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="target/release")
    parser.add_argument("--work", help="folder for data, on the disk to be measured")
    parser.add_argument("--blobs", type=int, default=HALF_A_MILLION, help="how many are scanned")
    parser.add_argument("--mib", type=int, default=2048, help="how much is checked")
    parser.add_argument("parts", nargs="*", metavar="PART")
    args = parser.parse_args()
    parts = {"scan": lambda shop: scan(shop, args.blobs),
             "check": lambda shop: check(shop, args.mib),
             "pressure": pressure}
    for part in args.parts or parts:
        with Workshop(args.work, args.target) as workshop:
            parts[part](workshop)


# -- scan


def stamp(digest):
    """The time by which a cached blob is known."""
    number = int.from_bytes(bytes(digest[at] for at in (0, 5, 10, 15)), "little")
    return 1_000_000_000 + number % 250_000_000 * 2


def scan(shop, count):
    shop.fill("data", 100, SIZE)
    shop.track_folder("data")
    shop.commit()
    table("blobs in the cache", "until the mount answers, s", "until a cold file is read, s",
          "that scan alone (cache info), s", "daemon, MB")
    for blobs in (0, count):
        fill_cache(shop, blobs)
        size = max(blobs, 100) * SIZE
        info = timed(lambda: shop.dvcfs("cache", "info"))[0] if blobs else 0.0
        mounts, reads, resident = [], [], 0
        for turn in range(3):
            drop_caches()
            # Full to the last byte, so that whatever comes has to make room.
            seconds, mount = timed(lambda: shop.ours("--cache-size", str(size), "--min-free", "0"))
            mounts.append(seconds)
            with mount:
                reads.append(timed(lambda: read(mount.path / f"data/{turn:05}.bin"))[0])
                resident = mount.resident()
        row(blobs, statistics.median(mounts), statistics.median(reads), info, resident / 1e6)


def fill_cache(shop, count):
    """Puts blobs into the cache, holes all of them, as if they had been checked a day ago."""
    root, yesterday = shop.work / "cache/files/md5", time.time() - 86400
    for first in range(256):
        (root / f"{first:02x}").mkdir(parents=True, exist_ok=True)
    for _ in range(count):
        digest = shop.noise.randbytes(16)
        name = digest.hex()
        path = root / name[:2] / name[2:]
        path.touch()
        os.truncate(path, SIZE)
        os.chmod(path, 0o444)
        os.utime(path, (yesterday, stamp(digest)))


# -- check


def check(shop, mib):
    root, paths = shop.work / "cache/files/md5", []
    for number in range(mib // 4):
        content = shop.noise.randbytes(4 * MIB)
        path = shop.plain / f"{number}"
        path.write_bytes(content)
        name = shop.put(path)
        target = root / name[:2] / name[2:]
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, target)
        os.chmod(target, 0o444)
        paths.append(str(target))
    os.sync()
    names = "\0".join(paths).encode()

    def each(*command):
        processes = str(os.cpu_count())
        subprocess.run(["xargs", "-0", "-n", "16", "-P", processes, *command], input=names,
                       stdout=subprocess.DEVNULL, check=True)

    sides = {
        "dvcfs cache check": lambda: shop.dvcfs("cache", "check"),
        f"md5sum, {os.cpu_count()} at once": lambda: each("md5sum"),
        f"dd, {os.cpu_count()} at once": lambda: each(
            "sh", "-c", 'for f; do dd if="$f" of=/dev/null bs=1M status=none; done', "sh"),
    }
    table(f"{mib} MiB in files of 4 MiB", "cold, MB/s", "warm, MB/s")
    speeds = {name: ([], []) for name in sides}
    for _ in range(3):
        for name, side in sides.items():
            for is_warm in (False, True):
                if not is_warm:
                    drop_caches()
                speeds[name][is_warm].append(mib * MIB / 1e6 / timed(side)[0])
    for name, (cold, hot) in speeds.items():
        row(name, statistics.median(cold), statistics.median(hot))


# -- pressure


def pressure(shop):
    shop.fill("data", 1000, 400_000)
    shop.track_folder("data")
    shop.commit()
    table("1000 files of 400 kB, read twice", "s", "evictions", "scans", "cached at the end, MB")
    for name, size in (("cache of 1 GB", "1G"), ("cache of 100 MB", "100M")):
        subprocess.run(["rm", "-rf", str(shop.work / "cache")], check=True)
        with shop.ours("--cache-size", size, "--min-free", "0", "--open-mode", "served") as mount:
            def read_all():
                for number in range(1000):
                    read(mount.path / f"data/{number * 7 % 1000:05}.bin")
            seconds = timed(lambda: (read_all(), read_all()))[0]
            stats = mount.status()["stats"]
        info = json.loads(shop.dvcfs("cache", "info", "--json"))
        row(name, seconds, stats["evictions"], stats["cache_scans"], info["bytes"] / 1e6)


# -- measuring


def timed(work):
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result


def read(path):
    with open(path, "rb") as file:
        while file.read(MIB):
            pass


def drop_caches():
    os.sync()
    if os.geteuid() == 0:
        with open("/proc/sys/vm/drop_caches", "w") as switch:
            switch.write("3")


if __name__ == "__main__":
    main()
