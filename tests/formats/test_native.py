"""Answers in native formats: what can be read, and what is a format error with which reason."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.native_formats import NAMES, TOOLS, encoder
from tltrain.formats.calls import UNREADABLE, split_calls
from tltrain.formats.native import Answer, Attempt, as_text
from tltrain.formats.pythonic import read_list
from tltrain.grading import Outcome, grade, grade_answer
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
        ("qwen3", "<think>\nI call get_user", "nothing follows the thought"),
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


def harmony(name: str, arguments: str) -> str:
    return f" to=functions.{name}<|channel|>commentary json<|message|>{arguments}<|call|>"


def lfm2(calls: str) -> str:
    return f"<|tool_call_start|>[{calls}]<|tool_call_end|>"


def gemma(call: str) -> str:
    return f"<|tool_call>call:{call}<tool_call|>"


GET, END = Call("get_user", {"id": "7"}), Call("finish")
XML_GET = "<tool_call>\n<function=get_user>\n<parameter=id>\n7\n</parameter>\n</function>\n</tool_call>"
XML_END = "<tool_call>\n<function=finish>\n</function>\n</tool_call>"
TWO_CALLS = {
    "qwen3": hermes("get_user", '{"id": "7"}') + "\n" + hermes("finish", "{}"),
    "hermes": hermes("get_user", '{"id": "7"}') + "\n" + hermes("finish", "{}"),
    "qwen3_5": "\n</think>\n\n" + XML_GET + "\n" + XML_END,
    "llama3": '{"name": "get_user", "parameters": {"id": "7"}}; {"name": "finish", "parameters": {}}<|eot_id|>',
    "gemma": gemma('get_user{id:<|"|>7<|"|>}') + gemma("finish{}"),
    "lfm2": lfm2("get_user(id='7'), finish()"),
}
"""Two calls; an answer of GPT-OSS ends after its first call."""


@pytest.mark.parametrize("name", TWO_CALLS)
def test_a_second_call_and_one_without_arguments_are_read(name):
    answer = read(name, TWO_CALLS[name])
    assert (answer.calls, answer.problems) == ((GET, END), ())


BESIDE = {
    "qwen3": "<think>\nHm.\n</think>\n\nI look. " + hermes("get_user", '{"id": "7"}') + " Done.<|im_end|>",
    "hermes": "I look. " + hermes("get_user", '{"id": "7"}') + " Done.<|im_end|>",
    "qwen3_5": "Hm.\n</think>\n\nI look. " + XML_GET + " Done.<|im_end|>",
    "llama3": 'I look. {"name": "get_user", "parameters": {"id": "7"}} Done.<|eot_id|>',
    "gptoss": "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
    "<|start|>assistant" + harmony("get_user", '{"id": "7"}'),
    "gemma": "<|channel>thought\nHm.<channel|>I look." + gemma('get_user{id:<|"|>7<|"|>}') + " Done.<turn|>",
    "lfm2": "<think>Hm.</think>I look. " + lfm2("get_user(id='7')") + " Done.<|im_end|>",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_thought_and_words_on_both_sides_of_a_call_are_kept(name):
    answer = read(name, BESIDE[name])
    assert answer.calls == (GET,) and answer.problems == ()
    assert answer.text == ("I look." if name == "gptoss" else "I look.\nDone.")
    assert answer.thought == ("" if name in ("hermes", "llama3") else "Hm.")


BROKEN = [
    ("hermes", '<tool_call>\n{"name": "get_user", "argum<|im_end|>', "the call cannot be read: Unterminated"),
    ("hermes", "<tool_call></tool_call>", "the call is empty"),
    ("hermes", hermes("get_user", '{"id": NaN}'), 'the arguments of "get_user" are no JSON'),
    ("hermes", 'I look.\n```json\n{"name": "get_user", "arguments": {}}\n```', "a call stands in the text"),
    ("qwen3_5", "\n</think>\n\n" + XML_GET.replace("get_user", ""), "a call stands in the text"),
    ("qwen3_5", XML_GET, "nothing follows the thought"),
    ("llama3", '{"name": "get_user"}<|eot_id|>', "a call stands in the text"),
    ("llama3", '[{"name": "get_user", "parameters": {"id": "7"}}]<|eot_id|>', "a part of the call cannot be read: ']'"),
    ("llama3", '{"name": "get_user", "parameters": "7"}<|eot_id|>', 'the arguments of "get_user" are no object'),
    ("gptoss", harmony("get_user", '{"id": "7"'), "the call cannot be read: Expecting ',' delimiter"),
    ("gptoss", harmony("get_user", ""), "the call is empty"),
    ("gptoss", harmony("", "{}"), "a message addressed to no tool cannot be read"),
    ("gptoss", harmony("get_user", "{}").replace("functions.", ""), "a message addressed to no tool cannot be read"),
    ("gptoss", "<|channel|>analysis<|message|>Hm.", "nothing follows the thought"),
    ("gemma", gemma("get_user"), "the call is empty"),
    ("gemma", gemma('get_user{id:<|"|>7<|"|>} tail'), "the call cannot be read: Extra data"),
    ("gemma", 'call:get_user{id:<|"|>7<|"|>}<turn|>', "a call stands in the text"),
    ("lfm2", lfm2("get_user(id=7x)"), "the call cannot be read: expected a comma or the end of the call"),
    ("lfm2", lfm2("get_user('7')"), "the call cannot be read: expected a parameter's name"),
    ("lfm2", lfm2("get_user(id=)"), "the call cannot be read: expected a value"),
    ("lfm2", lfm2("get_user"), "the call cannot be read: expected the name of a tool"),
    ("lfm2", "<|tool_call_start|>[get_user(id='7')", "the call cannot be read: the list of calls is not closed"),
    ("lfm2", '<|tool_call_start|>{"name": "get_user"}<|tool_call_end|>', "the calls are no list"),
]


@pytest.mark.parametrize(("name", "text", "problem"), BROKEN)
def test_no_family_goes_over_a_broken_call_in_silence(name, text, problem):
    answer = read(name, text)
    assert not answer.calls and answer.problems[0].startswith(problem)
    judged = grade(as_text(answer), GET, TOOLS)
    assert judged.outcome is Outcome.FORMAT_ERROR and "not a call: " in judged.reason


SECOND_BROKEN = {
    "hermes": hermes("get_user", '{"id": "7"}') + hermes("finish", '{"id"'),
    "qwen3_5": "\n</think>\n\n" + XML_GET + "\n<tool_call>\n<function=finish",
    "llama3": '{"name": "get_user", "parameters": {"id": "7"}}; {"name": "finish", "parameters": {"id"',
    "gemma": gemma('get_user{id:<|"|>7<|"|>}') + "<|tool_call>call:finish{id:",
    "lfm2": lfm2("get_user(id='7'), finish(id=)"),
}


@pytest.mark.parametrize("name", SECOND_BROKEN)
def test_a_broken_second_call_is_an_attempt_beside_the_first(name):
    answer = read(name, SECOND_BROKEN[name])
    assert answer.calls == (GET,) and len(answer.attempts) == 2 and len(answer.problems) == 1
    found = grade_answer(as_text(answer), [[GET]], TOOLS)
    assert found.cf is True and found.de and len(found.superfluous) == 1
    assert found.reason.startswith("1 of 1 golden calls are made; not a call: ")


def test_calls_behind_a_broken_one_are_read():
    answer = read("lfm2", lfm2("get_user(id=), finish()"))
    assert [attempt.call for attempt in answer.attempts] == [None, END]


def test_harmony_with_the_recipient_behind_the_channel_is_read():
    text = '<|channel|>commentary to=functions.get_user <|constrain|>json<|message|>{"id": "7"}<|call|>'
    assert read("gptoss", text).calls == (GET,)
    assert read("gptoss", "It is noon.<|return|>").text == "It is noon."


def test_llamas_mark_before_a_call_is_read():
    text = '<|python_tag|>{"name": "get_user", "parameters": {"id": "7"}}<|eom_id|>'
    answer = read("llama3", text)
    assert (answer.calls, answer.text, answer.problems) == ((GET,), "", ())


@pytest.mark.parametrize(("name", "written"), [("gemma", gemma("get-user{}")), ("lfm2", lfm2("get-user()"))])
def test_names_with_a_hyphen_are_read(name, written):
    tools = (replace(TOOLS[0], name="get-user"),)
    assert read(name, written, tools).calls == (Call("get-user"),)


@pytest.mark.parametrize("name", ["hermes", "llama3", "lfm2"])
def test_values_keep_the_type_that_the_model_wrote(name):
    written = {
        "hermes": hermes("get_users", '{"count": "3"}'),
        "llama3": '{"name": "get_users", "parameters": {"count": "3"}}<|eot_id|>',
        "lfm2": lfm2("get_users(count='3')"),
    }
    assert read(name, written[name]).calls == (Call("get_users", {"count": "3"}),)


def test_a_call_in_the_thought_is_not_taken_for_the_one_behind_it():
    call = hermes("get_user", '{"id": "7"}')
    answer = read("qwen3", f"<think>\n{call[12:-13]}\n</think>\n\n{call}")
    assert answer.calls == (GET,) and answer.problems == ()


def test_python_lists_are_read_as_their_template_writes_them():
    written = r"""[f(path='C:\new', n=-1.5, on=True, x=None), g(said="it's", l=[1, {'a': 'b'}]), h(d={"k": [true]})]"""
    calls = [attempt.call for attempt in read_list(written)]
    assert calls == [
        Call("f", {"path": r"C:\new", "n": -1.5, "on": True, "x": None}),
        Call("g", {"said": "it's", "l": [1, {"a": "b"}]}),
        Call("h", {"d": {"k": [True]}}),
    ]


@given(st.text(alphabet="[]()',=\"fa1 <|\\{}:\n", max_size=30), st.sampled_from(NAMES))
def test_no_text_makes_reading_fail_and_text_has_as_many_calls_as_the_answer(text, name):
    for written in (text, lfm2(text), hermes("f", text), gemma(f"f{text}"), f'{{"name": "f", "parameters": {text}'):
        answer = read(name, written)
        if answer.attempts:
            parts = split_calls(as_text(answer))
            assert len(parts) == len(answer.attempts)
            assert [part for part in parts if isinstance(part, Call)] == [
                call for call in answer.calls if call in parts
            ]
