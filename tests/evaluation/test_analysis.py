"""The counts of stage=analyze, on numbers that can be worked out by hand."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from tltrain.config import CONF_DIR
from tltrain.entry.unread import analyzed
from tltrain.evaluation import analysis
from tltrain.evaluation.analysis import ErrorCounts, TurnScore, labels, ratios, token_parts
from tltrain.formats.calls import render_call
from tltrain.formats.tool_errors import Rule
from tltrain.stages.analyze import by_outcome
from tltrain.trajectory import Call, Message, Trajectory

RULE = Rule.from_config(OmegaConf.to_container(OmegaConf.load(CONF_DIR / "mae" / "paper.yaml")))

# --- intervals ------------------------------------------------------------------------------------------------------


def test_the_interval_of_a_share():
    found = ratios({"x": ([1.0] * 80 + [0.0] * 20, [1.0] * 100)}, scale=100)["x"]
    assert (found.value, found.n) == (80, 100)
    # 80 +- 1.96 * sqrt(80 * 20 / 100)
    assert found.low == pytest.approx(72.2, abs=1.5) and found.high == pytest.approx(87.8, abs=1.5)


def test_errors_of_one_trajectory_are_correlated():
    alone = ratios({"x": ([1.0] * 80 + [0.0] * 20, [1.0] * 100)})["x"]
    together = ratios({"x": ([10.0] * 8 + [0.0] * 2, [10.0] * 10)})["x"]
    assert alone.value == together.value
    assert together.high - together.low > 2.5 * (alone.high - alone.low)


def test_a_ratio_of_nothing_is_left_out():
    assert ratios({"x": ([0.0], [0.0])}) == {}
    found = ratios({"x": ([0.0, 0.0], [0.0, 0.0]), "y": ([3.0, 0.0], [4.0, 0.0])})
    assert list(found) == ["y"] and found["y"].value == 0.75


def test_a_few_trajectories_give_no_interval():
    found = ratios({"x": ([1.0, 0.0, 1.0, 0.0, 9.0], [1.0] * 4 + [0.0])})["x"]
    assert not found.has_ends and (found.to_json()["low"], found.to_json()["high"]) == (None, None)
    assert ratios({"x": ([1.0] * 5, [1.0] * 5)})["x"].low == 1


# --- a dataset ------------------------------------------------------------------------------------------------------


def trajectory(*answers: str | None, **meta) -> Trajectory:
    """Make a conversation whose calls get these answers; None: the user speaks instead."""
    messages = [Message("user", "go")]
    for answer in answers:
        role, content = ("user", "stop") if answer is None else ("tool", answer)
        messages += [Message.calling(Call("f")), Message(role, content)]
    return Trajectory("t", (), (*messages, Message.calling(Call("finish"))), meta=meta)


def test_errors_are_counted_by_kind_and_by_what_the_source_says():
    counts = ErrorCounts(RULE)
    counts.add(trajectory("fine", "NameError: name 'f' is not defined", level="a", seen=True, query="x" * 99))
    counts.add(trajectory("{'error': 'quota'}", None, level="b", seen=False, query="y"))
    counts.add(trajectory("fine", "fine", level="a", seen=False, query="z"))
    counts.add(trajectory(level="a", seen=True, query="z"))
    # 3 + 2 + 3 + 1 calls (the one before the user's words is not counted), the last of which have no answer
    assert (sum(counts.all.calls), sum(counts.all.answered), sum(counts.all.errors)) == (9, 5, 2)
    assert counts.no_answer == 1
    assert counts.all.kinds == {"undefined_tool": 1, "api_message": 1}
    shares = counts.all.shares()
    assert shares["calls"].value == pytest.approx(200 / 9) and shares["answered"].value == 40
    by = counts.by()
    assert list(by) == ["level", "seen"]  # a query does not form a group
    assert {value: (group.calls, group.errors) for value, group in by["level"].items()} == {
        "a": ([3, 3, 1], [1, 0, 0]),
        "b": ([2], [1]),
    }
    assert [sum(group.calls) for group in by["seen"].values()] == [4, 5]


def test_calls_that_are_only_history_are_no_training_calls():
    given_calls = trajectory("{'error': 'quota'}", "fine")
    messages = tuple(m.with_learn(False) if i == 1 else m for i, m in enumerate(given_calls.messages))
    counts = ErrorCounts(RULE)
    counts.add(Trajectory("t", (), messages))
    assert (sum(counts.all.calls), sum(counts.all.errors)) == (2, 0)


def test_each_of_several_calls_counts_by_its_own_answer():
    counts = ErrorCounts(RULE)
    several = Message.calling(Call("f"), Call("f"), Call("f"))
    answers = (Message("tool", "fine"), Message("tool", "{'error': 'quota'}"))
    counts.add(Trajectory("t", (), (several, *answers, Message("assistant", "Done."))))
    assert (counts.all.calls, counts.all.answered, counts.all.errors, counts.no_answer) == ([2], [2], [1], 1)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.lists(st.sampled_from(["fine", "'error'", None]))), min_size=1))
def test_groups_add_up_to_all(items):
    counts = ErrorCounts(RULE)
    for level, answers in items:
        counts.add(trajectory(*answers, level=level))
    for groups in counts.by().values():
        for what in ("calls", "answered", "errors"):
            assert sum(sum(getattr(group, what)) for group in groups.values()) == sum(getattr(counts.all, what))
        assert sum((group.kinds for group in groups.values()), type(counts.all.kinds)()) == counts.all.kinds


# --- the parts of a call ----------------------------------------------------------------------------------------------


def test_tokens_belong_to_the_part_they_begin_with():
    call = Call("getPapers", {"words": "a b", "n": 5})
    pieces = [" get", "Pap", "ers", "(", "words", '="', "a", " b", '",', " n", "=", "5", ")"]
    assert "".join(pieces) == f" {render_call(call)}"
    ends = [sum(map(len, pieces[: i + 1])) for i in range(len(pieces))]
    spans = [(end - len(piece), end) for piece, end in zip(pieces, ends, strict=True)]
    parts = token_parts(call, spans, [i in (0, 2) for i in range(len(pieces) + 1)])
    assert parts == (
        *("first", "name", "distinguishing", "punctuation", "parameter"),
        *("value", "value", "value", "value", "parameter", "punctuation", "value", "punctuation", "end"),
    )


words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=4)


@given(words, st.dictionaries(words, values, max_size=4))
def test_the_parts_of_a_call_are_its_names_and_values(name, arguments):
    call = Call(name, arguments)
    text = f" {render_call(call)}"
    keys = [False, True, *[False] * (len(text) - 1)]
    parts = token_parts(call, [(i, i + 1) for i in range(len(text))], keys)
    assert parts[-1] == "end" and len(parts) == len(text) + 1
    read = {part: "".join(c for c, of in zip(text, parts, strict=False) if of == part) for part in set(parts)}
    assert read["first"] + read.get("name", "") == name
    assert read.get("parameter", "") == "".join(arguments)
    assert read.get("value", "") == "".join(json.dumps(value, ensure_ascii=False) for value in arguments.values())
    assert read["punctuation"] == f" ({', '.join('=' for _ in arguments)})"


# --- a model ----------------------------------------------------------------------------------------------------------

CALL = ("first", "distinguishing", "value", "punctuation", "end")
SCORES = [
    TurnScore(0, CALL, (1.0, 2.0, 3.0, 0.0, 0.0), (True, True, True, True, False)),  # right; the end is not counted
    TurnScore(0, CALL, (0.0, 2.0, 1.0, 0.0, 0.0), (True, False, True, True, True)),  # wrong in one key token
    TurnScore(1, CALL, (4.0, 0.0, 2.0, 0.0, 5.0), (False, True, False, True, True)),
    TurnScore(2, ("first", "value", "end"), (3.0, 6.0, 1.0), (True, False, True)),
]


def test_tokens_are_summed_by_part():
    found = {
        part: (n["accuracy"].n, n["accuracy"].value, n["loss"].value) for part, n in analysis.tokens(SCORES).items()
    }
    assert found == {
        "first": (4, 75, 2),
        "distinguishing": (3, pytest.approx(200 / 3), pytest.approx(4 / 3)),
        "key": (7, pytest.approx(500 / 7), pytest.approx(12 / 7)),
        "value": (4, 50, 3),
        "punctuation": (3, 100, 0),
        "end": (4, 75, 1.5),
        "other": (11, pytest.approx(800 / 11), pytest.approx(18 / 11)),
        "all": (18, pytest.approx(1300 / 18), pytest.approx(30 / 18)),
    }
    assert "name" not in found and "parameter" not in found


def test_calls_are_counted_given_their_key_tokens():
    found = {name: (n["call"].n, n["call"].value, n["others"].value) for name, n in analysis.calls(SCORES).items()}
    assert found == {
        "any": (4, 25, 50),
        "first_right": (3, pytest.approx(100 / 3), pytest.approx(200 / 3)),
        "first_wrong": (1, 0, 0),
        "keys_right": (2, 50, 50),
        "keys_wrong": (2, 0, 50),
    }


turns = st.builds(
    lambda number, middle, rights: TurnScore(
        number, ("first", *middle, "end"), (0.5,) * (len(middle) + 2), tuple(rights[: len(middle) + 2])
    ),
    st.integers(0, 3),
    st.lists(st.sampled_from(("distinguishing", *analysis.REST_PARTS)), max_size=6),
    st.lists(st.booleans(), min_size=8, max_size=8),
)


@given(st.lists(turns, min_size=1, max_size=8))
def test_parts_and_conditions_add_up(scores):
    def right(estimate):
        return estimate.n * estimate.value / 100

    tokens = {part: both["accuracy"] for part, both in analysis.tokens(scores).items()}
    for total, parts in (("key", analysis.KEY_PARTS), ("other", analysis.OTHER_PARTS), ("all", ("key", "other"))):
        there = [tokens[part] for part in parts if part in tokens]
        assert tokens[total].n == sum(one.n for one in there)
        assert right(tokens[total]) == pytest.approx(sum(map(right, there)))
    calls = analysis.calls(scores)
    for split in (("first_right", "first_wrong"), ("keys_right", "keys_wrong")):
        for kind in ("call", "others"):
            there = [calls[name][kind] for name in split if name in calls]
            assert calls["any"][kind].n == sum(one.n for one in there)
            assert right(calls["any"][kind]) == pytest.approx(sum(map(right, there)))
    if "keys_right" in calls:  # then the other tokens decide
        assert calls["keys_right"]["call"] == calls["keys_right"]["others"]


# --- the command line ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "stage", "wanted"),
    [
        ([], {}, (True, ["base"])),
        (["data=rotbench", "data.path=x"], {}, (True, [])),
        (["model=tiny"], {}, (True, ["base"])),
        (["data.size=3", "model.path=x"], {}, (True, ["base"])),
        (["model.dtype=float16"], {"models": ["base", "x"]}, (True, ["base", "x"])),
        ([], {"results": ["x"]}, (False, [])),
        (["+data.limit=3"], {"results": ["x"]}, (True, [])),
    ],
)
def test_what_is_named_is_analysed(words, stage, wanted):
    assert analyzed(OmegaConf.create({"models": [], "results": [], **stage}), words) == wanted


def test_labels_are_short_and_different():
    assert labels(["outputs/pkt/12/model", "outputs/sft/12/model/", "org/name"]) == ["pkt/12", "sft/12", "org/name"]
    assert labels(["x/a/b", "y/a/b", "z"]) == ["x/a/b", "y/a/b", "z"]


def test_rows_of_the_reward_table_are_outcomes():
    rows = {"format_error": 1, "hallucinated": 2, "redundant_missing": 3, "correct": 4}
    assert by_outcome(rows) == {
        **{"format_error": 1, "words_before_call": 0, "missing_call": 0, "tool_hallucination": 0, "wrong_tool": 0},
        **{"parameters": 5, "wrong_value": 0, "correct": 4},
    }
