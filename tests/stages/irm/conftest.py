"""stage=irm as a user runs it, on a small model."""

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
    """The base model, as a folder that a test may take a copy of."""
    return Path(runs["ppo"].metrics["base_model"])


@pytest.fixture
def irm(tltrain):
    """`irm("key=value", ...) -> Ran`: stage=irm on the small model, PPO unless told otherwise."""

    def run(*words: str, **options) -> Ran:
        given = {word.partition("=")[0] for word in words}
        if {"stage.algorithm=rloo", "stage.algorithm=grpo"} & set(words):
            given.add("stage.critic.init")  # they have no critic
        defaults = [word for word in (*SMALL, *FEW, *ALGORITHMS["ppo"]) if word.partition("=")[0] not in given]
        return tltrain("stage=irm", *defaults, *words, **options)

    return run
