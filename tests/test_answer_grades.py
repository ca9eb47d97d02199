"""Grading an answer of any number of calls against golden calls that are all asked for."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tltrain.config import OpenText
from tltrain.config.rewards import RewardSettings
from tltrain.formats.calls import UNREADABLE, render_call, split_calls
from tltrain.formats.matching import best_pairs
from tltrain.grading import Outcome, calls_of, first_call, grade, grade_answer
from tltrain.training.pricing import TableReward, reward_of
from tltrain.training.rejection import is_kept
from tltrain.training.reward_function import RewardFunction, SampleRecord
from tltrain.trajectory import Call, Message, OneOf, Sample, Tool

SEARCH = Tool(
    "search",
    "Searches.",
    {"properties": {name: {"type": "string"} for name in ("query", "page", "size")}, "required": ["query"]},
)
FINISH = Tool("finish", "Ends.", {"properties": {"answer": {"type": "string"}}, "required": ["answer"]})
TOOLS = (SEARCH, FINISH)
LOVE, HATE, END = Call("search", {"query": "love"}), Call("search", {"query": "hate"}), Call("finish", {"answer": "x"})


def sample(*goldens: Call, parallel: bool = True) -> Sample:
    return Sample("s", TOOLS, (Message("user", "Go."),), goldens, parallel=parallel)


def graded(text: str, *goldens: Call):
    return grade_answer(text, sample(*goldens).asked, TOOLS)


def rows(text: str, *goldens: Call) -> list[str]:
    return [one.row for one in graded(text, *goldens).grades]


def test_calls_are_matched_in_any_order_and_the_numbers_are_means_over_the_golden_calls():
    right = graded("finish(answer='x')\nsearch(query='hate')\nsearch(query='love')", LOVE, HATE, END)
    assert (right.ts, right.pi, right.cf, right.reward(), right.de) == (1, 1, 1, 1, False)
    assert right.reason == "3 of 3 golden calls are made"
    part = graded("search(query='hate'), search(query='love', page=1)", LOVE, HATE, END)
    assert [one.row for one in part.grades] == ["redundant_or_missing", "correct", "missing_call"]
    assert (part.ts, part.pi, part.cf) == (2 / 3, 1 / 3, 1 / 3)
    assert part.reward() == pytest.approx((-0.5 + 1 - 2) / 3)
    assert (part.row, part.outcome, part.superfluous) == ("missing_call", Outcome.MISSING_CALL, ())
    assert part.reason == (
        "1 of 3 golden calls are made; parameter `page` is not asked for; no call is left for `finish`"
    )


def test_a_superfluous_call_is_priced_over_the_number_of_golden_calls_and_as_a_wrong_tool_by_default():
    one = graded("search(query='hate')\nsearch(query='love')", LOVE)
    assert one.cf is True and one.reward() == 1 - 1.5
    assert one.reason == "1 of 1 golden calls are made; `search` is called beyond the golden calls"
    two = graded("search(query='love')\nfinish(answer='x')\nfinish(answer='y')", LOVE, END)
    assert two.reward() == 1 - 1.5 / 2
    assert two.reward(RewardSettings(superfluous_call=-0.1)) == pytest.approx(1 - 0.1 / 2)
    assert two.reward(RewardSettings(wrong_tool=-3)) == 1 - 3 / 2


def test_guessing_all_tools_earns_less_than_guessing_one():
    one = (graded("search(query='love')", LOVE).reward() + graded("finish(answer='x')", LOVE).reward()) / 2
    assert graded("search(query='love')\nfinish(answer='x')", LOVE).reward() < one


def test_a_missing_call_costs_as_much_as_an_answer_without_a_call_and_can_be_priced():
    assert graded("search(query='love')", LOVE, END).reward() == (1 - 2) / 2
    assert graded("search(query='love')", LOVE, END).reward(RewardSettings(missing_call=-1)) == 0
    none = graded("I do not know.", LOVE, END)
    assert sorted(one.row for one in none.grades) == ["format_error", "missing_call"]
    assert none.reward() == -2 and none.ts == none.cf == 0 and none.row == "format_error"


def test_a_broken_call_is_a_format_error_with_its_reason_and_those_beside_it_count():
    text = f"search(query='love')\n{UNREADABLE}Expecting ',' delimiter\nfinish(answer='x')"
    both = graded(text, LOVE, END)
    assert both.cf == 1 and both.de and both.reward() == 1 - 1.5 / 2
    assert both.reason == "2 of 2 golden calls are made; not a call: Expecting ',' delimiter"
    third = graded(text, LOVE, HATE, END)
    assert [one.row for one in third.grades] == ["correct", "format_error", "correct"]
    assert third.row == "format_error" and third.reward() == 0
    assert rows(f"{UNREADABLE}no JSON\nsearch(query='love')", LOVE) == ["correct"]
    assert len(graded(text, LOVE).of_calls) == 3 and sum(one.de for one in graded(text, LOVE).of_calls) == 1


def test_as_many_calls_as_possible_are_right_and_the_first_of_equals_gets_the_earliest():
    either = Call("search", {"query": OneOf(("love", "hate"))})
    assert graded("search(query='love')\nsearch(query='hate')", either, LOVE).cf == 1
    twins = graded("search(query='a')\nsearch(query='b')", LOVE, HATE)
    assert [one.prediction.arguments["query"] for one in twins.grades] == ["a", "b"]
    lacking = graded("search(query='a')", LOVE, HATE)
    assert [one.row for one in lacking.grades] == ["wrong_value", "missing_call"]


def test_without_golden_calls_each_call_is_compared_with_the_documentation():
    found = grade_answer("search(query='x')\nsearch(z=1)\nother()", (), TOOLS)
    assert [one.de for one in found.grades] == [False, True, True]
    assert found.de and found.reason.startswith("1 of 3 calls agree with the documentation; ")
    broken = grade_answer(f"{UNREADABLE}why\nother()", (), TOOLS)
    assert broken.reason.startswith("0 of 2 calls agree with the documentation; not a call: why; ")
    assert grade_answer("search(query='x')", (), TOOLS).reason == "agrees with the documentation"


def test_golden_calls_that_are_alternatives_are_one_that_is_asked_for():
    found = grade_answer("finish(answer='x')", sample(LOVE, END, parallel=False).asked, TOOLS)
    assert (found.cf, found.reward()) == (True, 1)
    assert sample(parallel=False).asked == sample().asked == ()


# --- the same as for a single call ------------------------------------------------------------------------------------

LEAVES = st.sampled_from([0, 1, True, None, "1", "love", "x(", "a\nb"])
NAMES = st.sampled_from([*["search"] * 4, "finish", "unknown"])
CALLS = st.builds(Call, NAMES, st.dictionaries(st.sampled_from(["query", "page", "size", "h1", "answer"]), LEAVES))
TABLES = st.builds(
    RewardSettings,
    wrong_value=st.sampled_from([-0.25, 0.5]),
    words_before_call=st.sampled_from([None, -1.0]),
    cut=st.sampled_from([None, -3.0]),
    no_end_token=st.sampled_from([0.0, -0.5]),
    open_text=st.sampled_from([OpenText.exact, OpenText.ignored]),
    superfluous_call=st.sampled_from([None, -7.0]),
    missing_call=st.sampled_from([None, -7.0]),
    name_only=st.booleans(),
)
TEXTS = (
    CALLS.map(render_call)
    | CALLS.map(lambda call: f"I look. {render_call(call)}")
    | CALLS.map(lambda call: render_call(call)[:-1])
    | CALLS.map(lambda call: f"<think>Hm.</think>{render_call(call)} done")
    | st.text()
    | st.just(f"{UNREADABLE}why")
)


@settings(max_examples=300)
@given(TEXTS, CALLS, TABLES, st.booleans())
def test_one_golden_call_and_one_call_give_exactly_todays_grade_and_reward(text, golden, table, ended):
    if len(calls_of(text, TOOLS)) != 1:
        return
    asked = sample(golden)
    today = grade(first_call(text, TOOLS), golden, TOOLS)
    found = grade_answer(text, asked.asked, TOOLS)
    assert found.grades == (today,) and not found.superfluous
    for part in ("row", "outcome", "reason", "ts", "pi", "cf", "de", "contradictions", "prediction"):
        assert getattr(found, part) == getattr(today, part)
    assert type(found.cf) is bool and found.reward(table) == today.reward(table)
    assert reward_of(table, asked, text, found, ended) == reward_of(table, asked, text, today, ended)


@settings(max_examples=200)
@given(st.lists(CALLS, min_size=1, max_size=4), st.lists(CALLS, min_size=1, max_size=3), TABLES, st.randoms())
def test_no_order_of_calls_or_golden_calls_changes_a_number(calls, goldens, table, random):
    def numbers(made, asked):
        text = "\n".join(map(render_call, made))
        found = grade_answer(text, sample(*asked).asked, TOOLS)
        reward = reward_of(replace(table, name_only=False), sample(*asked), text, found)
        return sorted(one.row for one in found.grades), found.ts, found.pi, found.cf, found.de, round(reward, 9)

    first = numbers(calls, goldens)
    random.shuffle(calls)
    random.shuffle(goldens)
    assert numbers(calls, goldens) == first
    assert len(first[0]) == len(goldens)


@given(st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=3), min_size=1, max_size=4), st.integers(1, 3))
def test_the_matching_is_the_best_of_all(ranks, columns):
    ranks = [row[:columns] for row in ranks]
    pairs = min(len(ranks), columns)

    def order(matching):
        found = [ranks[row][at] for row, at in enumerate(matching) if at is not None]
        places = [columns if at is None else at for at in matching]
        return [-rank for rank in sorted(found, reverse=True)], places

    every = []
    for chosen in combinations(range(len(ranks)), pairs):
        for places in permutations(range(columns), pairs):
            taken = dict(zip(chosen, places, strict=True))
            every.append([taken.get(row) for row in range(len(ranks))])
    assert best_pairs(ranks) == min(every, key=order)


@given(st.lists(CALLS, min_size=1, max_size=4))
def test_calls_written_one_a_line_are_read_back(calls):
    assert split_calls("\n".join(map(render_call, calls))) == calls


# --- the reward of sampled answers ------------------------------------------------------------------------------------


def test_the_reward_function_takes_all_calls_only_where_answers_may_have_several():
    text = "finish(answer='x')\nsearch(query='love')"
    several = RewardFunction(TableReward(), several_calls=True)(sample(LOVE, END), text)
    assert (several.reward, several.outcome, several.grade.cf) == (1, "correct", 1)
    first = RewardFunction(TableReward())(sample(LOVE, END), text)
    assert (first.reward, first.grade.cf) == (1, True)
    alone = RewardFunction(TableReward(), several_calls=True)(sample(LOVE, parallel=False), text)
    assert alone.reward == 1 - 1.5


def test_rejection_sampling_keeps_answers_with_all_calls_and_no_others():
    judge = RewardFunction(TableReward(), several_calls=True)
    both, more = "finish(answer='x')\nsearch(query='love')", "\nsearch(query='love')"
    found = [judge(sample(LOVE, END), text) for text in (both, both + more, "finish(answer='x')")]
    assert [is_kept(one) for one in found] == [True, False, False]
    assert not is_kept(judge(sample(LOVE, END), both, ended=False))


def test_the_last_of_several_calls_may_be_cut_or_have_no_end_token():
    table = TableReward(cut=-1, no_end_token=-0.25, trailing_text=-9)
    judge = RewardFunction(table, several_calls=True)
    cut = judge(sample(LOVE, END), f"search(query='love')\n{UNREADABLE}Unterminated string", ended=False)
    assert (cut.reward, cut.row) == ((1 - 1) / 2, "cut")
    whole = judge(sample(LOVE, END), "search(query='love')\nfinish(answer='x')", ended=False)
    assert whole.reward == 1 - 0.25


def test_open_text_is_priced_in_each_call():
    judge = RewardFunction(TableReward(open_text=OpenText.ignored), several_calls=True)
    assert judge(sample(LOVE, END), "search(query='hate')\nfinish(answer='y')").reward == (-0.25 + 1) / 2


def test_the_log_says_whether_golden_calls_are_alternatives_or_all_asked_for():
    judge = RewardFunction(TableReward(), several_calls=True)
    for parallel, between in ((True, " + "), (False, " | ")):
        record = SampleRecord.from_response(1, judge(sample(LOVE, END, parallel=parallel), "search(query='love')"))
        assert record.golden == f'search(query="love"){between}finish(answer="x")'
