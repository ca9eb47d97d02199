"""Answers in native formats: what is read, and what is a format error with its reason."""

from __future__ import annotations

import pytest

from tests.support.native_formats import NAMES, TOOLS, encoder
from tltrain.formats.calls import UNREADABLE
from tltrain.formats.native import Answer, Attempt, as_text
from tltrain.grading import Outcome, grade
from tltrain.trajectory import Call, Message, Sample


def read(name: str, text: str, tools=TOOLS) -> Answer:
    own = encoder(name)
    prompt = own.prompt(Sample("s", tools, (Message("user", "Go."),), ()))
    return own.read(own.tokenizer(text, add_special_tokens=False)["input_ids"], prompt, tools)


def hermes(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


XML = "<tool_call>\n<function=get_users>\n<parameter=count>\n3\n</parameter>\n{more}</function>\n</tool_call>"
CALL = Call("get_users", {"count": 3})
WRITTEN = {
    "qwen3": hermes("get_users", '{"count": 3}'),
    "hermes": hermes("get_users", '{"count": 3}'),
    "qwen3_5": "Hm.\n</think>\n\n" + XML.format(more=""),
    "llama3": '{"name": "get_users", "parameters": {"count": 3}}<|eot_id|>',
    "gptoss": ' to=functions.get_users<|channel|>commentary json<|message|>{"count": 3}<|call|>',
    "gemma": "<|tool_call>call:get_users{count:3}<tool_call|><|tool_response>",
    "lfm2": "<|tool_call_start|>[get_users(count=3)]<|tool_call_end|><|im_end|>",
}
"""One call in each format."""


@pytest.mark.parametrize("name", NAMES)
def test_one_answer_is_the_same_in_every_format(name):
    answer = read(name, WRITTEN[name])
    assert answer.calls == (CALL,) and answer.problems == ()
    assert as_text(answer) == "get_users(count=3)"


def test_a_second_call_a_thought_and_a_sentence_are_kept():
    text = f"<think>\nHm.\n</think>\n\nI look.\n{hermes('get_user', '{}')}\n{hermes('finish', '{}')}<|im_end|>"
    answer = read("qwen3", text)
    assert (answer.thought, answer.text, answer.calls) == ("Hm.", "I look.", (Call("get_user"), Call("finish")))
    assert as_text(answer) == "get_user()\nfinish()"
    assert answer.to_json()["calls"][1] == {"name": "finish", "arguments": {}}


def test_a_broken_call_keeps_its_reason_and_the_calls_beside_it():
    text = "\n".join([hermes("get_user", '{"id": "7"'), hermes("finish", '{"id": "x"}')])
    answer = read("hermes", f"I look.\n{text}<|im_end|>")
    assert answer.text == "I look." and answer.calls == (Call("finish", {"id": "x"}),)
    first = answer.attempts[0]
    assert first.call is None and "Expecting ',' delimiter" in first.problem and '"7"' in first.raw
    assert as_text(answer).splitlines()[0].startswith(f"{UNREADABLE}the call cannot be read: ")


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("hermes", hermes("get_user", '"{}"'), 'the arguments of "get_user" are no object'),
        ("hermes", '<tool_call>\n{"arguments": {}}\n</tool_call>', "the call names no tool"),
        ("hermes", '```json\n{"name": "get_user", "arguments": {}}\n```', "a call stands in the text"),
        ("hermes", 'get_user(id="7")', "a call of the TL format stands in the text"),
        ("hermes", 'I look: get_user(id="7")', "a call of the TL format stands in the text"),
        ("qwen3", "<think>\nI call get_user", "nothing stands behind the thought"),
        ("qwen3_5", "\n</think>\n\n" + XML.format(more="<parameter=id>\n7\n"), "a part of the call cannot be read"),
        ("llama3", '{"name": "get_user", "parameters": {"id": }}<|eot_id|>', "the call cannot be read"),
        ("llama3", '{"name": "get_user", "arguments": {"id": "7"}}<|eot_id|>', "a call stands in the text"),
        ("gemma", '<|tool_call>call:get_user{id:<|"|>7}<tool_call|>', "the call cannot be read"),
    ],
)
def test_what_is_not_read_well_is_a_format_error_with_its_reason(name, text, problem):
    answer = read(name, text)
    assert not answer.calls and problem in answer.problems[0]
    judged = grade(as_text(answer), Call("get_user", {"id": "7"}), TOOLS)
    assert judged.outcome is Outcome.FORMAT_ERROR
    assert problem.split('"')[0] in judged.reason


def test_words_to_the_user_are_no_error_of_the_format():
    answer = read("hermes", "It is noon.<|im_end|>")
    assert (answer.text, answer.problems, as_text(answer)) == ("It is noon.", (), "It is noon.")


def test_what_follows_the_end_token_is_not_read():
    answer = read("hermes", f"{hermes('get_user', '{}')}<|im_end|>\n{hermes('finish', '{}')}")
    assert answer.calls == (Call("get_user"),)


def test_a_call_that_the_tl_format_cannot_say_is_marked():
    answer = Answer(attempts=(Attempt(Call("f(", {})),))
    assert as_text(answer).startswith(UNREADABLE) and "\n" not in as_text(answer)
