"""Run commands in separate processes, for behaviour that only a fresh interpreter shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.paths import ROOT

HEAVY = ("torch", "transformers", "trl", "datasets", "wandb", "matplotlib")
PROBE = f"""
import atexit, sys
atexit.register(lambda: print("loaded:", [name for name in {HEAVY} if name in sys.modules]))
from tltrain.__main__ import main
main()
"""


FORKED = f"""
import json, os, re, sys
from pathlib import Path
import tltrain.__main__
from tests.support import composition
lines = json.loads(sys.argv[1])
for groups in {{tuple(word for word in words if re.match("[a-z]+=", word)) for words in lines}}:
    composition.mistake(*groups)  # composes what the forks then need not
for number, words in enumerate(lines):
    if os.fork():
        os.wait()
        continue
    os.mkdir(str(number))
    os.chdir(str(number))
    for stream, name in ((sys.stdout, "out"), (sys.stderr, "err")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), stream.fileno())
    sys.argv, status = [sys.argv[0], *words], 0
    try:
        with composition.quick():
            tltrain.__main__.main()
    except SystemExit as stop:
        status = stop.code or 0
    sys.stdout.flush()
    sys.stderr.flush()
    loaded = [name for name in {HEAVY} if name in sys.modules]
    Path("ended").write_text(json.dumps([status, loaded]))
    os._exit(0)
"""
"""Script that runs each command line in a fork of a started interpreter that has loaded no library of a stage."""


@dataclass(frozen=True)
class Forked:
    """The result of a command line: exit status, heavy libraries loaded, output, and its folder."""

    status: int
    loaded: list[str]
    out: str
    err: str
    folder: Path


def forked(folder: Path, lines: Sequence[Sequence[str]]) -> list[Forked]:
    """Run command lines, each in a fork of one started interpreter, in folders below `folder`."""
    python(folder, "-c", FORKED, json.dumps(lines))
    found = []
    for number in range(len(lines)):
        place = folder / str(number)
        status, loaded = json.loads((place / "ended").read_text())
        out, err = ((place / name).read_text() for name in ("out", "err"))
        found.append(Forked(status, loaded, out, err, place))
    return found


def process(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in its own process in `folder`, with the package of this checkout."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def probe(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line so that its last line of output names the libraries that it loaded."""
    return process([sys.executable, "-c", PROBE, *words], folder)


def python(folder: Path, *words: str, path: Path = ROOT, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run `python words...` in `folder`, with the package in `path`."""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    ran = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout
    )
    assert ran.returncode == 0, f"{words}:\n{ran.stdout}\n{ran.stderr}"
    return ran
