"""What is measured beside each other: mounts and commands, and what they cost while they work."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
import urllib.request

TICKS = os.sysconf("SC_CLK_TCK")

# Seconds after which a command is ended and counted as not done.
LIMIT = 300

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "benchbench",
    "AWS_DEFAULT_REGION": "us-east-1", "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWSACCESSKEYID": "bench", "AWSSECRETACCESSKEY": "benchbench", "DVC_NO_ANALYTICS": "1",
}


class Store:
    """The S3 server (`benches/store`), whose counters tell what anything costs."""

    def __init__(self, program, folder, address):
        self.endpoint = f"http://{address}"
        self.process = subprocess.Popen([program, folder, address], stdout=subprocess.PIPE)
        if not self.process.stdout.readline():
            raise RuntimeError(f"no server at {address}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def counts(self):
        return self.control("stats")

    def slow(self, delay_ms=0, mb_per_s=0, lists=1):
        self.control(f"set?delay_ms={delay_ms}&mb_per_s={mb_per_s}&lists={lists}")

    def control(self, words):
        with urllib.request.urlopen(f"{self.endpoint}/-/{words}", timeout=20) as answer:
            return json.load(answer)


class Bench:
    """Programs and folders of one run, and where figures go."""

    def __init__(self, args, store):
        self.store, self.data = store, args.data
        self.work = args.work
        self.dvcfs = args.target / "dvcfs"
        self.results = args.results
        self.env = {**os.environ, **CREDENTIALS, "HOME": str(self.work / "home")}
        wanted = set(args.sides.split(",")) if args.sides else {"dvcfs", *TOOLS}
        self.has_ours = "dvcfs" in wanted
        self.tools = {name: found for name, usual in TOOLS.items() if name in wanted
                      and (found := shutil.which(os.environ.get(name.upper(), usual)))}

    @property
    def python(self):
        """The Python that DVC runs in."""
        if "dvc" in self.tools:
            with open(self.tools["dvc"]) as program:
                return program.readline().removeprefix("#!").strip()

    def folder(self, name):
        """An empty folder, that nothing was removed for: ext4 would look for numbers of inodes that
        were not free a moment ago, at the cost of who comes next."""
        return pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.work))

    def clean(self):
        """Removes what earlier parts have left, and waits until ext4 has forgotten that."""
        shutil.rmtree(self.work)
        (self.work / "home").mkdir(parents=True)
        time.sleep(6)

    def repo(self, shape):
        return self.data / f"git/{shape}"

    def plain(self, shape):
        return self.data / f"s3/plain-{shape}"

    def mounts(self, *left_out):
        """The names of all sides that mount."""
        names = ["dvcfs"] * self.has_ours
        names += (name for name in ("mountpoint", "rclone", "s3fs") if name in self.tools)
        return [name for name in names if name not in left_out]

    def copiers(self, shape, path=None):
        """The commands of all sides that copy a file of a bucket, or all of it, into a folder."""
        source, endpoint = f"s3://plain-{shape}/{path or ''}", self.store.endpoint
        to = lambda: f"{self.folder('copy')}/"
        commands = {
            "s5cmd": ["--endpoint-url", endpoint, "--log", "error", "cp",
                      source + "*" * (not path), to()],
            "aws": ["--endpoint-url", endpoint, "s3", "cp", "--only-show-errors", source, to(),
                    *([] if path else ["--recursive"])],
            "rclone": ["copy", *self.rclone(), source.replace("s3://", ":s3:"), to()],
        }
        return {f"{name} copy" if name == "rclone" else name: [self.tools[name], *words]
                for name, words in commands.items() if name in self.tools}

    def rclone(self):
        return ["--config=/dev/null", "--s3-provider=Other", "--s3-env-auth",
                "--s3-force-path-style", f"--s3-endpoint={self.store.endpoint}"]

    @contextlib.contextmanager
    def measured(self, work, side, pid=None):
        """Counts what the block costs: time, requests and bytes, and a daemon's processor time."""
        row = {"work": work, "side": side}
        counts, used, begin = self.store.counts(), spent(pid), time.monotonic()
        yield row
        row.setdefault("s", time.monotonic() - begin)
        if pid:
            row.update(cpu=spent(pid) - used, peak=peak(pid))
        self.note(row, counts)

    def note(self, row, before):
        row.update((key, value - before[key]) for key, value in self.store.counts().items())
        print(json.dumps(row), flush=True)
        with open(self.results, "a") as file:
            file.write(json.dumps(row) + "\n")

    def run(self, work, side, command, cwd=None, env=None):
        """Measures a command; one that takes too long has no figures but its limit.

        As before a mount, what others have left to write is written first, or it would count here.
        """
        if side == "dvcfs" and not self.has_ours:
            return
        os.sync()
        counts, begin = self.store.counts(), time.monotonic()
        with open(self.work / f"{side}.log", "ab") as log:
            process = subprocess.Popen([str(word) for word in command], cwd=cwd, stdout=log,
                                       stderr=log, env={**self.env, **(env or {})})
            limit, most = begin + LIMIT, 0
            while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
                most = max(most, peak(process.pid))
                if time.monotonic() > limit:
                    process.kill()
                    os.wait4(process.pid, 0)
                    self.note({"work": work, "side": side, "s": LIMIT, "is_cut": True}, counts)
                    return
                time.sleep(0.005)
        _, status, usage = ended
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{side} has failed: see {log.name}")
        self.note({"work": work, "side": side, "s": time.monotonic() - begin,
                   "cpu": usage.ru_utime + usage.ru_stime, "peak": most}, counts)

    def ours(self, command, *args):
        """One of our commands."""
        return [self.dvcfs, command, "--quiet", *args]

    def site(self):
        """The environment of DVC's commands with nothing kept from earlier ones."""
        return {"DVC_SITE_CACHE_DIR": str(self.folder("site"))}

    def fresh(self):
        """The environment of our commands with nothing kept from earlier ones."""
        folders = {name: self.folder(f"ours-{name}") for name in ("cache", "state", "runtime")}
        return {f"DVCFS_{name.upper()}_DIR": str(path) for name, path in folders.items()}

    def mount(self, side, shape, *options):
        return Mount(self, side, shape, options)


# What is looked for on PATH; a variable such as MOUNTPOINT says where else.
TOOLS = {"mountpoint": "mount-s3", "rclone": "rclone", "s3fs": "s3fs", "s5cmd": "s5cmd",
         "aws": "aws", "dvc": "dvc"}


class Mount:
    """A mount with an empty cache, in the foreground; `with` waits until it is there."""

    def __init__(self, bench, side, shape, options):
        self.bench, self.side, self.shape, self.options = bench, side, shape, options
        self.path = bench.folder(f"mnt-{side}")
        self.cache = bench.folder(f"cache-{side}")
        self.env = bench.fresh() if side == "dvcfs" else {}
        self.process = None
        os.sync()

    def command(self):
        tools, endpoint = self.bench.tools, self.bench.store.endpoint
        bucket, path, cache = f"plain-{self.shape}", self.path, self.cache
        match self.side:
            case "dvcfs":
                return [self.bench.dvcfs, "mount", "--foreground", "--trust-remote",
                        "--rev", "main", "--no-follow", *self.options,
                        self.bench.repo(self.shape), path]
            case "mountpoint":
                # The released program takes options where the library's front end takes words.
                words = [bucket, path, endpoint, "--cache", cache, "--ttl", "indefinite"]
                if pathlib.Path(tools["mountpoint"]).name == "mount-s3":
                    words = [bucket, path, "--endpoint-url", endpoint, "--force-path-style",
                             "--cache", cache, "--metadata-ttl", "indefinite", "--foreground"]
                return [tools["mountpoint"], *words]
            case "rclone":
                return [tools["rclone"], "mount", f":s3:{bucket}", path, *self.bench.rclone(),
                        "--read-only", f"--cache-dir={cache}", "--vfs-cache-mode=full",
                        "--dir-cache-time=1h", "--attr-timeout=1h", "--vfs-read-chunk-size=8M",
                        "--vfs-read-chunk-streams=8", "--no-modtime", "--vfs-fast-fingerprint",
                        "--transfers=16"]
            case "s3fs":
                options = [f"url={endpoint}", "use_path_request_style", "ro", "sigv4",
                           f"use_cache={cache}", "stat_cache_expire=3600", "parallel_count=16",
                           "max_stat_cache_size=2000000", "multireq_max=64"]
                return [tools["s3fs"], bucket, path, "-f", "-o", ",".join(options)]

    def __enter__(self):
        log = open(self.bench.work / f"{self.side}.log", "ab")
        command = [str(word) for word in self.command()]
        self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                        env={**self.bench.env, **self.env})
        end = time.monotonic() + 60
        while not self.is_mounted():
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.side} has not mounted: see {log.name}")
            time.sleep(0.002)
        return self

    def is_mounted(self):
        with open("/proc/self/mountinfo") as mounts:
            return any(line.split()[4] == str(self.path) for line in mounts)

    @property
    def pid(self):
        return self.process.pid

    def __exit__(self, *_):
        while self.is_mounted() and subprocess.run(["umount", self.path]).returncode:
            time.sleep(0.1)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def family(pid):
    """A process and all below it."""
    yield pid
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as children:
                for child in children.read().split():
                    yield from family(int(child))


def spent(pid):
    """Seconds of processor time that a daemon and its children have used."""
    total = 0
    for member in family(pid) if pid else ():
        with contextlib.suppress(OSError), open(f"/proc/{member}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
    return total / TICKS


def peak(pid):
    """Bytes of memory that a daemon has had at most."""
    total = 0
    for member in family(pid):
        with contextlib.suppress(OSError), open(f"/proc/{member}/status") as status:
            total += sum(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))
    return total
