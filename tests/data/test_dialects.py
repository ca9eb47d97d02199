"""Chat completions as different programs write them: other names, places and wrappers for the same content."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.support.chat_records import USER, answer, asking, conversation, learned
from tests.support.reader_samples import SEARCH, call
from tltrain.data import openai
from tltrain.errors import FieldError
from tltrain.trajectory import Call, Message

# --- fields of a tool's answer and of a call's arguments -------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "text", "noted"),
    [
        ({"output": "Listen."}, "Listen.", "read from `output`"),
        ({"content": None, "result": {"a": 1}}, '{"a": 1}', "read from `result`"),
        ({"content": "", "response": ["x"]}, '["x"]', "read from `response`"),
        ({"content": []}, "[]", "written as JSON"),
        ({"content": [{"type": "text", "text": "Listen."}], "output": "x"}, "Listen.", "`output` not kept"),
        ({"content": ""}, "", None),
        ({}, "", "without content, read as an empty text"),
        ({"content": None}, "", "without content, read as an empty text"),
    ],
)
def test_a_tools_answer_stands_in_content_or_is_looked_for(fields, text, noted):
    read, notes = conversation(USER, asking(("a", "love")), {"role": "tool", "tool_call_id": "a", **fields})
    assert read.messages[2] == Message("tool", text)
    assert noted in "".join(notes) if noted else not notes


def test_a_tools_error_without_content_is_its_answer_and_says_that_the_call_failed():
    said = {"role": "tool", "content": None, "error": "Timed out."}
    read, _ = conversation(USER, asking(("a", "love")), said)
    assert read.messages[2] == Message("tool", "Timed out.", is_error=True)


@pytest.mark.parametrize("field", ["arguments", "parameters", "input", "args", "kwargs"])
def test_arguments_are_read_under_each_of_their_names(field):
    called = {"role": "assistant", "tool_calls": [{"name": "search", field: {"query": "love"}, "id": "a"}]}
    read, notes = conversation(USER, called)
    assert read.messages[1].calls[0].call == Call("search", {"query": "love"}) and not notes


def test_a_call_whose_arguments_have_no_known_name_is_an_error():
    called = {"role": "assistant", "tool_calls": [{"name": "search", "query": "love", "id": "a"}]}
    with pytest.raises(FieldError, match=r"tool_calls\[0\].arguments: .* found no such field, but query"):
        conversation(USER, called)


@pytest.mark.parametrize("arguments", ['{"query": "a", "query": "b"}', '{"limit": {"x": 1, "x": 2}, "query": "b"}'])
def test_a_key_twice_in_arguments_is_counted_and_the_last_one_read(arguments):
    read, notes = conversation(USER, {"role": "assistant", "tool_calls": [call("a", "search", arguments)]})
    assert read.messages[1].calls[0].call.arguments == json.loads(arguments)
    assert notes == {"calls: a key twice in the arguments, of which the last counts": 1}


def test_the_only_answer_with_another_id_than_the_only_call_is_counted():
    read, notes = conversation(USER, asking(("a", "love")), answer("Listen.", tool_call_id="z"))
    assert read.messages[2].text == "Listen."
    assert notes == {"messages: answers whose `tool_call_id` matches no call, matched by order": 1}


# --- several calls that OpenAI's models wrap in one -------------------------------------------------------------------


def wrapping(*queries, name="multi_tool_use.parallel"):
    uses = [{"recipient_name": "functions.search", "parameters": {"query": query}} for query in queries]
    return {"role": "assistant", "tool_calls": [call("w", name, json.dumps({"tool_uses": uses}))]}


UNWRAPPED = "calls: `multi_tool_use.parallel` read as the calls that it holds"


@pytest.mark.parametrize(
    "answers",
    [
        [answer('["One", {"two": 2}]', tool_call_id="w")],
        [answer('["One", {"two": 2}]')],
        [answer("One", tool_call_id="w"), answer('{"two": 2}', tool_call_id="w")],
        [answer("One"), answer('{"two": 2}')],
    ],
)
def test_wrapped_calls_are_calls_and_have_their_answers(answers):
    read, notes = conversation(USER, wrapping("a", "b"), *answers)
    assert [each.call for each in read.messages[1].calls] == [Call("search", {"query": q}) for q in "ab"]
    assert [message.text for message in read.messages[2:]] == ["One", '{"two": 2}'] and notes[UNWRAPPED] == 1


def test_wrapped_calls_without_answers_are_all_learned():
    read, _ = conversation(USER, wrapping("a", "b", name="functions.multi_tool_use.parallel"))
    assert learned(read) == [True, True]


def test_a_single_wrapped_call_has_the_whole_answer():
    read, _ = conversation(USER, wrapping("a"), answer("One", tool_call_id="w"))
    assert read.messages[1].calls[0].call.name == "search" and read.messages[2].text == "One"


def test_one_text_as_the_answer_to_several_wrapped_calls_is_an_error():
    with pytest.raises(FieldError, match=r"messages\[2\]: expected a list of 2 answers, one for each call"):
        conversation(USER, wrapping("a", "b"), answer("One and two", tool_call_id="w"))


@pytest.mark.parametrize("arguments", [{}, {"tool_uses": []}, {"tool_uses": [{}]}, {"tool_uses": "x"}])
def test_a_wrapper_of_anything_else_than_calls_is_an_error(arguments):
    with pytest.raises(FieldError, match=r"messages\[1\], multi_tool_use.parallel.tool_uses"):
        conversation(USER, {"role": "assistant", "tool_calls": [call("w", "multi_tool_use.parallel", arguments)]})


def test_a_tool_of_the_wrappers_name_that_is_on_offer_is_called():
    tool = {"name": "multi_tool_use.parallel", "parameters": {"type": "object", "properties": {"tool_uses": {}}}}
    read, _ = conversation(USER, wrapping("a"), tools=(SEARCH, tool))
    assert read.messages[1].calls[0].call.name == "multi_tool_use.parallel"


def test_golden_calls_of_a_question_may_be_wrapped():
    (sample,) = openai.parse_sample({"messages": [USER, wrapping("a", "b")], "tools": [SEARCH]}, 1, Counter())
    assert sample.goldens == tuple(Call("search", {"query": q}) for q in "ab") and sample.parallel


# --- names and places that others use --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[TOOL_CALLS] [{"name": "search", "arguments": {"query": "love"}}]', ""),
        ('I look.[TOOL_CALLS][{"name": "search", "arguments": {"query": "love"}}]</s>', "I look."),
        ('<|python_tag|>{"name": "search", "parameters": {"query": "love"}}<|eom_id|>', ""),
    ],
)
def test_marked_calls_in_the_text_are_calls(text, words):
    read, notes = conversation(USER, {"role": "assistant", "content": text}, answer("Listen."))
    assert read.messages[1].calls[0].call == Call("search", {"query": "love"}) and read.messages[1].text == words
    assert notes == {"messages: calls read from the text": 1}


@pytest.mark.parametrize("text", ["[TOOL_CALLS] search", "<|python_tag|>print(1)", "[TOOL_CALLS] [1]"])
def test_a_mark_without_calls_stays_text_and_is_counted(text):
    read, notes = conversation(USER, {"role": "assistant", "content": text})
    assert read.messages[1].text == text and sum(notes.values()) == 1


def test_roles_have_other_names():
    said = [{"role": "human", "content": "?"}, {**asking(("a", "love")), "role": "ai"}]
    said += [{"role": "ipython", "content": "Listen."}, {"role": "model", "content": "Listen."}]
    read, _ = conversation(*said)
    assert [message.role for message in read.messages] == ["user", "assistant", "tool", "assistant"]


def test_calls_may_be_the_text_of_a_list():
    read, _ = conversation(USER, {"role": "assistant", "tool_calls": json.dumps([call("a", "search", {"query": "x"})])})
    assert read.messages[1].calls[0].call == Call("search", {"query": "x"})
    with pytest.raises(FieldError, match=r"messages\[1\].tool_calls: expected a list, found \{\}"):
        conversation(USER, {"role": "assistant", "tool_calls": "{}"})


def test_spaces_around_a_tools_name_are_left_out():
    read, notes = conversation(USER, {"role": "assistant", "tool_calls": [call("a", " search ", {"query": "x"})]})
    assert read.messages[1].calls[0].call.name == "search"
    assert notes == {"calls: spaces around the tool's name left out": 1}


@pytest.mark.parametrize("content", ["", " ", []])
def test_a_user_without_words_is_counted(content):
    _, notes = conversation({"role": "user", "content": content}, {"role": "assistant", "content": "Hm?"})
    assert notes == {"messages: of the user without words": 1}


def test_a_refusal_is_what_the_assistant_says():
    read, notes = conversation(USER, {"role": "assistant", "content": None, "refusal": "No."})
    assert read.messages[1].text == "No." and not notes


@pytest.mark.parametrize("role", ["tool_call", "function_call"])
def test_a_message_may_be_a_call_by_its_role(role):
    asked = [{"role": role, "content": json.dumps({"name": "search", "arguments": {"query": q}})} for q in "ab"]
    told = [{"role": "tool_response", "content": q} for q in "AB"]
    read, notes = conversation(USER, *asked, *told, {"role": role, "content": {"name": "search"}, "loss": False})
    assert [[each.call.arguments for each in message.calls] for message in read.messages if message.calls] == [
        [{"query": "a"}, {"query": "b"}],
        [{}],
    ]
    assert [message.text for message in read.messages[2:4]] == ["A", "B"]
    assert learned(read) == [True, True, False] and set(notes) == {"calls: without an argument that is required"}
