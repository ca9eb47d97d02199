"""Questions to which no call is right: what counts as abstaining, how it is rewarded, and which prompts ask them."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.packed import prompt_trees_of
from tests.support.reader_samples import FINISH, SEARCH, TOOLS
from tltrain import mae
from tltrain.config.rewards import RewardSettings
from tltrain.data import openai
from tltrain.data.judged import judge_by
from tltrain.errors import TltrainError
from tltrain.formats.tl import TL
from tltrain.grading import ABSTENTION, Outcome, abstention, grade_abstention
from tltrain.tokens.encoder import Encoder
from tltrain.tokens.prompts import PromptReport, PromptSettings, questions, trees_of_turns
from tltrain.training.pricing import TableReward, of_answer, prices_abstention
from tltrain.training.reward_function import RewardFunction
from tltrain.trajectory import Message, Sample

ASKED = Sample("s", TOOLS, (Message("user", "Tell me a joke."),), (), abstain=True)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("I have no tool for jokes.", "abstained"),
        ("Search (if you like) yourself.", "abstained"),
        ("Note(s): none.", "abstained"),
        ("sin(30) is 0.5", "abstained"),  # looks like a call of no tool on offer
        ("<think>search(query='x')?</think>No.", "abstained"),  # a call inside a thought does not count
        ("search(query='x')", "called_anyway"),
        ("[search(query='x')]", "called_anyway"),
        ("search(query='x') is what I would call.", "called_anyway"),
        ("jokes(n=1)", "called_anyway"),
        ("I will: search(query='x')", "called_anyway"),
        ("<think>Hm.</think>search(query='x')", "called_anyway"),
        ("finish(answer='no')", "called_anyway"),
        ("", "format_error"),
        ("<think>Hm.</think> ", "format_error"),
        ("<think>Hm.", "format_error"),
        ("search(query='x", "format_error"),
        ("(not a call) no JSON", "format_error"),  # a native format's attempt that could not be read
    ],
)
def test_words_abstain_and_calls_do_not(answer, outcome):
    assert grade_abstention(answer, TOOLS).outcome == outcome


def test_a_call_of_finish_abstains_where_the_record_says_so():
    said = Sample(**{**vars_of(ASKED), "meta": {"abstaining_tools": ["finish", "nothing"]}})
    assert abstention(said, "finish(answer='no')").outcome == "abstained"
    assert abstention(said, "finish(answer='no')\nsearch(query='x')").outcome == "called_anyway"
    assert abstention(said, "nothing()").outcome == "called_anyway"  # listed, but not on offer
    wrong = Sample(**{**vars_of(ASKED), "meta": {"abstaining_tools": "finish"}})
    with pytest.raises(TltrainError, match=r"s: abstaining_tools: expected a list of tools' names, found 'finish'"):
        abstention(wrong, "No.")


def vars_of(sample: Sample) -> dict:
    return {name: getattr(sample, name) for name in Sample.__slots__}


@given(st.text())
def test_no_answer_raises(answer):
    assert grade_abstention(answer, TOOLS).outcome in (*ABSTENTION, Outcome.FORMAT_ERROR)


# --- reward ---------------------------------------------------------------------------------------------------------


def test_abstention_has_no_price_in_the_papers_table():
    assert not prices_abstention(TableReward())
    assert of_answer(TableReward(), ASKED, "No.", abstention(ASKED, "No.")) is None
    assert TableReward().bounds == TableReward(abstained=5, called_anyway=-5).bounds == (-2, 1)


@pytest.mark.parametrize("several_calls", [False, True])
@pytest.mark.parametrize(
    ("answer", "ended", "reward", "outcome"),
    [
        ("No.", True, 0.5, "abstained"),
        ("search(query='x')", True, -0.75, "called_anyway"),
        ("search(query='x')", False, -0.75 - 0.1, "called_anyway"),
        ("", True, -2, "format_error"),
        ("No, and", False, -1.25, "cut"),  # nobody knows what would have followed
    ],
)
def test_the_prices(answer, ended, reward, outcome, several_calls):
    price = TableReward(abstained=0.5, called_anyway=-0.75, cut=-1.25, no_end_token=-0.1)
    found = RewardFunction(price, several_calls=several_calls)(ASKED, answer, ended)
    assert (found.reward, found.outcome) == (pytest.approx(reward), outcome)
    assert found.is_correct == (outcome == "abstained")


@pytest.mark.parametrize("given", ["abstained", "called_anyway"])
def test_one_price_needs_the_other(given):
    other = {"abstained": "called_anyway", "called_anyway": "abstained"}[given]
    with pytest.raises(TltrainError, match=f"reward.{given}: needs a price for reward.{other}, which is null"):
        RewardSettings(**{given: 1.0})


# --- training -------------------------------------------------------------------------------------------------------


def conversation(*more: dict):
    record = {
        "messages": [
            {"role": "user", "content": "Tell me a joke."},
            {"role": "assistant", "content": "I have no tool for that."},
            *more,
        ],
        "tools": [SEARCH, FINISH],
    }
    (found,) = openai.parse(record, 1, Counter())
    return found


CALLED = (
    {"role": "user", "content": "Then find x."},
    {"role": "assistant", "tool_calls": [{"function": {"name": "search", "arguments": '{"query": "x"}'}}]},
)


@pytest.fixture
def encoder(byte_level) -> Encoder:
    return Encoder(byte_level)


def test_an_answer_in_words_is_learned_without_key_tokens(encoder):
    item = conversation()
    assert mae.learnable(item, rule=None) == [True]
    (targets,) = [run.targets for run in encoder.runs(item, w_max=3.0) if run.targets]
    assert encoder.decode([target.token for target in targets[:-1]]) == " I have no tool for that."
    assert targets[-1].token == encoder.eos_id
    assert not any(target.key for target in targets) and {target.weight for target in targets} == {1.0}


def test_mae_never_leaves_out_an_answer_in_words_where_replies_are_learned():
    item = conversation(*CALLED)
    judged = {learn: [v.value for v, _ in judge_by(None, learn)(item)] for learn in (False, True)}
    assert judged == {False: ["dropped_no_answer", "kept"], True: ["kept", "kept"]}


def test_a_question_that_is_answered_in_words_is_a_prompt_where_it_has_a_price(encoder):
    item = conversation(*CALLED)
    assert [(number, sample.abstain) for number, sample in questions(item)] == [(1, False)]
    both = questions(item, abstaining=True)
    assert [(number, sample.abstain, sample.id[-2:]) for number, sample in both] == [(0, True, "#1"), (1, False, "#2")]
    assert both[0][1].messages == item.messages[:1] and both[0][1].goldens == ()
    for abstaining, ids in ((False, ["1#2"]), (True, ["1#1", "1#2"])):
        report, settings = PromptReport(), PromptSettings("trajectory", 1000, "skip", abstaining=abstaining)
        trees = list(trees_of_turns([(item, encoder.asked(item, abstaining))], encoder, settings, report))
        assert [sample.id for tree in trees for sample in tree.samples] == ids
        assert (report.abstaining, report.abstaining_not_asked) == ((1, 0) if abstaining else (0, 1))
        if abstaining:
            first = trees[0].ids[: trees[0].ends[0]]
            assert list(first) == encoder.prompt(trees[0].samples[0])
    assert encoder.answer_lengths([item], abstaining=True) == [
        turn.length for turn in encoder.asked(item, abstaining=True)
    ]
    assert len(encoder.answer_lengths([item])) == 1 and TL.name == encoder.format.name


def test_words_after_a_tools_answer_are_no_such_question(encoder):
    item = conversation(*CALLED, {"role": "tool", "content": "y"}, {"role": "assistant", "content": "It is y."})
    assert [number for number, sample in questions(item, abstaining=True) if sample.abstain] == [0]


def test_prompts_of_calls_are_as_before(encoder):
    item = conversation(*CALLED)
    trees, _ = prompt_trees_of(encoder, item)
    assert [sample.id for tree in trees for sample in tree.samples] == ["1#2"]
