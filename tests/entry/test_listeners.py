"""The ports on which a real run of two processes listens, and what it does if a stranger writes to its store."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from torch.distributed import DistError, PrefixStore, TCPStore

from tests.support.listeners import family, listening, reachable
from tests.support.paths import ROOT
from tests.support.small_runs import SMALL
from tests.support.traps import trap
from tests.support.typed import last_of_each

pytestmark = pytest.mark.slow

NOTHING_ELSE = ("tracking=none", "certify=0")
TWO = ("hardware.device=cpu", "hardware.processes=2", *NOTHING_ELSE, "cache.dir=cache", "hydra.run.dir=run")
OURS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


@contextmanager
def started(folder: Path, *words: str, **more: str):
    """Start the command line with two processes, in a process of its own, with more environment variables."""
    inherited = {name: value for name, value in os.environ.items() if name not in OURS}
    environment = inherited | {"PYTHONPATH": str(ROOT)} | more
    line = [sys.executable, "-m", "tltrain", *last_of_each([*SMALL, *TWO, *words])]
    how = {"cwd": folder, "env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(line, **how) as run:
        try:
            yield run
        finally:
            run.kill()


@pytest.mark.parametrize("engine", [(), ("hardware=zero3",)], ids=["ddp", "zero3"])
def test_two_processes_listen_on_loopback_alone(tmp_path, engine):
    found = set()
    with started(tmp_path, "stage=pkt", *engine, "data.size=12", "stage.args.max_steps=2") as run:
        while run.poll() is None:
            found |= listening(family(run.pid))
            time.sleep(0.05)
        assert run.returncode == 0, run.stdout.read()
    assert len(found) >= 3, found  # the store, and gloo's of both processes
    assert reachable(found) == []


def test_a_stranger_s_values_run_nothing_and_end_the_run_in_one_line(tmp_path):
    planted = 0
    text = trap(tmp_path / "trap")
    with started(tmp_path, "stage=pkt", "data.size=400") as run:
        store = store_of(run)
        while run.poll() is None:
            try:
                for number in range(1, 4):
                    for key in (f"work/{number + 1}", *(f"exchange/1/{number}{end}" for end in ("", "/0", "/1"))):
                        store.set(key, text)
                planted += 1
            except DistError:  # the run has ended
                break
        said = run.stdout.read()
        assert run.wait(60) == 1, said
    assert planted
    assert not (tmp_path / "trap").exists()
    assert "Traceback" not in said
    assert "holds a value that no process of this run wrote" in said.splitlines()[-1]
    assert said.splitlines()[-1] == (tmp_path / "run" / "error.txt").read_text().strip()


def test_machines_with_different_secrets_do_not_work_together(tmp_path):
    """Two launchers, as on two machines."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["stage=pkt", "data.size=6", "hardware.processes=1", "hardware.nodes=2"]
    words.append(f"hardware.rendezvous=127.0.0.1:{port}")
    folders = [tmp_path / "0", tmp_path / "1"]
    with ExitStack() as stack:
        runs = []
        for rank, folder in enumerate(folders):
            folder.mkdir()
            node = started(folder, *words, f"hardware.node_rank={rank}", TLTRAIN_SECRET=f"the secret of node {rank}")
            runs.append(stack.enter_context(node))
        said = [run.communicate(timeout=200)[0] for run in runs]
    assert [run.returncode for run in runs] == [1, 1], said
    for text in said:
        assert "Traceback" not in text
        assert "set TLTRAIN_SECRET to the same random text for all processes" in text.splitlines()[-1]


def store_of(run: subprocess.Popen) -> PrefixStore:
    """Return the store of a run that has just begun, opened as anyone who can reach its port could open it."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for pid in family(run.pid) - {run.pid}:
            try:
                words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                port = int(dict(word.split(b"=", 1) for word in words if word)[b"MASTER_PORT"])
            except (OSError, KeyError, ValueError):
                continue
            return PrefixStore("tltrain/0", TCPStore("127.0.0.1", port, timeout=timedelta(seconds=20)))
        time.sleep(0.1)
    raise AssertionError("no workers were started")
