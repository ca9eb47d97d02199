"""The whole chain on next to nothing: tuning, rows with and without PPO, a stop and its resumption, analysis."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import yaml

from experiments.study import design, rows
from tests.support.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def study(folder, *words, module="run"):
    """Run a command of the study in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", f"experiments.study.{module}", *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_from_tuning_to_the_page(tmp_path):
    before = sorted(design.ROWS.glob("*")), design.TUNED.exists()
    dry = ["--dry-run", str(tmp_path)]
    stopped = study(tmp_path, *dry, "--tune", "--minutes", "0.1")
    assert stopped.returncode == 75, stopped.stderr
    tuned = study(tmp_path, *dry, "--tune")
    assert tuned.returncode == 0, tuned.stderr
    record = yaml.safe_load((tmp_path / "tuned.yaml").read_text())
    assert set(record["settings"]) == {"sft", "pkt", "irm"} and record["pilot"][0]["questions"] == 3

    for arm in ("sft", "irm", "sft_continued"):
        made = study(tmp_path, *dry, "--arm", arm, "--seed", "0")
        assert made.returncode == 0, made.stderr
    made = study(tmp_path, *dry, "--tier", "1", "--rows-at-most", "1")  # the next in order
    assert made.returncode == 0, made.stderr
    found = {(row.arm, row.seed): row for row in rows.read_all(tmp_path / "rows")}
    assert set(found) == {(arm, 0) for arm in ("sft", "irm", "sft_continued", "sft_35")}
    sft, irm = found["sft", 0], found["irm", 0]
    assert {name: len(lines) for name, lines in sft.lines.items()} == {
        "questions": 4,
        "confusable": 4,
        "conversations": 2,
        "recorded": 6,
    }
    assert sft.header["dry_run"] and sft.header["costs"]["stages"]["model_sft"]["updates"] > 0
    stages = irm.header["costs"]["stages"]
    assert stages["model_sft"]["reused"] and stages["model_irm"]["sampled_calls"] > 0
    assert "sampled_questions" in found["sft_35", 0].lines
    for key in ("id", "cluster"):
        assert [line[key] for line in sft.lines["questions"]] == [line[key] for line in irm.lines["questions"]]
    assert any(line["cluster"] != line["id"] for line in sft.lines["questions"])

    again = study(tmp_path, *dry, "--arm", "sft", "--seed", "0")
    assert again.stdout == ""
    words = ["--rows", str(tmp_path / "rows"), "--out", str(tmp_path / "out")]
    analyzed = study(tmp_path, *words, module="analyze")
    assert analyzed.returncode == 0, analyzed.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["hypotheses"]["irm"]["verdict"] == "descriptive: 1 of 5 seeds"
    assert {part["arm"] for part in summary["ppo"]} == {"irm"} and summary["ppo"][-1]["reward"] is not None
    assert (tmp_path / "out" / "forest.svg").is_file()
    assert study(tmp_path, "--check", *words, module="analyze").returncode == 0
    assert (sorted(design.ROWS.glob("*")), design.TUNED.exists()) == before
