"""Formats of other APIs and frameworks, pairs of answers, and requests with their responses."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.support.format_samples import LAST, QUERY, SAMPLES, TOOLS
from tests.support.reader_samples import call
from tltrain import mae
from tltrain.data import auto
from tltrain.errors import FieldError
from tltrain.trajectory import Call, Message

HISTORY = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "On what?"}]
HISTORY += [{"role": "user", "content": QUERY}]


def parsed(name, record):
    notes = Counter()
    (found,) = auto.FORMATS[name][1](record, 1, notes)
    return found, notes


# --- Gemini -----------------------------------------------------------------------------------------------------------


def gemini(*contents, **fields):
    tools = [{"function_declarations": [{"name": "search", "parameters": {"type": "OBJECT", "properties": SHOUTED}}]}]
    return parsed("gemini", {"contents": list(contents), "tools": tools, **fields})


SHOUTED = {"query": {"type": "STRING"}, "sizes": {"type": "ARRAY", "items": {"type": "INTEGER"}}}


def test_gemini_thoughts_parallel_calls_and_answers_by_name():
    asked = [{"function_call": {"name": "search", "args": {"query": query}}} for query in "ab"]
    told = [
        {"function_response": {"name": "search", "response": each}} for each in ({"error": "No."}, {"n": 1, "m": 2})
    ]
    found, _ = gemini(
        {"parts": [{"text": "Ad"}, {"text": "vice?"}]},
        {"role": "model", "parts": [{"text": "Hm.", "thought": True}, *asked]},
        {"role": "function", "parts": told},
        system_instruction={"parts": [{"text": "Be brief."}]},
    )
    assert found.instructions == "Be brief." and found.messages[0].text == "Advice?"
    assert found.messages[1].thought == "Hm." and [
        each.call.arguments["query"] for each in found.messages[1].calls
    ] == [
        "a",
        "b",
    ]
    assert found.messages[2:] == (Message("tool", "No.", is_error=True), Message("tool", '{"n": 1, "m": 2}'))
    assert found.tools[0].properties == {
        "query": {"type": "string"},
        "sizes": {"type": "array", "items": {"type": "integer"}},
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"role": "assistant", "parts": []}, r"contents\[0\].role: expected one of user, model"),
        ({"role": "model", "parts": [{"inlineData": {}}]}, r"parts\[0\]: expected text or functionCall, found"),
        (
            {"role": "user", "parts": [{"functionResponse": {"name": "x"}}]},
            r"Response.response: expected an object",
        ),
        ({"role": "user", "parts": "x"}, r"contents\[0\].parts: expected a list"),
    ],
)
def test_gemini_contents_that_are_none_are_errors(content, said):
    with pytest.raises(FieldError, match=said):
        gemini(content)


# --- LangChain --------------------------------------------------------------------------------------------------------

AI = {"content": "", "tool_calls": [{"name": "search", "args": {"query": "love"}, "id": "1", "type": "tool_call"}]}
KWARGS = {"content": "", "additional_kwargs": {"tool_calls": [call("1", "search", '{"query": "love"}')]}}


@pytest.mark.parametrize(
    "message",
    [
        {"type": "ai", "data": {**AI, "type": "ai"}},
        {"type": "constructor", "lc": 1, "id": ["langchain", "schema", "messages", "AIMessage"], "kwargs": AI},
        {"type": "AIMessageChunk", **AI},
        {"type": "ai", **KWARGS},
        {"type": "ai", **AI, "content": ["I look.", {"type": "tool_use", "id": "1", "name": "search", "input": {}}]},
    ],
)
def test_langchain_messages_in_each_of_their_dumps(message):
    record = {**SAMPLES["langchain"], "messages": [{"type": "human", "content": QUERY}, message]}
    found, _ = parsed("langchain", record)
    assert [each.call for each in found.messages[1].calls] == [Call("search", {"query": "love"})]


def test_langchain_calls_that_could_not_be_read_are_an_error():
    message = {"type": "ai", "content": "", "invalid_tool_calls": [{"name": "search", "args": "{", "id": "1"}]}
    with pytest.raises(FieldError, match=r"messages\[0\].invalid_tool_calls: expected calls whose arguments"):
        parsed("langchain", {"messages": [message]})


def test_langchain_a_tools_status_says_that_the_call_failed():
    messages = [*SAMPLES["langchain"]["messages"]]
    messages[2] = {**messages[2], "status": "error"}
    found, _ = parsed("langchain", {**SAMPLES["langchain"], "messages": messages})
    assert found.messages[2].is_error is True


# --- pairs ------------------------------------------------------------------------------------------------------------

REJECTED = "records: `{}` is not learned"


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": QUERY, "chosen": LAST, "rejected": "No."},
        {
            "prompt": [{"role": "user", "content": QUERY}],
            "chosen": {"role": "assistant", "content": LAST},
            "rejected": 1,
        },
        {
            "conversations": [{"from": "human", "value": QUERY}],
            "chosen": {"from": "gpt", "value": LAST},
            "rejected": {"from": "gpt", "value": "No."},
        },
    ],
)
def test_the_chosen_answer_is_learned_and_the_rejected_one_counted(record):
    found, notes = parsed("preference", {**record, "tools": TOOLS})
    assert found.messages == (Message("user", QUERY), Message("assistant", LAST))
    assert notes[REJECTED.format("rejected")] == 1 and mae.learnable(found, None) == [True]


def test_what_both_answers_begin_with_is_the_prompt():
    shared = [{"role": "user", "content": QUERY}, {"role": "assistant", "content": "On what?"}]
    shared += [{"role": "user", "content": "On love."}]
    chosen, rejected = ([*shared, {"role": "assistant", "content": text}] for text in (LAST, "No."))
    found, _ = parsed("preference", {"chosen": chosen, "rejected": rejected, "tools": TOOLS})
    assert [message.learn for message in found.messages if message.role == "assistant"] == [False, True]


def test_when2calls_pairs_are_read():
    record = {
        "tools": [json.dumps(TOOLS[0])],
        "messages": [{"role": "user", "content": QUERY}],
        "chosen_response": {"role": "assistant", "content": "Which kind?"},
        "rejected_response": {"role": "assistant", "content": "<TOOLCALL>[]"},
    }
    assert auto.recognised(record)[0] == "preference"
    found, notes = parsed("preference", record)
    assert found.messages[1].text == "Which kind?" and notes[REJECTED.format("rejected_response")] == 1


def test_a_pair_without_a_prompt_is_an_error():
    with pytest.raises(FieldError, match="prompt: expected a text or a list of messages, found no such field"):
        parsed("preference", {"chosen": "Yes.", "rejected": "No."})


# --- requests with their responses ------------------------------------------------------------------------------------

SPOKEN = [("user", "?"), ("model", "On what?"), ("user", QUERY)]
ASKED = {"messages": HISTORY, "tools": [{"name": tool["name"], "input_schema": tool["parameters"]} for tool in TOOLS]}
SAID = {"choices": [{"message": {"role": "assistant", "content": LAST}}]}


@pytest.mark.parametrize(
    ("request_", "response"),
    [
        (ASKED, SAID),
        (json.dumps(ASKED), json.dumps(SAID)),
        ({"body": ASKED}, {"status_code": 200, "body": SAID}),
        (ASKED, {"role": "assistant", "content": [{"type": "text", "text": LAST}], "stop_reason": "end_turn"}),
        ({"input": HISTORY}, {"output": [{"type": "message", "role": "assistant", "content": LAST}]}),
        (
            {
                "contents": [
                    {"role": "model" if i == 1 else "user", "parts": [{"text": m["content"]}]}
                    for i, m in enumerate(HISTORY)
                ]
            },
            {"candidates": [{"content": {"parts": [{"text": LAST}]}}]},
        ),
    ],
)
def test_of_a_request_and_its_response_the_response_is_learned(request_, response):
    record = {"custom_id": "x", "request": request_, "response": response, "error": None}
    assert auto.recognised(record)[0] == "api_log"
    found, _ = parsed("api_log", record)
    assert [(message.text, message.learn) for message in found.messages if message.role == "assistant"] == [
        ("On what?", False),
        (LAST, True),
    ]
    assert found.id == "x" and [message.text for message in found.messages if message.role == "user"] == ["?", QUERY]


@pytest.mark.parametrize("response", [None, {}, {"error": {"message": "429"}}])
def test_a_request_without_an_answer_is_counted(response):
    notes = Counter()
    assert not list(auto.FORMATS["api_log"][1]({"request": ASKED, "response": response}, 1, notes))
    assert notes == {"records: without a response, or with an error as the response, left out": 1}


def test_a_response_without_an_answer_is_an_error():
    with pytest.raises(FieldError, match=r"response.choices: expected a list with an answer, found \[\]"):
        parsed("api_log", {"request": ASKED, "response": {"choices": []}})


# --- values that are objects -----------------------------------------------------------------------------------------


def test_sharegpt_values_of_calls_and_answers_may_be_objects():
    record = json.loads(json.dumps(SAMPLES["sharegpt"]))
    for at in (1, 2):
        record["conversations"][at]["value"] = json.loads(record["conversations"][at]["value"])
    assert parsed("sharegpt", record)[0].messages == parsed("sharegpt", SAMPLES["sharegpt"])[0].messages


def test_xlam_a_single_answer_may_be_an_object():
    record = {**SAMPLES["xlam"], "answers": json.loads(SAMPLES["xlam"]["answers"])[0]}
    assert parsed("xlam", record)[0].messages == parsed("xlam", SAMPLES["xlam"])[0].messages


def test_responses_without_an_output_are_an_error_and_an_empty_list_is_an_answer():
    record = json.loads(json.dumps(SAMPLES["responses"]))
    record["input"][2]["output"] = []
    assert parsed("responses", record)[0].messages[2].text == "[]"
    del record["input"][2]["output"]
    with pytest.raises(FieldError, match=r"input\[2\].output: expected a text, found no such field"):
        parsed("responses", record)
