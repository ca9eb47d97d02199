"""ToolRL's reward, by hand: format + 6 (name + names + values) / (2 + parameters) - 3."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.composition import composed
from tltrain.grading import grade
from tltrain.training import pricing
from tltrain.training.reward_function import RewardFunction
from tltrain.trajectory import ANY, Call, Message, OneOf, Sample, Tool

SEARCH = Tool("search", "", {"properties": {"query": {}, "page": {}, "size": {}}, "required": ["query"]})
PING = Tool("ping", "", {"properties": {}})


def sample(*goldens: Call) -> Sample:
    return Sample("s", (SEARCH, PING), (Message("user", "?"),), goldens)


LOVE = sample(Call("search", {"query": "love", "page": 1}))


@pytest.fixture(scope="module")
def price() -> pricing.Price:
    return pricing.configured(composed("stage=irm", "model=tiny", "reward=toolrl").reward, "strict")


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ('search(query="love", page=1)', 1 + 6 * 4 / 4 - 3),
        ('search(query="love", page=2)', 1 + 6 * 3 / 4 - 3),
        ('search(query="love")', 1 + 6 * (1 + 1 / 2 + 1) / 4 - 3),
        ('search(query="love", page=1, size=3)', 1 + 6 * (1 + 2 / 3 + 2) / 4 - 3),
        ("search(size=3)", 1 + 6 * 1 / 4 - 3),
        ("ping()", 1 - 3),
        ("look()", 1 - 3),  # it can be read, although nobody offers it
        ("no call", -3),
        ('search(query="lo', -3),
    ],
)
def test_each_part_that_is_right_earns_its_share(price, response, expected):
    judged = RewardFunction(price)(LOVE, response)
    assert judged.reward == pytest.approx(expected)


def test_the_golden_call_that_matches_best_counts(price):
    judge = RewardFunction(price)
    assert judge(sample(Call("ping"), Call("search", {"query": "love"})), "ping()").reward == 4
    either = sample(Call("search", {"query": OneOf(("love", "hate")), "page": ANY, "size": OneOf((), optional=True)}))
    assert judge(either, 'search(query="hate", page=7)').reward == 4


def test_values_are_compared_as_the_stage_says():
    reward = composed("stage=irm", "model=tiny", "reward=toolrl", "reward.scale=1").reward
    text = 'search(query="love", page="1")'
    for matching, expected in (("strict", 1 + 2 * 3 / 4 - 1), ("lenient", 2)):
        assert RewardFunction(pricing.configured(reward, matching), matching)(LOVE, text).reward == expected


@given(st.text() | st.sampled_from(['search(query="love")', "ping()", "search(page=1, page=2)"]))
def test_it_stays_within_its_bounds(text):
    from tltrain.config import Matching
    from tltrain.training import toolrl

    found = toolrl.reward(LOVE, grade(text, LOVE.goldens, LOVE.tools), Matching.strict)
    assert -3 <= found <= 4


def test_several_golden_calls_share_the_formula(price):
    judge = RewardFunction(price, several_calls=True)
    asked = Sample(
        "s", (SEARCH, PING), (Message("user", "?"),), (Call("search", {"query": "love"}), Call("ping")), parallel=True
    )
    most = 1 + 2 + 1  # the names, a point for the parameter names of each call, and one value
    for text, right in (
        ('search(query="love")\nping()', 1 + 2 + 1),
        ('ping()\nsearch(query="love")', 1 + 2 + 1),
        ('search(query="love")', 1 / 2 + 1 + 1),
        ('search(query="love")\nping()\nping()', 2 / 3 + 2 + 1),
        ('search(query="hate")\nping()', 1 + 2 + 0),
    ):
        assert judge(asked, text).reward == pytest.approx(1 + 6 * right / most - 3), text
