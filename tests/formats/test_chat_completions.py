"""Conversations to chat completions and back: an API's input and a model's output."""

from __future__ import annotations

from collections import Counter

import pytest

from tltrain import toolworld
from tltrain.data.openai import conversation
from tltrain.formats.calls import CallSyntaxError, read_call, read_calls
from tltrain.formats.chat_completions import answer_text, api_names, request
from tltrain.trajectory import Call, Message, Sample, Tool, ToolCall

GCD = Tool("math.gcd", "The divisor.", {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
FINISH = Tool("finish", "Ends.", {})


def sample(*messages, tools=(GCD, FINISH), instructions=""):
    return Sample("1", tools, messages, (), instructions)


def tool_call(name, arguments):
    return {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}


def test_our_own_reader_reads_the_request_back():
    for asked in toolworld.samples(40, 0):
        tools, messages, instructions = conversation(request(asked), Counter())
        assert (tools, messages, instructions) == (asked.tools, asked.messages, asked.instructions)


def test_a_conversation_as_an_api_takes_it():
    asked = sample(
        Message("user", "gcd?"),
        Message.calling(Call("math.gcd", {"a": 4}), thought="I think"),
        Message("tool", "2"),
        Message.calling(Call("finish")),
        Message("user", "again"),
        Message("assistant", "what?"),
        Message("tool", "no call"),
        instructions="Be brief.",
    )
    said = request(asked)["messages"]
    assert [m["role"] for m in said] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
        "tool",
        "user",
        "assistant",
        "user",
    ]
    assert said[2]["content"] == "I think" and said[4]["content"] is None
    assert said[2]["tool_calls"][0]["function"] == {"name": "math_gcd", "arguments": '{"a": 4}'}
    assert (said[3]["content"], said[5]["content"], said[8]["content"]) == ("2", "", "no call")
    for call, answer in ((2, 3), (4, 5)):
        identity = said[call]["tool_calls"][0]["id"]
        assert said[answer]["tool_call_id"] == identity and len(identity) == 9 and identity.isalnum()
    offered = request(asked)["tools"]
    assert offered[0]["function"]["parameters"] == GCD.parameters
    assert offered[1]["function"] == {
        "name": "finish",
        "description": "Ends.",
        "parameters": {"type": "object", "properties": {}},
    }
    assert "tools" not in request(sample(Message("user", "?"), tools=()))


def test_several_calls_of_one_message_stay_in_it():
    first, second, third = Call("math.gcd", {"a": 4}), Call("math.gcd", {"a": 6}), Call("finish")
    calls = (ToolCall(first, id="x"), ToolCall(second, id="y"), ToolCall(third, id="z"))
    asked = sample(
        Message("user", "gcd?"),
        Message("assistant", "Three.", calls, "I think"),
        Message("tool", "6", answers="y"),
        Message("tool", "4", answers="x"),
        Message.calling(third),
    )
    said = request(asked)["messages"]
    assert [m["role"] for m in said] == ["user", "assistant", "tool", "tool", "tool", "assistant", "tool"]
    assert said[1]["content"] == "I think\nThree."
    arguments = [call["function"]["arguments"] for call in said[1]["tool_calls"]]
    assert arguments == ['{"a": 4}', '{"a": 6}', "{}"]
    ids = [call["id"] for message in said for call in message.get("tool_calls", ())]
    assert len(set(ids)) == 4 and all(len(identity) == 9 and identity.isalnum() for identity in ids)
    assert [(m["tool_call_id"], m["content"]) for m in said if m["role"] == "tool"] == [
        (ids[0], "4"),
        (ids[1], "6"),
        (ids[2], ""),
        (ids[3], ""),
    ]


def test_names_an_api_allows_stay_different():
    names = ["a.b", "a_b", "a b", "x" * 70, "x" * 71, "ä", "a.b"]
    found = api_names([Tool(name, "", {}) for name in names])
    assert list(found) == names[:-1]
    assert list(found.values())[:3] == ["a_b", "a_b_2", "a_b_3"]
    assert len(set(found.values())) == 6
    assert all(name and len(name) <= 64 and set(name) <= set("abx_0123456789") for name in found.values())


def test_calls_come_back_by_the_names_of_the_tools():
    said = {"content": "hm", "tool_calls": [tool_call("math_gcd", '{"a": 4}'), tool_call("other", " ")]}
    assert read_calls(answer_text(said, (GCD,))) == [Call("math.gcd", {"a": 4}), Call("other")]
    assert answer_text({"content": " words \n"}, (GCD,)) == "words"
    assert answer_text({"content": None, "tool_calls": []}, (GCD,)) == ""
    assert answer_text({"tool_calls": [tool_call("f", {"a": 1})]}, ()) == "f(a=1)"  # some servers send an object
    assert answer_text({"tool_calls": [tool_call("f", "null")]}, ()) == "f()"


@pytest.mark.parametrize(
    "call",
    [
        tool_call("f", '{"a": 1'),
        tool_call("f", "[1]"),
        tool_call("f", '"a=1"'),
        tool_call("f", '{"a": NaN}'),
        tool_call("f", "[" * 100_000),
        tool_call("f", '{"a": "\\ud800"}'),
        tool_call("f", '{"b=1, a": 2}'),
        tool_call("f(a=1)", "{}"),
        tool_call(None, "{}"),
        tool_call("", "{}"),
        {"function": None},
        "f(a=1)",
    ],
    ids=lambda call: str(call)[:60],
)
def test_text_is_never_read_as_a_call(call):
    text = answer_text({"tool_calls": [call]}, ())
    assert text.startswith("(not a call) ")
    with pytest.raises(CallSyntaxError):
        read_call(text)
    assert read_calls(text) == []


@pytest.mark.parametrize("said", [None, [], "f()", {"content": [{"type": "text"}]}])
def test_no_message_at_all(said):
    with pytest.raises(ValueError, match="expected"):
        answer_text(said, ())
