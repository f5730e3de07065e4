"""Runs `dvc` many times: real DVC, started once.

Each line read is a batch in JSON: `folder` to work in, `site` for DVC's own notes, `out` for what
is printed, `cases` of commands with their arguments. The answer is a line with the exit code of each case, whose output
is in the file `out` with the case's number behind it, and its complaints in one that ends in `.err`. A batch is run in a process of its own.
"""

import json
import os
import sys

import dvc.commands.diff
import dvc.commands.ls
import dvc.fs.dvc
import dvc.repo.diff
import dvc.repo.index
import dvc.repo.ls
import dvc.repo.open_repo
import rich.json
import tabulate
from dvc.cli import main


def redirect(number, path):
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, number)
    os.close(file)


def run(arguments):
    try:
        return main(arguments) or 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


def run_batch(batch, answer):
    os.environ["DVC_SITE_CACHE_DIR"] = batch["site"]
    os.chdir(batch["folder"])
    codes = []
    for number, arguments in enumerate(batch["cases"]):
        redirect(1, f"{batch['out']}{number}")
        redirect(2, f"{batch['out']}{number}.err")
        codes.append(run(arguments))
        sys.stdout.flush()
    os.write(answer, json.dumps(codes).encode() + b"\n")


answer = os.dup(1)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run_batch(json.loads(line), answer)
            code = 0
        finally:
            os._exit(code)
    if os.waitpid(child, 0)[1]:
        sys.exit("a batch failed")
