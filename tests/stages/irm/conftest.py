"""stage=irm as a user runs it, on a small model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import Ran, command_line
from tests.support.small_runs import ALGORITHMS, FEW, SMALL


@pytest.fixture(scope="module")
def runs(tmp_path_factory, models_cache) -> dict[str, Ran]:
    """A run of each algorithm on the same prompts."""
    folder = tmp_path_factory.mktemp("irm")
    made = {
        name: command_line("stage=irm", *SMALL, *FEW, *words, folder=folder / name, cache=models_cache)
        for name, words in ALGORITHMS.items()
    }
    assert not any(run.status for run in made.values()), [run.err for run in made.values()]
    return made


@pytest.fixture(params=ALGORITHMS)
def ran(request, runs) -> Ran:
    return runs[request.param]


@pytest.fixture(scope="module")
def model(runs, tmp_path_factory) -> Path:
    """The base model, as a folder that a test may take a copy of."""
    return Path(runs["ppo"].metrics["base_model"])


@pytest.fixture
def irm(tltrain, no_picture):
    """`irm("key=value", ...) -> Ran`: stage=irm on the small model, PPO unless told otherwise."""

    def run(*words: str, **options) -> Ran:
        given = {word.partition("=")[0] for word in words}
        defaults = [word for word in (*SMALL, *FEW, *ALGORITHMS["ppo"]) if word.partition("=")[0] not in given]
        return tltrain("stage=irm", *defaults, *words, **options)

    return run
