"""Words before a call: which calls are found after them, and what is not a call."""

from __future__ import annotations

import time

import pytest

from tltrain.evaluation.scoring import any_call
from tltrain.formats.calls import CallSyntaxError
from tltrain.formats.chat_completions import unparsed_call
from tltrain.formats.preamble import without_words, words_before_call
from tltrain.formats.tl import TL
from tltrain.grading import Outcome, RewardTable, grade
from tltrain.trajectory import Call, Sample, Tool

SEARCH = Tool("search", "", {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]})
ROUTES = Tool("preferred-routes get", "", {"type": "object", "properties": {}})
TOOLS = (SEARCH, ROUTES, Tool("finish", "", {"type": "object", "properties": {"answer": {"type": "string"}}}))
NAMES = [tool.name for tool in TOOLS]
CALL = "search(q='love')"


@pytest.mark.parametrize(
    "words",
    [
        "<think>The user wants papers.</think>",
        "<think>\nsearch(q='no')? No: finish(answer='no').\n</think>\n\n",
        "<THINKING>a</thinking> <think>b</think>",
        "[THINK]a[/THINK]",
        "I have to use search(q='no'), no.\n</think>\n",
        "I will search for it. ",
        "I will search for it:\n",
        "Sure (it is easy): ",
        "Use search (it's good), so: ",
        "```python\n",
        "```\n",
        "<think>a</think>\nHere it is:\n```tool_code\n",
        "`",
        "Assistant: ",
        "Action: ",
    ],
)
def test_words_before_a_call_are_not_the_tools_name(words):
    text = words + CALL
    assert without_words(text, NAMES) == CALL
    judged = grade(text, Call("search", {"q": "love"}), TOOLS)
    assert (judged.outcome, judged.row) == (Outcome.WORDS_BEFORE_CALL, "words_before_call")
    assert judged.de and not judged.ts and judged.prediction is None
    assert judged.reason.endswith("stands before the call of `search`")
    assert judged.reward() == -2 and judged.reward(RewardTable(words_before_call=-0.5)) == -0.5
    assert grade(without_words(text, NAMES), Call("search", {"q": "love"}), TOOLS).cf
    (judged,) = any_call([text], [Sample("1", TOOLS, (), (Call("search", {"q": "love"}),))])
    assert judged.outcome is Outcome.WORDS_BEFORE_CALL


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        (CALL, Outcome.CORRECT),
        ("preferred-routes get()", Outcome.WRONG_TOOL),
        ("other(q='search(q=1)')", Outcome.TOOL_HALLUCINATION),
        ("new search tool(q='love')", Outcome.TOOL_HALLUCINATION),
        ("search(q='love'", Outcome.FORMAT_ERROR),
        ("finish(answer=\"I called search(q='love') but", Outcome.FORMAT_ERROR),
        ("print(search(q='love'))", Outcome.FORMAT_ERROR),
        ("I would search (for love).", Outcome.FORMAT_ERROR),
        ("Then finish(answer=\"I called search(q='love')", Outcome.FORMAT_ERROR),
        ("I will search.", Outcome.FORMAT_ERROR),
        ("", Outcome.FORMAT_ERROR),
    ],
)
def test_what_begins_with_a_tools_name_or_has_no_call_has_no_words_before_one(text, outcome):
    assert words_before_call(text, NAMES) == 0 and without_words(text, NAMES) == text
    assert grade(text, Call("search", {"q": "love"}), TOOLS).outcome is outcome


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"<think>I could call {CALL}", "not a call: the thought at the beginning is not closed"),
        (f"<think>a</think><think>{CALL}", "not a call: the thought at the beginning is not closed"),
        (f"<think>I could call {CALL}</think>", "not a call: there is no call behind the thought"),
        ("<think>a</think> Which one (of two)?", "not a call: there is no call behind the thought"),
    ],
)
def test_a_call_inside_a_thought_is_none(text, problem):
    with pytest.raises(CallSyntaxError, match=problem):
        words_before_call(text, NAMES)
    assert without_words(text, NAMES) == text
    judged = grade(text, Call("search", {"q": "love"}), TOOLS)
    assert (judged.outcome, judged.reason) == (Outcome.FORMAT_ERROR, problem)


def test_a_tool_that_is_not_on_offer_is_found_behind_a_thought_and_on_a_line_of_its_own():
    for words in ("<think>a</think>", "Here it is:\n", "```\n"):
        assert without_words(f"{words}other(q=1)", NAMES) == "other(q=1)"
        assert grade(f"{words}other(q=1)", None, TOOLS).outcome is Outcome.WORDS_BEFORE_CALL


def test_an_answer_does_not_end_inside_a_thought():
    thought = f"<think>maybe {CALL}</think> "
    assert TL.answer_length(f" <think>maybe {CALL} or") is None
    assert TL.answer(f" {thought}finish(answer='x') and more") == f"{thought}finish(answer='x')"
    assert TL.answer(f" {CALL} <think>more") == CALL


def test_looking_for_a_call_takes_linear_time():
    texts = ["I search(" * 20_000, "A b " + "search (x " * 20_000, "<think></think>" * 20_000, "x y\n" * 50_000 + "("]
    began = time.process_time()
    for text in texts:
        grade(text, None, TOOLS)
    assert time.process_time() - began < 1


def test_an_answer_of_white_space_is_looked_through_once():
    """A pattern that tried every way to split 60,000 blanks took nine seconds."""
    blanks = " " * 60_000
    start = time.process_time()
    assert not unparsed_call({"content": blanks}, TOOLS)
    assert unparsed_call({"content": blanks + '[ {"name": "search"}]'}, TOOLS)
    assert time.process_time() - start < 2
