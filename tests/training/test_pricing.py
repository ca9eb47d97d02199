"""The reward of a sampled response, and which part of it is graded."""

from __future__ import annotations

import pytest

from tltrain import config
from tltrain.config import OpenText
from tltrain.entry.reference import composed
from tltrain.errors import TltrainError
from tltrain.grading import RewardSettings, RewardTable, named_row
from tltrain.training import pricing
from tltrain.training.pricing import TableReward
from tltrain.training.reward_function import RewardFunction, SampleRecord, response_counts
from tltrain.trajectory import Call, Message, Sample, Tool

SEARCH = Tool("search", "", {"properties": {"query": {}, "page": {}}, "required": ["query"]})
FINISH = Tool("finish", "", {"properties": {"answer": {}}, "required": ["answer"]})


def sample(golden: Call, **meta) -> Sample:
    return Sample("s", (SEARCH, FINISH), (Message("user", "?"),), (golden,), meta=meta)


SAMPLE = sample(Call("search", {"query": "love", "page": 1}))
ANSWER = sample(Call("finish", {"answer": "The answer is love"}))


def reward(response: str, asked: Sample = SAMPLE, ended: bool = True, **settings) -> float:
    return RewardFunction(TableReward(**settings))(asked, response, ended).reward


# --- cut, trailing text, end token ------------------------------------------------------------------------------------


def test_a_cut_response_costs_what_the_paper_says_unless_the_table_says_otherwise():
    half = 'search(query="lo'
    assert reward(half, ended=False) == -2
    assert reward(half, ended=False, cut=-0.75) == -0.75
    assert reward(half, ended=True, cut=-0.75) == -2  # it ended by itself: not a call
    assert reward('search(query="hate", page=1) and', ended=False, cut=-0.75) == -0.25  # cut after its call


def test_text_behind_a_call_and_a_missing_end_token_cost_nothing_but_can():
    call = 'search(query="love", page=1)'
    for text, ended in ((f"{call} Output: x", True), (call, False), (f"{call} Output", False)):
        assert reward(text, ended=ended) == 1
    dear = {"trailing_text": -0.5, "no_end_token": -0.125}
    assert reward(f"{call}  ", **dear) == 1
    assert reward(f"{call} Output: x", **dear) == 0.5
    assert reward(call, ended=False, **dear) == 0.875
    assert reward(f"{call} Output: x", ended=False, **dear) == 0.375
    assert reward("no call", ended=False, **dear) == -2  # cut: the missing call determines the reward


def test_the_outcome_of_a_cut_response_is_its_own_in_logs_and_samples():
    judge = RewardFunction(TableReward())
    call = 'search(query="love", page=1)'
    judged = [judge(SAMPLE, *one) for one in (("sea", False), ("sea", True), (f"{call} x", False), (call, True))]
    counts = response_counts(judged)
    assert {name: count for name, count in counts.items() if count} == {
        "grade/cut": 1,
        "grade/format_error": 1,
        "grade/correct": 2,
        "trailing_text": 1,
        "no_end_token": 1,
    }
    lines = [SampleRecord.from_response(1, one).to_json() for one in judged]
    assert [(line["grade"], line["ended"]) for line in lines] == [
        ("cut", False),
        ("format_error", True),
        ("correct", False),
        ("correct", True),
    ]
    assert [SampleRecord.from_json(line).to_json() for line in lines] == lines


# --- open text --------------------------------------------------------------------------------------------------------


def test_by_the_papers_table_an_empty_answer_costs_what_a_faithful_one_does():
    assert reward('finish(answer="")', ANSWER) == reward('finish(answer="It is love")', ANSWER) == -0.25


def test_open_text_can_be_left_unpriced():
    ignored = {"open_text": OpenText.ignored}
    assert reward('finish(answer="It is love")', ANSWER, **ignored) == 1
    assert reward("finish(answer=7)", ANSWER, **ignored) == 1
    assert reward("finish()", ANSWER, **ignored) == -0.5  # the parameter is required anyway
    assert reward('search(query="hate", page=1)', SAMPLE, **ignored) == -0.25
    judged = RewardFunction(TableReward(**ignored))(ANSWER, 'finish(answer="It is love")')
    assert not judged.grade.cf  # a price does not change metrics


def test_the_data_can_mark_open_text():
    ignored = {"open_text": OpenText.ignored}
    marked = sample(Call("search", {"query": "love", "page": 1}), open_parameters=["search.query"])
    assert reward('search(query="hate", page=1)', marked, **ignored) == 1
    assert reward('search(query="hate", page=2)', marked, **ignored) == -0.25  # a page is not open text
    bad = sample(Call("search", {"query": "love", "page": 1}), open_parameters="search.query")
    with pytest.raises(TltrainError, match=r"s: open_parameters: expected a list of TOOL\.PARAMETER, found 'search"):
        reward('search(query="hate", page=1)', bad, **ignored)


def test_open_text_can_be_priced_by_its_words():
    pytest.importorskip("rapidfuzz")
    # Golden: the answer is love. Of 4 + 3 words, "is love" is common in that order: 2 * 2 / 7.
    assert pricing.similarity("It is LOVE.", "The answer is love") == pytest.approx(4 / 7)
    assert pricing.similarity("", "The answer is love") == pricing.similarity(7, "love") == 0
    assert pricing.similarity("爱就是答案", "答案就是爱") == pytest.approx(2 * 2 / 10)  # a character counts as a word
    similar = {"open_text": OpenText.similarity}
    assert reward('finish(answer="It is love")', ANSWER, **similar) == pytest.approx(-0.25 + 1.25 * 4 / 7)
    assert reward('finish(answer="")', ANSWER, **similar) == -0.25
    assert reward('finish(answer="The answer is love")', ANSWER, **similar) == 1


def test_a_similarity_without_its_package_is_said_in_one_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rapidfuzz", None)
    with pytest.raises(TltrainError, match=r"^reward\.open_text=similarity: .* pip install 'tltrain\[similarity\]'$"):
        RewardFunction(TableReward(open_text=OpenText.similarity))


# --- the released reward ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "row"),
    [
        ('search(query="hate", size=3)', "correct"),
        ('search(query="lo', "correct"),
        (" search (", "correct"),
        ('finish(answer="x")', "wrong_tool"),
        ("look()", "tool_hallucination"),
        ("search", "format_error"),
    ],
)
def test_the_released_reward_sees_the_name_alone(response, row):
    assert named_row(response, SAMPLE.goldens, SAMPLE.tools) == row
    settings = TableReward.from_config(config.plain(composed({"reward": "released"}).reward))
    expected = {"correct": 1, "wrong_tool": -1.5, "tool_hallucination": -2, "format_error": -2}[row]
    assert RewardFunction(settings)(SAMPLE, response, ended=False).reward == expected


def test_the_released_settings_choose_the_released_reward_and_mean():
    released = composed({"stage": "irm_released"})
    assert released.reward.name_only and released.stage.loss_mean == "responses"
    assert released.stage.too_long_answer == "keep"
    chosen = composed({"stage": "irm_released", "reward": "paper"})
    assert not chosen.reward.name_only
    assert not composed({"stage": "irm"}).reward.name_only and composed({"stage": "irm"}).stage.loss_mean == "tokens"


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["paper", "coarse", "binary", "released", "open_text_ignored", "open_text_similarity"])
def test_every_table_of_conf_can_be_read(name):
    found = RewardSettings.from_config(config.plain(composed({"reward": name}).reward))
    assert found.open_text == {"open_text_ignored": "ignored", "open_text_similarity": "similarity"}.get(name, "exact")
    assert (found == RewardSettings()) == (name == "paper")
    assert isinstance(RewardTable.from_config(config.plain(composed({"reward": name}).reward)), RewardTable)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"correct": 1000}, r"reward\.correct: expected a number from -100 to 100, found 1000"),
        ({"trailing_text": 0.1}, r"reward\.trailing_text: expected a number from -100 to 0, found 0\.1"),
        ({"cut": "cheap"}, r"reward\.cut: expected a number, found 'cheap'"),
        ({"open_text": "guess"}, r"reward\.open_text: expected one of exact, ignored, similarity, found 'guess'"),
        ({"open_parameters": ["answer"]}, r"reward\.open_parameters: expected a list of TOOL\.PARAMETER, found "),
        ({"name_only": 1}, r"reward\.name_only: expected true or false, found 1"),
    ],
)
def test_bad_settings_are_refused_by_name(change, message):
    rows = {name: RewardTable()[name] for name in RewardTable.__dataclass_fields__}
    with pytest.raises(TltrainError, match=message):
        RewardSettings.from_config(rows | change)
