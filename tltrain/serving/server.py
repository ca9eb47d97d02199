"""A model behind `transformers serve` or another server, on this machine and only for this process."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tltrain.errors import TltrainError, shorten
from tltrain.runtime import json_files, redact, resolver, secret_words
from tltrain.runtime.place import LOOPBACK
from tltrain.serving.recorder import ANSWERS, PORT

NEEDED = ("openai", "fastapi", "uvicorn", "pydantic")
"""The packages of the extra `serve`."""
INSTALL = "pip install 'tltrain[serve]'"
POLL = 0.05
"""Seconds between two checks whether the server is ready."""
_OF_LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables that would make a served model believe that it is one of several ranks."""


@dataclass(frozen=True)
class Program:
    """A server that `serving` can start: its name in messages, and the module that serves."""

    name: str
    module: str


TRANSFORMERS = Program("`transformers serve`", "tltrain.serving.recorder")


def missing() -> list[str]:
    """Return the packages that serving needs and that are not installed."""
    return [name for name in NEEDED if find_spec(name) is None]


def obstacle() -> str | None:
    """Return why nothing can be served here, with the remedy; None if no obstacle is known."""
    if names := missing():
        return f"it takes {', '.join(names)}: {INSTALL}"
    for name in NEEDED:
        try:
            if find_spec(name) is not None:
                resolver.resolve(f"{name}:__name__")
        except Exception as error:  # anything that a broken or unsuitable installation raises
            said = f"{type(error).__name__}: {shorten(str(error), 160)}"
            return f"{name} is installed and cannot be imported ({said}): {INSTALL} --force-reinstall"
    return None


@dataclass(frozen=True)
class Recorded:
    """The token ids that the served process was given and generated for a request, and its date (YYYY-MM-DD)."""

    prompt: Sequence[int]
    answer: Sequence[int]
    date: str


@dataclass(frozen=True)
class Server:
    """A running server: the address of its API, its key, and the folder of its files."""

    url: str
    secret: str
    place: Path

    def recorded(self) -> dict[str, Recorded]:
        """Return everything generated so far, by the id of its request."""
        file = self.place / ANSWERS
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        found = [json_files.parse(line) for line in lines]
        return {one["request"]: Recorded(one["prompt"], one["answer"], one["date"]) for one in found}


@contextmanager
def serving(
    folder: Path,
    options: Sequence[str] = (),
    threads: int | None = None,
    seconds: float = 600.0,
    program: Program = TRANSFORMERS,
) -> Iterator[Server]:
    """Serve a model within the block. The server is killed at its end, and ends with this process.

    Args:
        folder: the model's folder, or the file that the program serves.
        options: the program's options.
        threads: CPU threads of the server; None: the program decides.
        seconds: how long it may take to load the model.

    Raises:
        TltrainError: the server ends or is not ready in time; the message has its last output.
    """
    secret = secrets.token_urlsafe(32)
    redact.learn(secret)
    with tempfile.TemporaryDirectory(prefix="tltrain-serve-") as name:  # only this user can enter it
        place = Path(name)
        settings = {"folder": str(folder.resolve()), "options": list(options), "secret": secret, "place": name}
        with (place / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-u", "-m", program.module],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=place,
                env=environment(os.environ, threads),
                start_new_session=True,
            )
        try:
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # it has ended, which is reported below
                process.stdin.write(json.dumps(settings).encode() + b"\n")
                process.stdin.flush()
            yield Server(f"http://{LOOPBACK}:{_port(process, place, folder, seconds, program)}/v1", secret, place)
        finally:
            _end(process)


def environment(own: Mapping[str, str], threads: int | None) -> dict[str, str]:
    """Return the environment of the served process: this one's, without secrets and without this process's rank."""
    kept = {
        name: value
        for name, value in own.items()
        if name not in _OF_LAUNCHERS
        and not name.startswith(("TORCHELASTIC_", "ACCELERATE_"))
        and not secret_words.variable_names_secret(name)
    }
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), own.get("PYTHONPATH"))))
    kept |= {"PYTHONPATH": path, "PYTHONSAFEPATH": "1", "HF_HUB_OFFLINE": "1"}
    return kept | ({"OMP_NUM_THREADS": str(threads)} if threads else {})


def _port(process: subprocess.Popen[bytes], place: Path, folder: Path, seconds: float, program: Program) -> int:
    deadline = time.monotonic() + seconds
    while not (place / PORT).is_file():
        if process.poll() is not None:
            raise TltrainError(f"{folder}: {program.name} does not start: {last_line(place)}")
        if time.monotonic() > deadline:
            raise TltrainError(f"{folder}: {program.name} is not ready after {seconds:g} s: {last_line(place)}")
        time.sleep(POLL)
    return int((place / PORT).read_text(encoding="ascii"))


def last_line(place: Path) -> str:
    """Return the server's last output, shortened, as library messages may be long."""
    lines = (place / "log").read_text(encoding="utf-8", errors="replace").split("\n")
    said = [line.strip(" │") for line in lines if line.strip(" │╰╯╭╮─")]
    return redact.text(said[-1])[:300] if said else "it said nothing"


def _end(process: subprocess.Popen[Any]) -> None:
    """Kill the server and all processes that it has started; it has nothing to save."""
    with suppress(ProcessLookupError, PermissionError):  # it has ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()
