"""A model's folder behind `transformers serve`: certificates that pass, and one that fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.support import native_formats
from tests.support.planted import plant
from tests.support.processes import process
from tltrain.data import hold_out
from tltrain.serving import server
from tltrain.toolworld import generate

MISSING = server.missing()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} ({server.INSTALL})"),
]
DATA = ("data.size=12", "data.holdout=0.5", "certify=4")


@pytest.fixture(scope="module")
def held_out():
    """The conversations that the stage holds out of `DATA`."""
    from tests.support.composition import composed
    from tltrain.data.judged import JudgedSource

    return JudgedSource(composed("stage=certify", *DATA)).split()[1]


@pytest.fixture(scope="module")
def planted(held_out, tmp_path_factory):
    """`planted(family)`: the folder of a model that always says one call; made once."""
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
