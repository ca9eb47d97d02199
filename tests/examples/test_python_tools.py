"""examples/python_tools: the tools and the tasks fit together, and their commands compose."""

from __future__ import annotations

import json

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.slow

FOLDER = ROOT / "examples" / "python_tools"
FILES = (f"benchmark.module={FOLDER}/my_tools.py", f"benchmark.path={FOLDER}/tasks.jsonl")


def test_the_golden_calls_solve_the_tasks(tltrain, tmp_path):
    tltrain(
        "stage=eval", "benchmark=python_tools", *FILES, "source=golden", "tracking=none", f"hydra.run.dir={tmp_path}"
    )
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["python_tools_multi/n"] == 4
    assert metrics["python_tools_multi/success"] == metrics["python_tools_multi/va"] == 100


def test_the_example_is_short():
    assert sum(len(file.read_text().splitlines()) for file in FOLDER.iterdir() if file.is_file()) <= 60
