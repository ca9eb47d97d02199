"""A model's folder behind `transformers serve`: certificates that pass, and one that fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import native_formats
from tests.support.composition import composed
from tests.support.paths import ROOT
from tests.support.planted import plant
from tltrain.data.judged import JudgedSource
from tltrain.serving import server

MISSING = server.missing()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} ({server.INSTALL})"),
]
DATA = ("data.size=12", "data.holdout=0.5", "certify=4")


@pytest.fixture(scope="module")
def held_out():
    """Return the conversations that the stage holds out of `DATA`."""
    return JudgedSource(composed("stage=certify", *DATA)).split()[1]


@pytest.fixture(scope="module")
def planted(held_out, tmp_path_factory):
    """`planted(family)` returns the folder of a model that always makes one call; it is made once."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            made[family] = tmp_path_factory.mktemp("planted") / family
            plant(made[family], family, held_out)
        return made[family]

    return make


@pytest.mark.parametrize("family", native_formats.NAMES)
def test_a_model_that_always_says_one_call_passes(tltrain, planted, family):
    model = planted(family)
    ran = tltrain("stage=certify", f"model.path={model}", *DATA)
    found = json.loads((model / "certificate.json").read_text())
    counts = ("asked", "prompts_equal", "tool_calls", "same_grades", "from_training", "unreadable")
    assert [found[name] for name in counts] == [4, 4, 4, 4, 4, 0] and found["passed"] and found["format"] == family
    assert "certified: 4 of 4 prompts equal, 4 answers with parsed calls, 4 of 4 answers read alike" in ran.out
    assert ran.metrics["same_grades"] == 4


def test_one_changed_word_of_the_saved_template_fails(tltrain, planted, tmp_path):
    model = shutil.copytree(planted("qwen3"), tmp_path / "model")
    file = model / "chat_template.jinja"
    assert file.read_text().count("You may call") == 1
    file.write_text(file.read_text().replace("You may call", "You might call"))
    ran = tltrain("stage=certify", f"model.path={model}", *DATA, status=1)
    line = ran.err.splitlines()[-1]
    assert "0 of 4 prompts equal" in line and "might" in line and "Traceback" not in ran.err
    assert json.loads((model / "certificate.json").read_text())["passed"] is False
    assert not (ran.folder / "metrics.json").exists()


def recorders(parent: int) -> list[int]:
    """Return the processes that serve a model for a process, recognised by their command line."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            above = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if b"tltrain.serving.recorder" in words and above == parent:
            found.append(int(entry.name))
    return found


def wait_for(what, seconds: float = 120):
    """Return the first true value of a function."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_no_process_is_left_when_the_run_is_killed(planted, tmp_path, sent, status):
    words = ["stage=certify", f"model.path={planted('qwen3')}", *DATA, "tracking=none", "hydra.run.dir=run"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (tmp_path / "said").open("wb") as said:
        run = subprocess.Popen(
            [sys.executable, "-m", "tltrain", *words], cwd=tmp_path, env=environment, stdout=said, stderr=said
        )
    try:
        (served,) = wait_for(lambda: recorders(run.pid))
        run.send_signal(sent)
        assert run.wait(60) == status, (tmp_path / "said").read_text()
        wait_for(lambda: not Path(f"/proc/{served}").exists() or b"recorder" not in cmdline(served), 30)
    finally:
        run.kill()
        run.wait()


def cmdline(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""
