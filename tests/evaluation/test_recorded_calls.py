"""Loss of recorded right and failing calls: which calls are scored, after what history, and the numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tltrain.evaluation import recorded_calls
from tltrain.evaluation.analysis import TurnScore
from tltrain.evaluation.recorded_calls import RecordedCall
from tltrain.toolworld import generate
from tltrain.trajectory import actions

ITEMS = list(generate(40, 0, 0.35, "test"))


def learned(trajectory) -> list[int]:
    return [turn for turn, action in enumerate(actions(trajectory.messages)) if action.learn]


def as_history(message):
    return message.with_learn(False) if message.role == "assistant" else message


def test_the_calls_are_as_many_as_asked_for():
    for size in (1, 7, 50):
        found = recorded_calls.limited(ITEMS, size)
        assert sum(len(learned(item)) for item in found) == size
        assert [item.messages for item in found[:-1]] == [item.messages for item in ITEMS[: len(found) - 1]]
    assert recorded_calls.limited(ITEMS, 0) == []


def test_a_longer_run_only_appends():
    few, many = (recorded_calls.limited(ITEMS, size) for size in (20, 60))
    assert few[:-1] == many[: len(few) - 1]


def test_the_golden_call_stands_in_the_place_of_each_failing_one():
    pairs = 0
    for item in ITEMS:
        done = actions(item.messages)
        found = list(recorded_calls.alternatives(item))
        wanted = [turn for turn, failed in enumerate(item.meta["failed"]) if failed]
        assert [len(actions(other.messages)) - 1 for other in found] == wanted
        for turn, other in zip(wanted, found, strict=True):
            at = done[turn].at
            assert other.messages[:at] == tuple(map(as_history, item.messages[:at]))
            assert learned(other) == [turn] and len(other.messages) == at + 1
            right = next(done[n].call for n in range(turn, len(done)) if item.meta["errors"][n] is None)
            assert actions(other.messages)[-1].call == right != done[turn].call
            pairs += 1
    assert pairs > 20


def test_a_call_is_recorded_with_its_kind_and_its_loss():
    item = next(item for item in ITEMS if item.meta["errors"][0] and item.meta["failed"][0])
    score = TurnScore(0, ("first", "name", "distinguishing", "end"), (1.0, 0.5, 2.0, 0.25), (True, True, False, True))
    (found,) = recorded_calls.recorded(item, [score], {0: replace(score, nll=(0.1, 0.1, 0.1, 0.1))}, ["finish"])
    assert (found.id, found.task, found.turn) == (item.id, item.meta["task"], 0)
    assert (found.mistake, found.failed, found.open_text) == (item.meta["errors"][0], True, False)
    assert (found.loss, found.tokens, found.keys, found.keys_right, found.keys_loss) == (3.75, 4, 2, 1, 3.0)
    assert found.golden_loss == pytest.approx(0.4)


def call(id: str, loss: float, **keys) -> RecordedCall:
    return RecordedCall(
        **{
            **{"id": id, "task": "t", "turn": 0, "tool": "f", "open_text": False, "mistake": None, "failed": False},
            **{"loss": loss, "tokens": 4, "keys": 2, "keys_right": 1, "keys_loss": 1.0},
            **keys,
        }
    )


def test_the_measures_are_those_computed_by_hand():
    wrong = {"mistake": "missing", "failed": True}
    calls = [
        call("a", 2.0, keys_right=2),
        call("a", 8.0, golden_loss=3.0, **wrong),
        call("b", 6.0, keys=1, keys_loss=0.5),
        call("b", 4.0, golden_loss=5.0, tokens=8, **wrong),
        call("b", 100.0, mistake="wrong_value"),  # wrong, and the tool did not notice: in no measure
        call("c", 50.0, open_text=True),  # `finish`: in no measure
    ]
    found = {name: number.value for name, number in recorded_calls.measure(calls).items()}
    assert found == {
        "golden_loss": pytest.approx(8 / 8),
        "failing_loss": pytest.approx(12 / 12),
        "key_accuracy": pytest.approx(100.0),
        "key_loss": pytest.approx(1.5 / 3),
        "margin": pytest.approx((5 - 1) / 2),
        "preferred": pytest.approx(50.0),
    }
    assert set(recorded_calls.MEASURES) == set(found)


def test_without_failing_calls_only_the_golden_ones_are_measured():
    found = recorded_calls.measure([call("a", 2.0)])
    assert set(found) == {"golden_loss", "key_accuracy", "key_loss"}
    assert math.isnan(found["golden_loss"].low)
