"""stage=eval stage.compare=[A,B]: compare two result folders."""

from __future__ import annotations

import json

import pytest

from tests.support.prediction_lines import line
from tests.support.sweep_sample import conversation
from tltrain import toolworld
from tltrain.formats.calls import render_call
from tltrain.trajectory import example


@pytest.fixture
def folder(tmp_path):
    """`folder(name, lines)`: make a result folder."""

    def folder(name, lines):
        path = tmp_path / name
        path.mkdir(exist_ok=True)
        (path / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    return folder


def test_a_comparison_counts_sample_by_sample(tltrain, folder):
    a = folder("a", [line(str(i), "wrong_value" if i < 20 else "correct") for i in range(100)])
    b = folder("b", [line(str(i), "wrong_tool" if i == 99 else "correct") for i in range(100)])
    ran = tltrain("stage=eval", f"stage.compare=[{a},{b}]")
    found = ran.metrics["details"]["set"]["levels"]
    assert (found["ts"]["a"], found["ts"]["b"], found["ts"]["difference"]) == (100, 99, -1)
    assert (found["cf"]["a"], found["cf"]["b"], found["cf"]["difference"]) == (80, 99, 19)  # 20 gained, 1 lost
    assert found["cf"]["low"] == pytest.approx(11, abs=2) and found["cf"]["high"] == pytest.approx(27, abs=2)
    assert found["reward"]["difference"] == pytest.approx((20 * 1.25 - 2.5) / 100)
    assert found["cf"]["p"] < 0.001 and found["ts"]["p"] == 1  # a difference in one sample proves nothing
    assert ran.metrics["set/cf/difference"] == 19 and ran.metrics["set/cf/p"] == found["cf"]["p"]
    rows = ran.metrics["details"]["set"]["rows"]
    assert (rows["a"]["wrong_value"], rows["b"]["wrong_value"], rows["b"]["wrong_tool"]) == (20, 0, 1)
    assert ran.metrics["compare"] == [str(a), str(b)]
    assert "set CF" in ran.out and "+19.00" in ran.out and "wrong tool" in ran.out
    again = tltrain("stage=eval", f"stage.compare=[{a},{b}]")
    assert again.metrics["details"] == ran.metrics["details"]


def test_each_set_is_compared_by_itself(tltrain, folder):
    a = folder("a", [line("1", name="x"), line("1", "wrong_tool", name="y")])
    b = folder("b", [line("1", name="x"), line("1", name="y")])
    ran = tltrain("stage=eval", f"stage.compare=[{a},{b}]")
    assert [ran.metrics[f"{name}/ts/difference"] for name in "xy"] == [0, 100]


def test_results_of_the_stage_itself_can_be_compared(tltrain, tmp_path):
    samples = list(toolworld.samples(10))
    right = [render_call(example(sample.goldens[0])) for sample in samples]
    folders = []
    for name, texts in (("a", right), ("b", ["none", *right[1:]])):
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps({"prediction": text}) + "\n" for text in texts))
        words = ("stage=eval", "benchmark.size=10", f"stage.predictions={file}")
        folders.append(str(tltrain(*words, folder=tmp_path / name).folder))
    ran = tltrain("stage=eval", f"stage.compare=[{','.join(folders)}]")
    assert ran.metrics["toolworld/cf/difference"] == -10
    assert ran.metrics["details"]["toolworld"]["rows"]["b"]["format_error"] == 1


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ([line("1")], "{a} has 2 (set), {b} has 1 (set)"),
        ([line("1"), line("3")], "line 2 is set 2 in {a}, set 3 in {b}"),
        ([line("1"), line("2", name="t")], "line 2 is set 2 in {a}, t 2 in {b}"),
        ([line("1"), line("2", goldens=[])], "{a} and {b} have different golden calls for set 2"),
    ],
)
def test_other_samples_are_refused(tltrain, folder, other, said):
    a, b = folder("a", [line("1"), line("2")]), folder("b", other)
    ran = tltrain("stage=eval", f"stage.compare=[{a},{b}]", status=1)
    needed = "stage.compare needs answers to the same samples in the same order: "
    assert ran.err == needed + said.format(a=a, b=b) + "\n"
    assert not (ran.folder / "metrics.json").exists()


def test_a_folder_without_results_is_reported(tltrain, folder, tmp_path):
    a = folder("a", [line("1")])
    ran = tltrain("stage=eval", f"stage.compare=[{a},{tmp_path}]", status=1)
    assert ran.err == (f"stage.compare: {tmp_path} has no predictions.jsonl; expected a result folder of stage=eval\n")
    for wrong, said in (
        ({"ts": 1}, "ts: expected true or false, found 1"),
        ({"reward": None}, "reward: expected a number, found null"),
        ({"grade": "fine"}, "grade: expected one of format_error, "),
    ):
        b = folder("b", [{**line("1"), **wrong}])
        ran = tltrain("stage=eval", f"stage.compare=[{a},{b}]", status=1)
        assert ran.err.startswith(f"{b / 'predictions.jsonl'}, record 1: {said}")
    empty = folder("c", [])
    assert "expected predictions, found none" in tltrain("stage=eval", f"stage.compare=[{a},{empty}]", status=1).err


def held(tmp_path, name, conversations):
    path = tmp_path / name
    path.mkdir()
    (path / "transcripts.jsonl").write_text("".join(json.dumps(one) + "\n" for one in conversations))
    return path


def test_conversations_are_compared_too(tltrain, tmp_path):
    a = held(tmp_path, "a", [conversation(i, 2, 4, "turn limit", False) for i in range(20)])
    b = held(tmp_path, "b", [conversation(i, i % 2, 1 + i % 3) for i in range(20)])
    ran = tltrain("stage=eval", f"stage.compare=[{a},{b}]")
    found = ran.metrics["details"]["conversations"]["levels"]
    assert found["va"]["difference"] == found["success"]["difference"] == 100
    assert (found["de"]["a"], found["de"]["b"]) == (50, pytest.approx(100 * 10 / 39, abs=1e-4))  # per call
    assert found["de"]["high"] < 0 and found["ce"]["difference"] == -25
    assert "conversations DE" in ran.out and "conversations success" in ran.out


def test_conversations_are_not_compared_with_answers_nor_with_others(tltrain, tmp_path, folder):
    a = held(tmp_path, "a", [conversation(0, 0, 1)])
    said = tltrain("stage=eval", f"stage.compare=[{a},{folder('answers', [line('0')])}]", status=1).err
    assert "the same metrics" in said and "ce, de, success, va" in said
    other = held(tmp_path, "other", [conversation(1, 0, 1)])
    assert "line 1 is" in tltrain("stage=eval", f"stage.compare=[{a},{other}]", status=1).err
    broken = held(tmp_path, "broken", [conversation(0, 0, 1) | {"valid": "yes"}])
    assert "valid" in tltrain("stage=eval", f"stage.compare=[{a},{broken}]", status=1).err


def test_golden_arguments_in_another_order_are_the_same_sample(tltrain, folder):
    a = folder("a", [line("1", goldens=[{"name": "f", "arguments": {"x": 1, "y": 2}}])])
    b = folder("b", [line("1", goldens=[{"arguments": {"y": 2, "x": 1}, "name": "f"}])])
    assert tltrain("stage=eval", f"stage.compare=[{a},{b}]").metrics["set/cf/difference"] == 0
