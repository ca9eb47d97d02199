"""The rows' files: what a run left becomes lines, the same bytes each time, and damage is said."""

from __future__ import annotations

import gzip
import json

import pytest

from experiments.study import rows
from tests.support import study_rows
from tests.support.sweep_sample import conversation
from tltrain.errors import TltrainError
from tltrain.evaluation.predictions import Prediction
from tltrain.evaluation.records import to_line


def test_the_same_results_give_the_same_bytes(tmp_path):
    lines = study_rows.answers("questions", [3, 1])
    for name in ("a", "b"):
        rows.write(tmp_path / name / "sft-0.jsonl.gz", study_rows.header("sft", 0), lines)
    one, two = ((tmp_path / name / "sft-0.jsonl.gz").read_bytes() for name in ("a", "b"))
    assert one == two and one[4:8] == bytes(4)  # the time of modification
    assert [path.name for path in tmp_path.rglob("*part")] == []
    read = rows.read(tmp_path / "a" / "sft-0.jsonl.gz")
    assert (read.arm, read.seed, len(read.lines["questions"])) == ("sft", 0, 2)
    assert read.lines["questions"][1] == {key: value for key, value in lines[1].items() if key != "set"}


def test_damage_and_wrong_names_are_one_line(tmp_path):
    file = tmp_path / "sft-0.jsonl.gz"
    rows.write(file, study_rows.header("sft", 1), [])
    with pytest.raises(TltrainError, match="its header says sft-1"):
        rows.read(file)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(TltrainError, match="not a row of the study"):
        rows.read(file)
    file.write_bytes(gzip.compress(b'{"format": 9}\n'))
    with pytest.raises(TltrainError, match="format 9"):
        rows.read(file)


def test_what_a_run_left_becomes_lines(tmp_path):
    (tmp_path / "eval_questions").mkdir()
    scores = {"ts": True, "pi": True, "cf": False}
    asked = [
        Prediction("toolworld", name, "secret words", grade="wrong_value", scores=scores, reward=-0.25, meta=meta)
        for name, meta in (("a", {"task": "t"}), ("b", {"seen": True}), ("a", {"task": "t"}))
    ]
    (tmp_path / "eval_questions" / "predictions.jsonl").write_text("".join(f"{to_line(one)}\n" for one in asked))
    (tmp_path / "eval_questions" / "metrics.json").write_text(
        json.dumps({"toolworld/ts": 100.0, "toolworld/official/ts": 9, "details": {}})
    )
    (tmp_path / "eval_conversations").mkdir()
    (tmp_path / "eval_conversations" / "transcripts.jsonl").write_text(json.dumps(conversation(7, 1, 2)) + "\n")
    (tmp_path / "eval_conversations" / "metrics.json").write_text("{}")
    (tmp_path / "eval_recorded").mkdir()
    call = {"id": "x", "task": "t", "turn": 2, "loss": 1.2345678, "keys": 2, "keys_right": 1, "text": "secret"}
    (tmp_path / "eval_recorded" / "recorded_calls.jsonl").write_text(json.dumps(call) + "\n")
    lines = [line for name, place in rows.evaluations(tmp_path) for line in rows.lines_of(name, place)]
    assert "secret" not in json.dumps(lines)
    talked, first, second, third, recorded = lines
    assert first == {"set": "questions", "id": "a", "cluster": "t", "ts": 1, "pi": 1, "cf": 0} | {
        "grade": "wrong_value",
        "reward": -0.25,
    }
    assert (second["cluster"], second["seen"], third["id"]) == ("b", True, "a#2")
    assert (talked["calls"], talked["de"], talked["va"]) == (2, 1, 1)
    assert recorded == {"set": "recorded", "id": "x/2", "cluster": "t", "loss": 1.23457, "keys": 2, "keys_right": 1}
    assert rows.results([first, second], "mean") == {"a": pytest.approx(200 / 3), "b": pytest.approx(200 / 3)}
    (tmp_path / "eval_recorded" / "metrics.json").write_text("{}")
    assert rows.metrics_of(tmp_path) == {"questions/ts": 100.0, "questions/official/ts": 9}
    with pytest.raises(TltrainError, match="not a finished evaluation"):
        rows.lines_of("x", tmp_path)
    two = [Prediction(name, "a", scores=scores) for name in ("toolalpaca_real", "toolalpaca_simulated")]
    (tmp_path / "eval_questions" / "predictions.jsonl").write_text("".join(f"{to_line(one)}\n" for one in two))
    with pytest.raises(TltrainError, match="answers of toolalpaca_real, toolalpaca_simulated"):
        rows.lines_of("questions", tmp_path / "eval_questions")


def test_numbers_of_lines():
    lines = study_rows.conversations([1, 0, 1])
    assert sum(rows.results(lines, "ce").values()) / 3 == pytest.approx(100 / 6)  # one of six calls
    assert list(rows.results(lines, "va").values()) == [100, 0, 100]
    assert list(rows.results(lines, "with_error").values()) == [0, 100, 0]
    assert list(rows.results(lines, "calls").values()) == [2, 2, 2]
    recorded = [
        {"id": "a", "open_text": False, "mistake": None, "keys": 2, "keys_right": 2, "loss": 3.0, "golden_loss": None},
        {"id": "b", "open_text": False, "mistake": "x", "keys": 4, "keys_right": 1, "loss": 3.0, "golden_loss": 1.0},
        {"id": "c", "open_text": True, "mistake": "x", "keys": 1, "keys_right": 0, "loss": 9.0, "golden_loss": 1.0},
        {"id": "d", "open_text": False, "mistake": None, "keys": 4, "keys_right": 1, "loss": 3.0, "golden_loss": None},
    ]
    assert rows.results(recorded, "margin") == {"b": 2.0}
    assert sum(rows.results(recorded, "key_accuracy").values()) / 2 == pytest.approx(50)  # 3 of 6 of golden calls
    with pytest.raises(TltrainError, match="no 'va'"):
        rows.results(recorded, "va")
