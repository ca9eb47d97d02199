"""stage=irm through the command line, on a small model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import Ran
from tests.support.small_runs import ALGORITHMS, FEW, SMALL


@pytest.fixture(scope="module")
def runs(run_once) -> dict[str, Ran]:
    """A run of each algorithm on the same prompts."""
    return {name: run_once("stage=irm", *SMALL, *FEW, *words) for name, words in ALGORITHMS.items()}


@pytest.fixture(params=ALGORITHMS)
def ran(request, runs) -> Ran:
    return runs[request.param]


@pytest.fixture(scope="module")
def model(runs) -> Path:
    """The base model's folder, which a test may copy."""
    return Path(runs["ppo"].metrics["base_model"])


@pytest.fixture
def irm(tltrain):
    """`irm("key=value", ...) -> Ran`: run stage=irm on the small model, with PPO by default."""

    def run(*words: str, **options) -> Ran:
        given = {word.partition("=")[0] for word in words}
        if {"stage.algorithm=rloo", "stage.algorithm=grpo"} & set(words):
            given.add("stage.critic.init")  # these algorithms have no critic
        defaults = [word for word in (*SMALL, *FEW, *ALGORITHMS["ppo"]) if word.partition("=")[0] not in given]
        return tltrain("stage=irm", *defaults, *words, **options)

    return run
