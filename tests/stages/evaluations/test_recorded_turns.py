"""stage=eval benchmark=toolworld_turns through the command line."""

from __future__ import annotations

from tests.support.composition import mistake
from tests.support.small_runs import SMALL, last_line
from tltrain.evaluation.recorded_calls import MEASURES
from tltrain.toolworld import generate

TURNS = ("stage=eval", "benchmark=toolworld_turns", *SMALL, "data.size=6")


def test_a_model_is_scored_on_the_recorded_calls_of_the_benchmarks_seed(tltrain):
    ran = tltrain(*TURNS, "benchmark.size=14", "benchmark.error_rate=0.35", "seed=3")
    calls = ran.lines("recorded_calls.jsonl")
    items = {item.id: item for item in generate(10, 0, 0.35, "test")}  # benchmark.seed is 0
    assert len(calls) == ran.metrics["toolworld_turns/n"] == 14
    for call in calls:
        item = items[call["id"]]
        assert (call["task"], call["mistake"]) == (item.meta["task"], item.meta["errors"][call["turn"]])
        assert call["failed"] == item.meta["failed"][call["turn"]] == (call["golden_loss"] is not None)
        assert call["loss"] > 0 and call["keys"] >= 1
    assert {f"toolworld_turns/{name}" for name in MEASURES} <= set(ran.metrics)
    details = ran.metrics["details"]["toolworld_turns"]
    assert details["golden"] + details["wrong"] == 14 and details["failing"] == sum(call["failed"] for call in calls)


def test_what_it_cannot_do_is_one_line(tltrain, write):
    assert "saved answers" in last_line(tltrain(*TURNS, f"stage.predictions={write({})}", status=1))
    assert "benchmark.size" in last_line(tltrain(*TURNS, "benchmark.size=0", status=1))
    assert mistake(*TURNS, "benchmark.path=x").startswith("benchmark.path: benchmark=toolworld_turns reads no such key")


def test_a_split_that_there_is_not_is_one_line():
    assert mistake("stage=pkt", "data.split=dev") == (
        "data.split: Invalid value 'dev', expected one of [train, validation, test]"
    )
