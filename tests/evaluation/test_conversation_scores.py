"""The multi-turn numbers, against counts made by hand."""

from __future__ import annotations

import time

import pytest

from tltrain.environments.loop import Conversation, JudgedCall
from tltrain.evaluation import conversation_scores
from tltrain.evaluation.conversation_scores import is_empty, is_refusal, is_valid, score, score_by
from tltrain.grading import Outcome
from tltrain.trajectory import Call, Task


def conversation(kinds: str, ended="finish", answer="It is 12.", success=None, scenario=None) -> Conversation:
    """One whose calls are, a letter each: `.` right, `e` answered with an error, `p` parameters, `b` both of these,
    `f` unreadable, `h` of no tool on offer.
    """
    outcomes = {"f": Outcome.FORMAT_ERROR, "h": Outcome.TOOL_HALLUCINATION, "p": Outcome.PARAMETERS}
    outcomes["b"] = Outcome.PARAMETERS
    calls = tuple(
        JudgedCall(1 + 2 * at, 1, "", Call("f"), outcomes.get(kind, Outcome.CORRECT), "", True, error)
        for at, kind in enumerate(kinds)
        for error in ["http" if kind == "e" else "missing_argument" if kind == "b" else None]
    )
    return Conversation(Task("t", {"scenario": scenario}), (), (), calls, ended, answer, {"success": success})


def test_the_four_numbers():
    found = score(
        [
            conversation("..e.", success=True),  # 4 calls, 1 CE
            conversation("fhpb", success=False, answer="I cannot handle the task."),  # 4 DE, 1 CE
            conversation("e.", ended="turn limit", success=False, answer=None),  # 1 CE
        ]
    )
    assert (found["de"].right, found["de"].n, found["de"].value) == (4, 10, 40.0)
    assert (found["ce"].right, found["ce"].n, found["ce"].value) == (3, 10, 30.0)
    assert (found["va"].right, found["va"].n) == (1, 3)
    assert (found["success"].right, found["success"].n) == (1, 3)
    assert found["success"].value == pytest.approx(100 / 3)


def test_success_is_told_only_where_the_environment_can():
    assert "success" not in score([conversation("."), conversation(".")])
    broken = conversation("", ended="environment error", answer=None, success=None)
    assert score([conversation(".", success=True), broken])["success"].value == 50


def test_by_scenario():
    found = score_by([conversation(".", scenario="a"), conversation("f", scenario="b"), conversation("f")], "scenario")
    assert {key: value["de"].value for key, value in found.items()} == {"a": 0, "b": 100, None: 100}


def test_counts_say_what_was_wrong_and_how_it_ended():
    items = [conversation("fhpb.e"), conversation("be", ended="too long"), conversation("", ended="environment error")]
    assert conversation_scores.count_ends(items) == {
        "finish": 1,
        "turn limit": 0,
        "too long": 1,
        "environment error": 1,
    }
    assert conversation_scores.count_contradictions(items) == {
        "format_error": 1,
        "words_before_call": 0,
        "tool_hallucination": 1,
        "parameters": 3,
    }
    assert conversation_scores.count_errors(items) == {"missing_argument": 2, "http": 2}


@pytest.mark.parametrize("answer", ["", " ", "...", "None", "null.", "N/A", "-"])
def test_empty_answers_are_not_valid(answer):
    assert is_empty(answer) and not is_valid(conversation(".", answer=answer))


@pytest.mark.parametrize(
    "answer",
    [
        "I cannot handle the task",
        "I can not handle this task.",
        "Sorry, I can't help with that.",
        "I'm sorry, but I am unable to complete this request, since the tool failed.",
        "Unfortunately, I'm not able to answer.",
        "I’m afraid I can’t do that",
        "We could not finish it",
        "I am currently unable to process\nthis",
        "The task cannot be handled.",
        "My apologies: this request could not be completed",
    ],
)
def test_refusals_are_not_valid(answer):
    assert is_refusal(answer) and not is_valid(conversation(".", answer=answer))


@pytest.mark.parametrize(
    "answer",
    [
        "12",
        "0",
        "No.",
        "I could not find a train from Oslo to Lima.",
        "The book cannot be borrowed: no copy is left.",
        "The task clean printer is done.",
        "Sorry for the wait: it costs 12",
        "You cannot do this on Sundays",
        "She said: I cannot help",
    ],
)
def test_other_answers_are_valid(answer):
    assert is_valid(conversation(".", answer=answer))
    assert not is_valid(conversation(".", answer=answer, ended="turn limit"))


def test_long_answers_are_read_in_linear_time():
    start = time.process_time()
    for answer in ("." * 200_000 + "a b", "I am " * 50_000, "sorry" + " ," * 100_000, "i can't " + "a" * 200_000):
        assert is_valid(conversation(".", answer=answer))
    assert time.process_time() - start < 2
