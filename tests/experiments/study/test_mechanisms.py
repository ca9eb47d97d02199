"""The table behind the hypotheses' numbers: baseline and arm in the same seeds, nothing where they have others."""

from __future__ import annotations

import pytest

from experiments.study import design, rows
from experiments.study.mechanisms import controls, mechanisms
from experiments.study.summary import load
from tests.support import study_rows


def conversations(ends):
    lines = study_rows.conversations([int(end == "finish") for end in ends])
    return [line | {"ended": end} for line, end in zip(lines, ends, strict=True)]


@pytest.fixture
def folder(tmp_path):
    """Two seeds of MAE, PKT and their baselines, and a history of PPO."""
    folder = tmp_path / "rows"
    for seed in range(2):
        for arm, questions, ends in (
            ("sft_35", [3, 0, 0, 0], ["finish", "turn limit", "turn limit", "turn limit"]),
            ("mae_35", [3, 3, 0, 0], ["finish", "finish", "turn limit", "text"]),
        ):
            lines = [*study_rows.answers("questions", questions), *conversations(ends)]
            study_rows.write(folder, {(arm, seed): lines})
        for arm, levels, recorded in (("sft", [3, 0], 60.0), ("pkt", [0, 0], 70.0)):
            lines = study_rows.answers("confusable", levels)
            if arm == "pkt":
                lines[0] |= {"grade": "tool_hallucination", "reward": -2.0}
            study_rows.write(folder, {(arm, seed): lines}, metrics={"recorded/key_accuracy": recorded})
    study_rows.write(folder, {("irm", 0): study_rows.answers("confusable", [3, 3])})
    sampled = [{"set": "ppo", "id": str(step), "samples": 2, "reward": step / 10} for step in range(8)]
    rows.write(tmp_path / "histories" / "irm-0.jsonl.gz", {"arm": "irm", "seed": 0, "fingerprint": "c"}, sampled)
    return folder


def cells(folder):
    """Line -> its cells: MAE, PKT, IRM, all three."""
    table = mechanisms(load(folder, study_rows.PROTOCOL))
    assert table[0] == "|  | `sft_35` → `mae_35` | `sft` → `pkt` | `sft` → `irm` | `sft_35` → `all_35` |"
    return {line.split(" | ")[0][2:]: line[2:-2].split(" | ")[1:] for line in table[2:]}


def test_numbers_of_baseline_and_arm(folder):
    found = cells(folder)
    assert found["conversations that reach the limit of calls, %"] == ["75.0 → 25.0", "", "", ""]
    assert found["conversations with the task solved, %"][0] == "25.0 → 50.0"
    assert found["standard tools: a wrong tool, %"][0] == "75.0 → 50.0"
    assert found["standard tools: mean reward of the answers"][0] == "-0.88 → -0.25"  # (1 - 3 * 1.5) / 4, (2 - 3) / 4
    assert found["confusable tools: a name that is not on offer, %"] == ["", "0.0 → 50.0", "0.0 → 0.0", ""]
    assert found["confusable tools: mean reward of the answers"][1] == "-0.25 → -1.75"
    (recorded,) = [line for name, line in found.items() if name.startswith("recorded calls: % of the key tokens")]
    assert recorded[1] == "60.0 → 70.0"
    # parts of two rollouts: 0 and 0.1, then 0.6 and 0.7
    assert found["PPO: reward of a sampled call, first → last of 4 parts"] == ["", "", "0.05 → 0.65", ""]
    assert list(found)[:2] == [name for name in found if name.startswith("conversations")]


def test_means_over_other_seeds_are_not_set_beside_each_other(folder):
    (folder / "mae_35-1.jsonl.gz").unlink()
    found = cells(folder)
    assert "conversations with the task solved, %" not in found
    assert found["standard tools: a wrong tool, %"][0] == "75.0 → 50.0"  # of the seed that both have


def test_controls_and_remedies_that_stand_have_a_line(folder):
    """Of PKT's remedy one seed stands, which all have in common with it; of the control with random drops none."""
    lines = study_rows.answers("confusable", [3, 3])
    lines[1] |= {"grade": "tool_hallucination", "reward": -2.0}
    study_rows.write(folder, {("pkt_name", 0): lines})
    table = controls(load(folder, study_rows.PROTOCOL), design.load())
    assert table[0].startswith("|  | seeds | VA of conversations | TS, confusable tools | mean of TS, PI, CF |")
    # TS: both right, one right before (SFT), none (PKT); the changed grade is no tool on offer, of two answers
    assert table[2:] == [
        "| `sft` → `pkt_name` | 1 |  | +50.0 |  |  | 50.0 → 0.0; 0.0 → 50.0 |",
        "| `pkt` → `pkt_name` | 1 |  | +100.0 |  |  | 50.0 → 0.0; 50.0 → 50.0 |",
    ]


def test_no_rows_no_table():
    assert mechanisms(None) == []
    assert controls(None, design.load()) == []
