"""Metrics from judged calls, and the quirks of RoTBench's released scorer."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.support.paths import ROTBENCH, needs_rotbench
from tltrain.errors import TltrainError
from tltrain.evaluation.scoring import (
    Correctness,
    any_call,
    count_outcomes,
    count_rows,
    each_call,
    every_call,
    rotbench_fixed,
    rotbench_official,
    score,
    score_by,
)
from tltrain.formats.calls import render_call
from tltrain.grading import grade
from tltrain.trajectory import ANY, Call, OneOf, Sample, Tool

RIGHT, TOOL_ONLY, NAMES_ONLY, WRONG = (
    Correctness(True, True, True),
    Correctness(True),
    Correctness(True, True),
    Correctness(),
)


def tool(name: str, *parameters: str) -> Tool:
    return Tool(name, "", {"properties": {parameter: {} for parameter in parameters}})


def sample(*goldens: Call, tools: tuple[Tool, ...] | None = None, **meta) -> Sample:
    tools = tools or (tool("get", "a", "b"), tool("set", "a"), tool("aks", "question"), tool("fniish", "answer"))
    return Sample("id", tools, (), goldens, meta=meta)


def official(prediction: Call | None, *goldens: Call, **kwargs) -> Correctness:
    (levels,) = rotbench_official([prediction], [sample(*goldens, **kwargs)])
    return levels


def fixed(prediction: Call, *goldens: Call) -> Correctness:
    (judged,) = rotbench_fixed([prediction], [sample(*goldens)])
    return Correctness(judged.ts, judged.pi, judged.cf)


def test_scores_come_with_their_counts_and_by_group():
    judged = [RIGHT, NAMES_ONLY, TOOL_ONLY, WRONG]
    samples = [sample(scenario=scenario) for scenario in ("TG", "TG", "RS", "RS")]
    overall = score(judged)
    assert {level: (one.value, one.right, one.n) for level, one in overall.items()} == {
        "ts": (75, 3, 4), "pi": (50, 2, 4), "cf": (25, 1, 4),
    }  # fmt: skip
    groups = score_by(judged, samples, "scenario")
    assert {name: [one.value for one in levels.values()] for name, levels in groups.items()} == {
        "TG": [100, 100, 50], "RS": [50, 0, 0],
    }  # fmt: skip


def test_a_scenario_of_the_released_scorer_is_divided_by_a_seventh_of_all():
    samples = [sample(scenario="TG")] * 3 + [sample(scenario="RS")] * 11
    groups = score_by([RIGHT] * 14, samples, "scenario", denominator=len(samples) / 7)
    assert (groups["TG"]["ts"].value, groups["TG"]["ts"].n) == (150, 3)  # 3 right of 14 / 7 = 2
    assert groups["RS"]["ts"].value == 550


def test_errors_are_counted_by_outcome_and_by_row():
    tools = sample().tools
    golden = Call("get", {"a": 1})
    grades = [grade(text, golden, tools) for text in ("get(a=1)", "get(b=1)", "get(a=1, b=1)", "nil()", "x", "get()")]
    outcomes = {name: count for name, count in count_outcomes(grades).items() if count}
    assert outcomes == {"format_error": 1, "tool_hallucination": 1, "parameters": 3, "correct": 1}
    rows = {name: count for name, count in count_rows(grades).items() if count}
    assert rows == {
        "format_error": 1, "tool_hallucination": 1, "redundant_missing": 1, "redundant_or_missing": 2, "correct": 1,
    }  # fmt: skip
    assert list(count_outcomes([])) == [
        "format_error", "words_before_call", "missing_call", "tool_hallucination", "wrong_tool", "parameters",
        "wrong_value", "correct",
    ]  # fmt: skip


# --- several calls asked for ----------------------------------------------------------------------------------------


def whole(text: str, *goldens: Call) -> Correctness:
    (levels,) = every_call([text], [sample(*goldens)])
    return levels


def test_the_first_call_may_agree_with_any_golden_call():
    goldens = (Call("get", {"a": 1}), Call("set", {"a": 2}))
    texts = ["set(a=2)", "[set(a=2), get(a=1)]", "get(a=2); set(a=2)", "no call"]
    grades = any_call(texts, [sample(*goldens)] * 4)
    assert [one.outcome.value for one in grades] == ["correct", "correct", "wrong_value", "format_error"]


def test_every_golden_call_is_matched_by_a_call_of_its_own_in_any_order():
    goldens = (Call("get", {"a": 1}), Call("get", {"a": 2}), Call("set", {"a": 3}))
    assert whole("set(a=3)\nget(a=2), get(a=1)", *goldens) == RIGHT
    assert whole("set(a=3), get(a=1), get(a=1)", *goldens) == NAMES_ONLY  # one golden call is answered twice
    assert whole("set(a=3), get(a=1), get(b=2)", *goldens) == TOOL_ONLY
    assert whole("set(a=3), set(a=3), get(a=1)", *goldens) == WRONG
    assert whole("set(a=3), get(a=1)", *goldens) == WRONG  # one too few
    assert whole("set(a=3), get(a=1), get(a=2), get(a=2)", *goldens) == WRONG  # one too many
    assert whole("", *goldens) == WRONG


def test_calls_that_several_golden_calls_accept_are_dealt_out_so_that_all_are_matched():
    # The first call fits both golden calls, the second only the first: greedy matching would fail.
    goldens = (Call("get", {"a": OneOf((1, 2))}), Call("get", {"a": 1}))
    assert whole("get(a=1), get(a=2)", *goldens) == whole("get(a=2), get(a=1)", *goldens) == RIGHT
    assert whole("get(a=2), get(a=2)", *goldens) == NAMES_ONLY


def test_each_golden_call_is_matched_and_the_words_to_the_user_may_be_left_out():
    goldens = (Call("get", {"a": 1}), Call("fniish", {"answer": "x"}))
    asked = replace(sample(*goldens), parallel=True)
    texts = ["fniish(answer='y')\nget(a=1)", "get(a=1)", "none"]
    found = each_call(texts, [asked] * 3)
    assert [one.cf for one in found] == [0.5, 0.5, 0] and [one.ts for one in found] == [1, 0.5, 0]
    free = each_call(texts, [asked] * 3, words_to_user=False)
    assert [one.cf for one in free] == [1, 0.5, 0]
    assert score(found)["cf"].value == pytest.approx(100 / 3) and score(found)["cf"].right == 1
    assert {row: n for row, n in count_rows(found).items() if n} == {
        "wrong_value": 1, "missing_call": 1, "format_error": 1,
    }  # fmt: skip


def test_a_call_that_cannot_be_read_is_one_of_an_answers():
    assert whole("get(a=1)\n(not a call) why", Call("get", {"a": 1})) == WRONG
    assert whole("get(a=1)\n(not a call) why\nset(a=2)", Call("get", {"a": 1}), Call("set", {"a": 2})) == WRONG


# --- RoTBench -------------------------------------------------------------------------------------------------------


def test_official_a_call_without_arguments_or_unreadable_is_wrong_at_every_level():
    assert official(Call("get"), Call("get")) == WRONG
    assert fixed(Call("get"), Call("get")) == RIGHT
    assert official(None, Call("get", {"a": 1})) == WRONG


def test_official_any_accepted_call_counts_at_each_level():
    goldens = Call("set", {"a": 1}), Call("get", {"a": 1, "b": 2}), Call("get", {"a": 2})
    assert official(Call("get", {"a": 2}), *goldens) == RIGHT
    assert official(Call("get", {"a": 1, "b": 3}), *goldens) == NAMES_ONLY
    assert official(Call("get", {"b": 1}), *goldens) == TOOL_ONLY
    assert official(Call("other", {"a": 1}), *goldens) == WRONG


def test_official_finish_also_names_the_renamed_last_tool():
    golden = Call("fniish", {"answer": "x"})
    assert official(Call("finish", {"answer": "y"}), golden) == RIGHT
    assert fixed(Call("finish", {"answer": "y"}), golden) == WRONG
    assert official(Call("ask_to_user", {"question": "y"}), Call("aks", {"question": "x"})) == WRONG


def test_official_a_renamed_prediction_stays_renamed():
    tools = tool("finish", "code"), tool("aks", "question"), tool("fniish", "answer")
    goldens = Call("fniish", {"answer": "x"}), Call("finish", {"code": "x"})
    assert official(Call("finish", {"code": "x"}), *goldens, tools=tools) == TOOL_ONLY
    assert official(Call("finish", {"code": "x"}), *reversed(goldens), tools=tools) == RIGHT


def test_official_a_value_that_may_be_anything_wants_its_name_and_is_not_compared():
    golden = Call("get", {"a": 1, "b": ANY})
    assert official(Call("get", {"a": 1, "b": "whatever"}), golden) == RIGHT
    assert official(Call("get", {"a": 2, "b": "whatever"}), golden) == NAMES_ONLY
    assert official(Call("get", {"a": 1}), golden) == TOOL_ONLY


def test_official_what_was_deleted_from_the_prediction_stays_deleted():
    # The first golden call deletes `b`, so the second, which matches in full, no longer has the same names.
    goldens = Call("get", {"a": 1, "b": ANY}), Call("get", {"a": 2, "b": 3})
    assert official(Call("get", {"a": 2, "b": 3}), *goldens) == NAMES_ONLY
    assert fixed(Call("get", {"a": 2, "b": 3}), *goldens) == RIGHT


def test_official_values_are_compared_by_pythons_equality():
    assert official(Call("get", {"a": True}), Call("get", {"a": 1})) == RIGHT
    assert fixed(Call("get", {"a": True}), Call("get", {"a": 1})) == NAMES_ONLY
    assert official(Call("get", {"a": "1"}), Call("get", {"a": 1})) == NAMES_ONLY


def test_values_of_the_last_two_tools_are_not_looked_at_in_either_scoring():
    for name, parameter in (("aks", "question"), ("fniish", "answer")):
        for scorer in (official, fixed):
            assert scorer(Call(name, {parameter: "other words"}), Call(name, {parameter: "words"})) == RIGHT
            assert scorer(Call(name, {"words": "words"}), Call(name, {parameter: "words"})) == TOOL_ONLY


def test_official_nor_those_of_a_tool_that_noise_named_finish():
    tools = tool("finish", "code"), tool("aks", "question"), tool("fniish", "answer")
    assert official(Call("finish", {"code": "y"}), Call("finish", {"code": "x"}), tools=tools) == RIGHT


def test_predictions_and_samples_must_be_as_many():
    with pytest.raises(TltrainError, match="1 predictions for 2 samples"):
        rotbench_official([None], [sample(), sample()])


@needs_rotbench
@pytest.mark.parametrize(("level", "without_arguments"), [("clean", 8), ("slight", 16), ("heavy", 10), ("union", 8)])
def test_golden_calls_are_all_right_but_for_the_released_scorer(level, without_arguments):
    records = json.loads((ROTBENCH / "first_turn" / f"{level}.json").read_text(encoding="utf-8"))
    samples = [released_sample(record) for record in records]
    predictions = [
        Call(golden.name, {key: "x" if value is ANY else value for key, value in golden.arguments.items()})
        for golden in (one.goldens[0] for one in samples)
    ]
    assert sum(not call.arguments for call in predictions) == without_arguments
    assert score(rotbench_fixed([render_call(call) for call in predictions], samples))["cf"].value == 100
    assert score(rotbench_official(predictions, samples))["ts"].right == len(samples) - without_arguments


def released_sample(record: dict) -> Sample:
    system, *_, answer = (message["value"] for message in record["conversations"])
    tools = json.loads(system[system.index("[") : system.rindex("]") + 1])
    goldens = []
    for accepted in answer:
        name, arguments = accepted.split("Action:")[1].split("Action Input:")
        read = {key: ANY if value == "None" else value for key, value in json.loads(arguments).items()}
        goldens.append(Call(name.strip(), read))
    return Sample(record["id"], tuple(Tool(**{"parameters": {}} | one) for one in tools), (), tuple(goldens))
