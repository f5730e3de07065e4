"""Registries for the benchmarks of cold reads: the same bytes as blobs and under plain names.

Each shape is made once and kept: `DIR/git/SHAPE` is the registry, `DIR/s3/dvc-SHAPE` the bucket
that its remote is, `DIR/s3/plain-SHAPE` a bucket with the same files under their names, for tools
that do not know DVC. The same bytes come out everywhere.
"""

import hashlib
import json
import os
import random
import shutil
import struct
import subprocess

CONFIG = """[core]
    remote = s3
['remote "s3"']
    url = s3://dvc-{shape}
    endpointurl = {endpoint}
"""


class Shape:
    def __init__(self, root, name):
        self.name = name
        self.bucket, self.plain = root / f"s3/dvc-{name}", root / f"s3/plain-{name}"
        self.repo = root / f"git/{name}"
        self.links = {}

    def put(self, content):
        """Stores a blob, from bytes or pieces of them; gives its md5 and size."""
        pieces = [content] if isinstance(content, bytes) else content
        digest, size, waiting = hashlib.md5(), 0, self.bucket / "new"
        with open(waiting, "wb") as file:
            for piece in pieces:
                digest.update(piece)
                size += file.write(piece)
        blob = self.blob(digest.hexdigest())
        waiting.rename(blob)
        return digest.hexdigest(), size

    def blob(self, name):
        return self.bucket / "files/md5" / name[:2] / name[2:]

    def link(self, md5, path):
        """Shows a blob under a plain name."""
        path = self.plain / path
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(self.blob(md5), path)

    def track_file(self, path, content):
        md5, size = self.put(content)
        self.link(md5, path)
        self.declare(path, f"- md5: {md5}\n  size: {size}\n")

    def track_folder(self, folder, files):
        """Tracks pairs of a relative path and its content."""
        rows, total = [], 0
        for path, content in files:
            md5, size = self.put(content)
            self.link(md5, f"{folder}/{path}")
            rows.append({"md5": md5, "relpath": path})
            total += size
        rows.sort(key=lambda row: row["relpath"])
        text = json.dumps(rows).encode()
        md5 = hashlib.md5(text).hexdigest() + ".dir"
        self.blob(md5).write_bytes(text)
        self.declare(folder, f"- md5: {md5}\n  size: {total}\n  nfiles: {len(rows)}\n")

    def declare(self, path, fields):
        dotfile = self.repo / f"{path}.dvc"
        dotfile.parent.mkdir(parents=True, exist_ok=True)
        dotfile.write_text(f"outs:\n{fields}  hash: md5\n  path: {dotfile.stem}\n")
        with open(dotfile.parent / ".gitignore", "a") as ignored:
            ignored.write(f"/{dotfile.stem}\n")

    def make(self, endpoint, fill):
        for number in range(256):
            (self.bucket / f"files/md5/{number:02x}").mkdir(parents=True)
        self.plain.mkdir(parents=True)
        (self.repo / ".dvc").mkdir(parents=True)
        config = CONFIG.format(shape=self.name, endpoint=endpoint)
        (self.repo / ".dvc/config").write_text(config)
        (self.repo / ".dvc/.gitignore").write_text("/config.local\n/tmp\n/cache\n")
        fill(self)
        for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "Add data"],
                        ["gc", "-q"]):
            who = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
            subprocess.run(["git", "-C", self.repo, *who, *command], check=True)


def noise(seed, size):
    source = random.Random(seed)
    for start in range(0, size, 4 << 20):
        yield source.randbytes(min(4 << 20, size - start))


def clip(seed, size):
    samples = random.Random(seed).randbytes(size - 44)
    return b"RIFF" + struct.pack("<I", size - 8) + b"WAVEfmt " + struct.pack(
        "<IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16) + b"data" + struct.pack(
        "<I", len(samples)) + samples


def large(shape):
    """One file of 1 GiB."""
    shape.track_file("large.bin", noise("large", 1 << 30))


def clips(shape):
    """2,000 clips of some 400 KiB in 20 folders of one manifest, 200 with a `.dvc` file each."""
    size = lambda number: (390_000 + number * 7919 % 40_000) & ~1
    shape.track_folder("clips", ((f"speaker-{number // 100:02}/{number:05}.wav",
                                  clip(number, size(number))) for number in range(2000)))
    for number in range(2000, 2200):
        shape.track_file(f"singles/{number:05}.wav", clip(number, size(number)))


def wide(shape):
    """100,000 files of a line each in a thousand folders of one manifest."""
    shape.track_folder("wide", ((
        f"{number // 10_000:02}/{number // 100 % 100:02}/{number:06}.txt", b"%08d\n" % number)
        for number in range(100_000)))


def many(shape):
    """10,000 files with a `.dvc` file each, 50 to a folder."""
    for number in range(10_000):
        shape.track_file(f"set-{number // 50:03}/{number:05}.txt", b"many %05d\n" % number * 20)


def folder(shape):
    """2,000 small files in one folder."""
    shape.track_folder("folder", ((f"{number:04}.txt", b"%04d\n" % number * (number % 90 + 1))
                                  for number in range(2000)))


SHAPES = {fill.__name__: fill for fill in (large, clips, wide, many, folder)}


def provide(root, names, endpoint):
    """Makes the shapes that are not there yet."""
    for name in names:
        shape, done = Shape(root, name), root / f"git/{name}.made"
        if done.exists() and done.read_text() == endpoint:
            continue
        done.unlink(missing_ok=True)
        for folder in (shape.bucket, shape.plain, shape.repo):
            shutil.rmtree(folder, ignore_errors=True)
        shape.make(endpoint, SHAPES[name])
        done.write_text(endpoint)
