"""Registries, mounts and measurements for the benchmarks beside this file."""

import hashlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import tempfile


class Workshop:
    """A folder for one benchmark: plain files, a registry that tracks the same bytes, mounts."""

    def __init__(self, work, target):
        target = pathlib.Path(target).resolve()
        self.program, self.limit = target / "dvcfs", target / "examples/limit"
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="dvcfs-bench-", dir=work))
        self.plain, self.store = self.work / "plain", self.work / "store"
        self.repo, self.mount_point = self.work / "repo", self.work / "mnt"
        self.env = dict(
            os.environ,
            HOME=str(self.work / "home"),
            DVCFS_CACHE_DIR=str(self.work / "cache"),
            DVCFS_STATE_DIR=str(self.work / "state"),
            DVCFS_RUNTIME_DIR=str(self.work / "run"),
            GIT_AUTHOR_NAME="bench", GIT_AUTHOR_EMAIL="bench@localhost",
            GIT_COMMITTER_NAME="bench", GIT_COMMITTER_EMAIL="bench@localhost",
        )
        for folder in (self.plain, self.store, self.repo, self.mount_point, self.work / "home"):
            folder.mkdir()
        self.noise = random.Random(7)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.work, ignore_errors=True)

    # -- the registry

    def fill(self, folder, count, size, name="{:05}.bin"):
        """Makes files of noise."""
        (self.plain / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            with open(self.plain / folder / name.format(number), "wb") as file:
                for start in range(0, size, 1 << 20):
                    file.write(self.noise.randbytes(min(1 << 20, size - start)))

    def put(self, path):
        """Stores a plain file as a blob and gives its md5."""
        digest = hashlib.md5()
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
        name = digest.hexdigest()
        blob = self.blob(name)
        if not blob.exists():
            os.link(path, blob)
        return name

    def cached(self, path):
        """Where the blob of a plain file lies in the cache, once it was read."""
        with open(path, "rb") as file:
            name = hashlib.file_digest(file, "md5").hexdigest()
        return self.work / "cache/files/md5" / name[:2] / name[2:]

    def blob(self, name):
        path = self.store / "files/md5" / name[:2] / name[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def track_file(self, path):
        relative = path.relative_to(self.plain)
        self.declare(relative, f"- md5: {self.put(path)}\n  size: {path.stat().st_size}\n")

    def track_folder(self, folder):
        files = (path for path in (self.plain / folder).rglob("*") if path.is_file())
        self.track_entries(folder, {
            str(path.relative_to(self.plain / folder)): self.put(path) for path in files})

    def track_entries(self, folder, entries):
        """Declares a folder by its manifest, from relative paths to md5s."""
        rows = [{"md5": md5, "relpath": path} for path, md5 in sorted(entries.items())]
        text = json.dumps(rows, sort_keys=True).encode()
        md5 = hashlib.md5(text).hexdigest() + ".dir"
        self.blob(md5).write_bytes(text)
        self.declare(pathlib.Path(folder), f"- md5: {md5}\n  nfiles: {len(rows)}\n")

    def declare(self, path, fields):
        dotfile = self.repo / f"{path}.dvc"
        dotfile.parent.mkdir(parents=True, exist_ok=True)
        dotfile.write_text(f"outs:\n{fields}  hash: md5\n  path: {path.name}\n")

    def commit(self):
        (self.repo / ".dvc").mkdir(exist_ok=True)
        (self.repo / ".dvc/config").write_text(
            f"[core]\n    remote = st\n['remote \"st\"']\n    url = {self.store}\n")
        self.git("init", "-q", "-b", "main")
        self.git("add", "-A")
        self.git("commit", "-qm", "data")
        self.git("gc", "-q")

    def git(self, *args):
        subprocess.run(["git", "-C", str(self.repo), *args], check=True, env=self.env)

    # -- mounts

    def ours(self, *options, place=None):
        """A mount of the registry, where another one can be beside it."""
        place = place or self.mount_point
        command = [self.program, "mount", self.repo, place, "--rev", "main", "--no-follow",
                   *options]
        return Mount(self, command, place=place)

    def all_revisions(self, *options):
        """A mount of every revision as folders."""
        command = [self.program, "mount", self.repo, self.mount_point, "--no-follow", *options]
        return Mount(self, command)

    def least(self, mode, root=None):
        """The yardstick's mount of a folder, by default of the plain files."""
        command = [self.limit, "mount", self.mount_point, root or self.plain, mode]
        return Mount(self, command, waits=True)

    def dvcfs(self, *args):
        """Runs the program; gives what it prints."""
        command = [str(self.program), *args]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=self.env)
        return output.stdout

    # -- measuring

    def measure(self, *args):
        """Runs a load of the yardstick's and gives its figures."""
        output = subprocess.run([self.limit, *args], check=True, stdout=subprocess.PIPE)
        return json.loads(output.stdout)


class Mount:
    def __init__(self, workshop, command, waits=False, place=None):
        self.workshop, self.path = workshop, place or workshop.mount_point
        command = [str(word) for word in command]
        if waits:
            self.daemon = subprocess.Popen(command, stdout=subprocess.PIPE, env=workshop.env)
            self.daemon.stdout.readline()
            self.pid = self.daemon.pid
        else:
            subprocess.run(command, check=True, env=workshop.env)
            self.daemon = None
            self.pid = self.status()["pid"]

    def status(self):
        status = subprocess.run(
            [str(self.workshop.program), "status", "--json", str(self.path)],
            check=True, stdout=subprocess.PIPE, env=self.workshop.env)
        return json.loads(status.stdout)[0]

    def resident(self):
        """Bytes of memory that the daemon has."""
        with open(f"/proc/{self.pid}/status") as status:
            line = next(line for line in status if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024

    def processor_time(self):
        """Seconds of processor time that the daemon has used."""
        total = 0
        for task in os.listdir(f"/proc/{self.pid}/task"):
            with open(f"/proc/{self.pid}/task/{task}/schedstat") as schedstat:
                total += int(schedstat.read().split()[0])
        return total / 1e9

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.daemon:
            subprocess.run(["umount", str(self.path)], check=True)
            self.daemon.wait()
        else:
            subprocess.run([str(self.workshop.program), "umount", str(self.path)], check=True,
                           env=self.workshop.env)


def warm(root):
    """Reads every file below a folder once."""
    for folder, _, names in os.walk(root):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                while file.read(1 << 20):
                    pass


def leave_memory(path):
    """Has the next reader of a file read it from the disk."""
    with open(path, "rb") as file:
        os.fsync(file)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def table(*columns):
    print("\n| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))


def row(*cells):
    cells = (f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells)
    print("| " + " | ".join(cells) + " |", flush=True)
