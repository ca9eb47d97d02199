"""MAE's controls: calls left out by toolworld's own record, or at random."""

from __future__ import annotations

from functools import partial

import pytest

from tests.support.mae_rules import PAPER
from tltrain import mae
from tltrain.data import mae_controls
from tltrain.data.judged import MaeReport, judged_trajectories
from tltrain.data.mae_controls import RandomDrop
from tltrain.errors import TltrainError
from tltrain.mae import Verdict
from tltrain.toolworld import generate
from tltrain.trajectory import Call, Message, Trajectory, actions

RIGHT, WRONG = '{"price": 3}', '{"error": "no such product"}'


def conversation(name: str, *answers: str, meta: dict | None = None, learn: bool = True) -> Trajectory:
    """Make a trajectory with one call for each answer, and a last call."""
    turns = [
        message
        for answer in answers
        for message in (Message.calling(Call("get", {}), learn=learn), Message("tool", answer))
    ]
    last = Message.calling(Call("finish", {}))
    return Trajectory(name, (), (Message("user", "q"), *turns, last), meta=meta or {})


def kept(judgements) -> list[bool]:
    return [verdict is Verdict.KEPT for verdict, _ in judgements]


# -- truth -----------------------------------------------------------------------------------------------------------


def test_truth_reads_what_the_data_knows_and_not_the_answers():
    meta = {"failed": (False, True, False), "errors": ("wrong_value", "missing", None)}
    item = conversation("t", WRONG, RIGHT, meta=meta)
    assert mae_controls.by_truth(item, "failed") == [
        (Verdict.KEPT, None),
        (Verdict.ERROR, "failed"),
        (Verdict.KEPT, None),
    ]
    assert mae_controls.by_truth(item, "errors") == [
        (Verdict.ERROR, "wrong_value"),
        (Verdict.ERROR, "missing"),
        (Verdict.KEPT, None),
    ]


def test_truth_of_toolworld_leaves_out_exactly_its_failed_and_its_wrong_calls():
    items = list(generate(60, error_rate=0.35))
    for field in ("failed", "errors"):
        report = MaeReport()
        judged = list(judged_trajectories(items, partial(mae_controls.by_truth, field=field), report))
        for item, before in zip(judged, items, strict=True):
            assert [action.learn for action in actions(item.messages)] == [not wrong for wrong in before.meta[field]]
        assert report.dropped_error == sum(bool(wrong) for item in items for wrong in item.meta[field]) > 20


@pytest.mark.parametrize(
    ("meta", "line"),
    [
        ({}, "does not say which calls went wrong .meta.failed.: only data=toolworld"),
        ({"failed": [True]}, "trajectory t has 2 calls, but meta.failed 1"),
        ({"failed": "yes"}, "does not say which calls went wrong"),
    ],
)
def test_data_without_the_truth_is_one_line(meta, line):
    with pytest.raises(TltrainError, match=line):
        mae_controls.by_truth(conversation("t", RIGHT, meta=meta), "failed")


# -- random drop -----------------------------------------------------------------------------------------------------


def test_random_drop_learns_the_errors_and_leaves_out_as_many_right_calls():
    judge = RandomDrop(PAPER, 0)
    found = judge(conversation("t", RIGHT, WRONG, RIGHT, WRONG, RIGHT))
    verdicts = [verdict for verdict, _ in found]
    assert verdicts[1] == verdicts[3] == Verdict.KEPT  # those with an error
    assert verdicts.count(Verdict.RANDOM) == 2 and judge.owed == 0


def test_what_a_trajectory_cannot_leave_out_the_next_one_does():
    judge = RandomDrop(PAPER, 0)
    assert kept(judge(conversation("a", WRONG, WRONG, WRONG))) == [True, True, True, False]  # only `finish` is right
    assert judge.owed == 2
    assert kept(judge(conversation("b", RIGHT))) == [False, False]
    assert judge.owed == 0
    assert kept(judge(conversation("c", RIGHT))) == [True, True]


def test_history_is_neither_drawn_nor_counted():
    judge = RandomDrop(PAPER, 0)
    assert kept(judge(conversation("a", WRONG, RIGHT, learn=False))) == [True] * 3 and judge.owed == 0


def test_an_unanswered_call_in_the_middle_stays_left_out():
    messages = (
        Message("user", "q"),
        Message.calling(Call("get", {})),
        Message("user", "?"),
        Message.calling(Call("f")),
    )
    assert RandomDrop(PAPER, 0)(Trajectory("t", (), messages))[0] == (Verdict.NO_ANSWER, None)


def test_random_drop_leaves_out_as_many_as_the_rule_on_the_whole_and_depends_on_the_seed():
    items = list(generate(60, error_rate=0.35))
    by_rule, found = MaeReport(), []
    list(judged_trajectories(items, partial(mae.verdicts, rule=PAPER), by_rule))
    for seed in (0, 0, 1):
        report = MaeReport()
        found.append(list(judged_trajectories(items, RandomDrop(PAPER, seed), report)))
        assert report.dropped_at_random == by_rule.dropped_error and report.dropped_error == 0
        assert report.kept == by_rule.kept and report.calls == by_rule.calls
    assert found[0] == found[1] != found[2]
