#!/usr/bin/env python3
"""What writing costs: an overlay beside its own disk, a snapshot beside DVC, in one run.

    cargo build --release --bins --examples && python3 benches/writes.py --dvc VENV/bin/dvc [PART...]

Parts: stream small add publish (all without arguments), and whole, for which `--checkout DIR` has
all files of a large folder; it is made if it is missing, which takes DVC some minutes. Needs root,
which passing files to the kernel takes. Both sides take turns; what counts is the ratio. `publish`
pushes to an S3 server of its own (`benches/store`), or to a bucket of the one at `--s3 URL` with
credentials in the environment; s5cmd is measured beside it where it is on PATH. Touches only the
folder it makes, that checkout and that bucket. `--work` is best on a disk on which nothing was deleted
in the last minutes: ext4 makes files there more slowly.
"""

import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import time

from bench import Mount, Workshop, row, table
from sides import CREDENTIALS, Store


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="target/release")
    parser.add_argument("--work", help="folder for data, on the disk to be measured")
    parser.add_argument("--dvc", default=shutil.which("dvc"), help="the DVC to be measured beside")
    parser.add_argument("--s3", help="where a server that takes objects listens")
    parser.add_argument("--bucket", default="dvcfs-writes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stream-mib", type=int, default=1024)
    parser.add_argument("--small-files", type=int, default=10_000)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--wavs", type=int, default=2_000)
    parser.add_argument("--checkout", type=pathlib.Path, help="where all files of a folder are")
    parser.add_argument("parts", nargs="*", metavar="PART")
    args = parser.parse_args()
    parts = {"stream": stream, "small": small, "add": add, "publish": publish}
    for name in args.parts or parts:
        with Workshop(args.work, args.target) as shop:
            (parts | {"whole": whole})[name](shop, args)


def taken(work):
    """Seconds that something takes."""
    begin = time.monotonic()
    work()
    return time.monotonic() - begin


def in_turn(rounds, **sides):
    """The median time of each side, which take turns, after one round that does not count."""
    times = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            spent = taken(lambda: side(number))
            if number:
                times[name].append(spent)
    return {name: statistics.median(of) for name, of in times.items()}


def writable(shop, *options):
    """A writable mount of the registry."""
    overlay = shop.work / f"overlay-{time.monotonic_ns()}"
    command = [shop.program, "mount", shop.repo, shop.mount_point, "--rev", "main",
               f"--overlay={overlay}", *options]
    return Mount(shop, command)


def start(shop):
    """A registry with little in it, and a folder of the same disk beside it."""
    (shop.repo / "README.md").write_text("read me\n")
    shop.commit()
    disk = shop.work / "disk"
    disk.mkdir()
    return disk


def stream(shop, args):
    disk = start(shop)
    piece = memoryview(shop.noise.randbytes(1 << 20))

    def write(folder):
        def once(number):
            path = folder / f"{number}.bin"
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for _ in range(args.stream_mib):
                os.write(file, piece)
            os.fsync(file)
            os.close(file)
            os.unlink(path)
        return once

    table(f"{args.stream_mib} MiB in order, synced", "disk, MB/s", "overlay, MB/s", "overlay / disk")
    for mode in ("passthrough", "served"):
        with writable(shop, "--open-mode", mode) as mount:
            times = in_turn(args.rounds, disk=write(disk), overlay=write(mount.path))
        speeds = {side: (args.stream_mib << 20) / 1e6 / spent for side, spent in times.items()}
        row(mode, speeds["disk"], speeds["overlay"], speeds["overlay"] / speeds["disk"])


def small(shop, args):
    disk = start(shop)
    content = shop.noise.randbytes(4096)

    def replace(folder):
        def once(number):
            into = folder / f"round-{number}"
            into.mkdir()
            for index in range(args.small_files):
                temporary = into / "temporary"
                temporary.write_bytes(content)
                os.rename(temporary, into / f"{index}.bin")
        return once

    table(f"{args.small_files} files of 4 KiB: create, write, rename", "disk, us a file",
          "overlay, us a file", "overlay / disk")
    for mode in ("passthrough", "served"):
        (disk / mode).mkdir()
        with writable(shop, "--open-mode", mode) as mount:
            times = in_turn(args.rounds, disk=replace(disk / mode), overlay=replace(mount.path))
        micros = {side: spent / args.small_files * 1e6 for side, spent in times.items()}
        row(mode, micros["disk"], micros["overlay"], micros["overlay"] / micros["disk"])


def snapshot(shop, mount, *options):
    subprocess.run([shop.program, "snapshot", mount.path, "-m", "more", *options], check=True,
                   env=shop.env, stdout=subprocess.DEVNULL)


def dvc(shop, args, folder, *words):
    subprocess.run([args.dvc, *words, "--quiet"], cwd=folder, check=True, env=shop.env)


def clone(shop, name):
    """A clone for DVC, with a cache of its own on the same disk."""
    folder = shop.work / name
    subprocess.run(["git", "clone", "-q", shop.repo, folder], check=True, env=shop.env)
    return folder


def add(shop, args):
    entries = {f"part-{number // 1000:04}/{number:07}.wav": shop.noise.randbytes(16).hex()
               for number in range(args.entries)}
    shop.track_entries("clips", entries)
    shop.commit()
    put = putter(shop)
    table(f"three files into a folder of {args.entries}", "s", "DVC / dvcfs")
    rounds = max(1, args.rounds // 2)
    with writable(shop) as mount:
        ours = in_turn(rounds, ours=lambda n: (put(mount.path, n), snapshot(shop, mount)))["ours"]
    row("dvcfs snapshot", ours, 1.0)
    if args.dvc:
        folder = clone(shop, "clone")
        # The manifest is at hand; the other files do not have to be for a granular add.
        cache = folder / ".dvc/cache"
        cache.parent.mkdir(exist_ok=True)
        shutil.copytree(shop.store, cache)
        theirs = in_turn(
            rounds, dvc=lambda n: dvc(shop, args, folder, "add", *put(folder, n)))["dvc"]
        row("dvc add of the three", theirs, theirs / ours)


def putter(shop):
    """Puts three new files into a folder, and tells their paths."""
    new = [shop.noise.randbytes(400 << 10) for _ in range(3)]

    def put(root, number):
        folder = root / "clips/new"
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{time.time_ns()}-{index}.wav" for index in range(len(new))]
        for path, content in zip(paths, new):
            path.write_bytes(content + bytes([number]))
        return [str(path.relative_to(root)) for path in paths]

    return put


def whole(shop, args):
    """The folder as DVC's users have it: all its files there, and added as a whole again."""
    if not args.checkout.exists():
        subprocess.run(["git", "init", "-q", "-b", "main", args.checkout], check=True, env=shop.env)
        dvc(shop, args, args.checkout, "init")
        for number in range(args.entries):
            path = args.checkout / f"clips/part-{number // 1000:04}/{number:07}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"clip {number}\n")
        dvc(shop, args, args.checkout, "add", "clips")
        for words in (["add", "-A"], ["commit", "-qm", "clips"]):
            subprocess.run(["git", *words], cwd=args.checkout, check=True, env=shop.env)
    put = putter(shop)
    command = [shop.program, "mount", args.checkout, shop.mount_point, "--rev", "main",
               f"--overlay={shop.work / 'overlay'}"]
    table("three files into a large folder whose files are all there", "s", "DVC / dvcfs")
    rounds = max(1, args.rounds // 2)
    with Mount(shop, command) as mount:
        ours = in_turn(rounds, ours=lambda n: (put(mount.path, n), snapshot(shop, mount)))["ours"]
    row("dvcfs snapshot", ours, 1.0)
    add_all = lambda n: (put(args.checkout, n), dvc(shop, args, args.checkout, "add", "clips"))
    theirs = in_turn(1, dvc=add_all)["dvc"]
    row("dvc add of the folder", theirs, theirs / ours)


def publish(shop, args):
    if args.s3:
        return publish_to(shop, args, args.s3)
    buckets = shop.work / "buckets"
    (buckets / args.bucket).mkdir(parents=True)
    shop.env |= CREDENTIALS
    with Store(pathlib.Path(args.target) / "examples/store", buckets, "127.0.0.1:9400") as store:
        publish_to(shop, args, store.endpoint)


def publish_to(shop, args, url):
    wavs = shop.work / "wavs"
    shop.fill("wavs", args.wavs, 400 << 10, "{:05}.wav")
    os.rename(shop.plain / "wavs", wavs)
    (shop.repo / "README.md").write_text("read me\n")
    shop.commit()
    config = shop.repo / ".dvc/config"
    config.write_text("[core]\n    remote = st\n['remote \"st\"']\n"
                      f"    url = s3://{args.bucket}/{time.time_ns()}\n"
                      f"    endpointurl = {url}\n")
    shop.git("commit", "-qam", "remote")
    ours, theirs = clone(shop, "ours"), clone(shop, "theirs")
    shop.git("config", "receive.denyCurrentBranch", "ignore")
    # DVC's files are not to find ours there.
    other = f"s3://{args.bucket}/{time.time_ns()}"
    (theirs / ".dvc/config.local").write_text(f"['remote \"st\"']\n    url = {other}\n")
    table(f"{args.wavs} files of 400 KiB", "s", "/ dvcfs")
    times = {}
    shop.env["DVCFS_TRUST_REMOTE"] = "1"
    command = [shop.program, "mount", ours, shop.mount_point, "--rev", "main",
               f"--overlay={shop.work / 'overlay'}"]
    with Mount(shop, command) as mount:
        # Nobody is to wait for what others have left to be written.
        os.sync()
        shutil.copytree(wavs, mount.path / "wavs")
        times["dvcfs snapshot"] = taken(lambda: snapshot(shop, mount, "--dir", "wavs"))
        times["dvcfs push"] = taken(lambda: subprocess.run(
            [shop.program, "push", mount.path], check=True, env=shop.env,
            stdout=subprocess.DEVNULL))
    if args.dvc:
        os.sync()
        shutil.copytree(wavs, theirs / "wavs")
        times["dvc add"] = taken(lambda: dvc(shop, args, theirs, "add", "wavs"))
        times["dvc push"] = taken(lambda: dvc(shop, args, theirs, "push"))
    files = sorted(str(path) for path in wavs.iterdir())
    times["md5sum on all cores"] = taken(lambda: subprocess.run(
        ["xargs", "-0", "-n", "50", "-P", str(os.cpu_count()), "md5sum"], check=True,
        input="\0".join(files).encode(), stdout=subprocess.DEVNULL))
    if s5cmd := shutil.which("s5cmd"):
        os.sync()
        times["s5cmd cp"] = taken(lambda: subprocess.run(
            [s5cmd, "--endpoint-url", url, "--log", "error", "cp", f"{wavs}/*",
             f"s3://{args.bucket}/plain-{time.time_ns()}/"], check=True, env=shop.env))
    total = times["dvcfs snapshot"] + times["dvcfs push"]
    for name, spent in times.items():
        row(name, spent, spent / total)
    if args.dvc:
        spent = times["dvc add"] + times["dvc push"]
        row("DVC together", spent, spent / total)


if __name__ == "__main__":
    main()
