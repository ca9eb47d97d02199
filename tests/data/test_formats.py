"""The formats of conversations: each gives the same trajectory, is recognised, and its errors name the mistake."""

from __future__ import annotations

import json
import logging
from collections import Counter

import pytest
from omegaconf import OmegaConf

from tests.support.format_samples import ANSWER, ARGUMENTS, LAST, QUERY, SAMPLES, SEARCHING, TOOLS
from tests.support.irm_records import RECORD
from tests.support.reader_samples import CHAT, LOVE, RAW, call, changed
from tltrain import config, data, mae
from tltrain.data import auto, native, openai, sharegpt, turns, xlam
from tltrain.data.reading import ReadReport
from tltrain.errors import FieldError, RecordError
from tltrain.trajectory import Call, Message

SEARCH = Call("search", ARGUMENTS)
CONVERSATION = (Message("user", QUERY), Message.calling(SEARCH), Message("tool", ANSWER), Message("assistant", LAST))


SINGLE = ("xlam", "api_log")
"""Formats of single questions."""


def parsed(name, record):
    notes = Counter()
    (found,) = auto.FORMATS[name][1](record, 1, notes)
    return found, notes


def read(path, name="auto", **keys):
    report = ReadReport()
    node = OmegaConf.merge(OmegaConf.structured(config.FileData), {"name": name, "path": str(path), **keys})
    return list(data.trajectories(node, 0, report)), report


def write(tmp_path, *records):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize("name", SAMPLES)
def test_each_format_gives_the_same_conversation(name):
    found, _ = parsed(name, SAMPLES[name])
    messages = [Message(m.role, m.text, m.calls, "", m.learn) for m in found.messages]  # not every format has thoughts
    assert messages == list(CONVERSATION[: 2 if name in SINGLE else 4])
    assert [tool.name for tool in found.tools] == ["search", "finish"]
    assert list(found.tools[0].properties) == ["limit", "query"] and "query" in found.tools[0].required
    assert found.instructions == "" and set(found.meta) <= {"details", "model"}
    assert mae.learnable(found, None) == [True] if name in SINGLE else [True, True]


@pytest.mark.parametrize("name", SAMPLES)
def test_auto_takes_each_format_and_says_why(name, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        found, _ = read(write(tmp_path, SAMPLES[name], SAMPLES[name]))
    assert len(found) == 2 and found[0].messages[1].calls[0].call == SEARCH
    (said,) = [record.getMessage() for record in caplog.records if "data=auto" in record.getMessage()]
    assert said.startswith(f"data=auto: read as data={name}, since ")


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("tltrain", json.loads(native.dumps(LOVE))),
        ("tl_training", RAW),
        ("turns", turns.turn_records(LOVE)[0]),
        ("irm", RECORD),
        ("openai", CHAT),
    ],
)
def test_the_papers_files_and_our_own_are_recognised(name, record):
    found = auto.recognised(record)
    assert found is not None and found[0] == name


def test_auto_without_a_known_format_names_the_fields_that_it_found(tmp_path):
    with pytest.raises(RecordError, match=r"record 1: record: expected one of the formats .*, found the fields q, a"):
        read(write(tmp_path, {"q": 1, "a": 2}))


def test_auto_says_which_reader_a_file_of_turns_needs(tmp_path):
    with pytest.raises(RecordError, match="record: expected data=turns for such a file"):
        read(write(tmp_path, *turns.turn_records(LOVE)))


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "openai"])
def test_another_reader_names_the_one_that_the_records_need(name, tmp_path):
    with pytest.raises(RecordError) as caught:
        read(write(tmp_path, SAMPLES[name]), "openai" if name != "anthropic" else "xlam")
    assert str(caught.value).endswith(f"as in data={name}")


@pytest.mark.parametrize(
    ("name", "path", "to", "said"),
    [
        ("sharegpt", ["conversations", 1, "from"], "caller", "conversations[1].from: expected one of human, user"),
        ("sharegpt", ["conversations", 1, "value"], "{", "conversations[1].value: expected valid JSON"),
        ("sharegpt", ["conversations", 0, "value"], 3, "conversations[0].value: expected a string, found 3"),
        ("sharegpt", ["tools"], "[", "tools: expected valid JSON"),
        ("xlam", ["answers"], "{}", "answers: expected a list, found {}"),
        ("xlam", ["answers"], '[{"arguments": {}}]', "answers[0].name: expected a string, found no such field"),
        ("xlam", ["query"], None, "query: expected a string, found null"),
        ("toolace", ["system"], "No tools.", "system: expected a list of functions"),
        ("toolace", ["system"], "Here is a list of functions in JSON format [1", "system: expected valid JSON"),
        ("glaive", ["chat"], "Hello.", "chat: expected `USER: ` and `ASSISTANT: ` before what they say"),
        ("glaive", ["chat"], "USER: x\nASSISTANT: <functioncall> {", "chat, <functioncall>: expected valid JSON"),
        ("glaive", ["system"], "SYSTEM: -\n{1}", "system: expected valid JSON"),
        ("toolbench", ["conversations", 0, "value"], "Hello.", "conversations[0].value: expected `access to"),
        (
            "toolbench",
            ["conversations", 2, "value"],
            "Action: search\nAction Input: {",
            "conversations[2].value, Action Input: expected valid JSON",
        ),
        ("anthropic", ["messages", 1, "content", 0, "type"], "image", "messages[1].content[0].type: expected one of"),
        ("anthropic", ["messages", 1, "content", 0, "input"], "x", "messages[1].content[0].input: expected valid JSON"),
        ("anthropic", ["messages", 2, "content", 0, "tool_use_id"], 7, "messages[2].content[0].tool_use_id: expected"),
        ("responses", ["input", 1, "type"], "web_search_call", "input[1].type: expected one of message, function_call"),
        ("responses", ["input", 1, "arguments"], "[1]", "input[1].arguments: expected an object, found [1]"),
        ("adp", ["content", 1, "class_"], "act", "content[1].class_: expected one of text_observation"),
        ("adp", ["available_apis"], None, "tools: expected a list of tools, as the conversation calls some"),
        ("prompt_completion", ["completion"], 3, "completion: expected a text or a list of messages, found 3"),
        ("prompt_completion", ["completion", 0, "role"], "narrator", "completion[0].role: expected one of system"),
    ],
)
def test_a_malformed_record_is_reported_with_its_field(name, path, to, said):
    with pytest.raises(FieldError) as caught:
        parsed(name, changed(SAMPLES[name], *path, to=to))
    assert str(caught.value).startswith(said)


# --- what is particular to a format ---------------------------------------------------------------------------------


def test_sharegpt_calls_that_follow_each_other_are_one_message():
    two = [{"from": "function_call", "value": json.dumps({**SEARCHING, "arguments": {"query": q}})} for q in "ab"]
    told = {"from": "observation", "value": json.dumps(["one", {"two": 2}])}
    record = {**SAMPLES["sharegpt"], "conversations": [{"from": "human", "value": "?"}, *two, told]}
    found, _ = parsed("sharegpt", record)
    assert [made.call.arguments["query"] for made in found.messages[1].calls] == ["a", "b"]
    assert [message.text for message in found.messages[2:]] == ["one", '{"two": 2}']


def test_sharegpt_one_answer_for_two_calls_is_refused():
    two = {"from": "function_call", "value": json.dumps([SEARCHING, SEARCHING])}
    record = {**SAMPLES["sharegpt"], "conversations": [two, {"from": "observation", "value": "one"}]}
    with pytest.raises(FieldError, match=r"conversations\[1\]: expected an id or a tool's name"):
        parsed("sharegpt", record)


def test_sharegpt_a_turn_that_is_not_trained_and_a_system_text():
    record = changed(SAMPLES["sharegpt"], "conversations", 1, "weight", to=0) | {"system": "Be brief."}
    found, _ = parsed("sharegpt", record)
    assert found.instructions == "Be brief." and mae.learnable(found, None) == [False, True]


def test_hermes_has_tools_calls_and_answers_in_the_texts():
    system = (
        "You are a function calling AI model. Here are the available tools: <tools> "
        + json.dumps(TOOLS)
        + " </tools> For each function call return a json object within <tool_call></tool_call> tags."
    )
    record = {
        "conversations": [
            {"from": "system", "value": system},
            {"from": "human", "value": QUERY},
            {"from": "gpt", "value": f"<tool_call>\n{SEARCHING!r}\n</tool_call>"},
            {"from": "tool", "value": f"<tool_response>\n{ANSWER}\n</tool_response>"},
            {"from": "gpt", "value": LAST},
        ]
    }
    found, notes = parsed("sharegpt", record)
    assert found.messages == CONVERSATION and [tool.name for tool in found.tools] == ["search", "finish"]
    assert found.instructions == ""
    assert notes["system messages: tools in the text, and how to call them, left out"] == 1


def test_qwens_system_text_keeps_its_instructions():
    listed = "\n".join(json.dumps({"type": "function", "function": tool}) for tool in TOOLS)
    system = (
        "Be brief.\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        f"You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n{listed}\n</tools>\n\n"
        "For each function call, return a json object"
    ).replace(" <tools></tools> XML", " XML")
    messages = [{"role": "system", "content": system}, *SAMPLES["openai"]["messages"]]
    found, _ = parsed("openai", {"messages": messages})
    assert found.instructions == "Be brief." and found.messages == CONVERSATION and len(found.tools) == 2


def test_toolace_calls_of_names_with_spaces_and_several_at_once():
    tools = [{"name": "Market Trends API", "parameters": {"properties": {"country": {"type": "string"}}}}, TOOLS[0]]
    system = f"Here is a list of functions in JSON format that you can invoke:\n{json.dumps(tools)}"
    said = [
        {"from": "user", "value": QUERY},
        {"from": "assistant", "value": '[Market Trends API(country="u(s]"), search(query="a, b")]'},
        {
            "from": "tool",
            "value": '[{"name": "search", "results": "two"}, {"name": "Market Trends API", "results": 1}]',
        },
        {"from": "assistant", "value": "[1] says so."},
    ]
    found, notes = parsed("toolace", {"system": system, "conversations": said})
    assert [made.call for made in found.messages[1].calls] == [
        Call("Market Trends API", {"country": "u(s]"}),
        Call("search", {"query": "a, b"}),
    ]
    assert [message.text for message in found.messages[2:]] == ["1", "two", "[1] says so."]
    assert notes["messages: text that begins as a list of calls but is none, kept as text"] == 1


def test_toolbench_thoughts_are_kept_and_begin_is_left_out():
    found, _ = parsed("toolbench", SAMPLES["toolbench"])
    assert (found.query, found.messages[1].thought, found.id) == (QUERY, "I look.", "Step 2: love")


def test_anthropic_thinking_errors_and_words_after_a_result():
    blocks = [
        {"type": "thinking", "thinking": "I look.", "signature": "x"},
        {"type": "text", "text": "Wait."},
        {"type": "tool_use", "id": "1", "name": "search", "input": {"query": "a"}},
        {"type": "tool_use", "id": "2", "name": "search", "input": {"query": "b"}},
    ]
    results = [
        {"type": "tool_result", "tool_use_id": "2", "content": [{"type": "text", "text": "none"}], "is_error": True},
        {"type": "tool_result", "tool_use_id": "1"},
        {"type": "text", "text": "Go on."},
    ]
    messages = [{"role": "assistant", "content": blocks}, {"role": "user", "content": results}]
    record = {**SAMPLES["anthropic"], "messages": messages, "system": [{"type": "text", "text": "Be brief."}]}
    found, _ = parsed("anthropic", record)
    assert found.instructions == "Be brief." and found.messages[0].thought == "I look."
    assert found.messages[1:] == (
        Message("tool", ""),
        Message("tool", "none", is_error=True),
        Message("user", "Go on."),
    )


def test_responses_reasoning_and_parallel_calls():
    items = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "I look."}]},
        {"type": "function_call", "call_id": "1", "name": "search", "arguments": '{"query": "a"}'},
        {"type": "function_call", "call_id": "2", "name": "search", "arguments": '{"query": "b"}'},
        {"type": "function_call_output", "call_id": "2", "output": "two"},
        {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_text", "text": "one"}]},
    ]
    record = {"input": QUERY, "output": items, "tools": SAMPLES["responses"]["tools"], "instructions": "Be brief."}
    found, _ = parsed("responses", record)
    assert found.messages[0] == Message("user", QUERY) and found.instructions == "Be brief."
    assert (found.messages[1].thought, len(found.messages[1].calls)) == ("I look.", 2)
    assert [message.text for message in found.messages[2:]] == ["one", "two"]


def test_adp_code_is_a_call_of_its_language():
    tool = {"name": "python", "parameters": {"properties": {"code": {"type": "string"}}, "required": ["code"]}}
    content = [
        {"class_": "text_observation", "content": QUERY, "source": "user"},
        {"class_": "code_action", "language": "python", "content": "print(1)", "description": "I count."},
        {"class_": "text_observation", "content": "1", "source": "environment"},
        {"class_": "message_action", "content": "One.", "description": None},
    ]
    found, notes = parsed("adp", {"content": content, "details": {"tools": [tool]}})
    assert found.messages[1] == Message.calling(Call("python", {"code": "print(1)"}), thought="I count.")
    assert found.messages[2] == Message("tool", "1") and not [note for note in notes if note.startswith("calls")]


def test_only_the_completion_is_learned():
    earlier = {"role": "assistant", "content": None, "tool_calls": [call("1", "search", {"query": "x"})]}
    prompt = [{"role": "user", "content": QUERY}, earlier, {"role": "tool", "content": "None."}]
    found, _ = parsed("prompt_completion", {**SAMPLES["prompt_completion"], "prompt": prompt})
    assert mae.learnable(found, None) == [False, True, True]
    texts = {"prompt": "Hi", "completion": "Hello."}
    assert parsed("prompt_completion", texts)[0].messages == (Message("user", "Hi"), Message("assistant", "Hello."))


def test_a_question_that_no_call_answers_has_no_turn_to_learn():
    found, notes = parsed("xlam", {**SAMPLES["xlam"], "answers": "[]"})
    assert found.messages == (Message("user", QUERY),)
    assert notes["records without a message of the assistant, with nothing to learn"] == 1


# --- errors ---------------------------------------------------------------------------------------------------------


def test_an_error_says_how_many_records_after_it_fail_alike_and_what_to_do(tmp_path):
    bad = changed(CHAT, "messages", 2, "tool_calls", 0, "function", "arguments", to="{")
    other = changed(CHAT, "messages", 1, "role", to="narrator")
    path = write(tmp_path, CHAT, bad, CHAT, bad, other, changed(bad, "messages", 1, "content", to="x"), CHAT)
    path.write_text(path.read_text() + "{\n")
    with pytest.raises(RecordError) as caught:
        read(path, "openai")
    said = str(caught.value)
    assert said.startswith(
        f"{path}, record 2: messages[2].tool_calls[0].function.arguments: expected valid JSON, found"
    )
    assert said.endswith(
        "; of the records after it 2 of 6 fail alike, 2 otherwise; "
        "data.on_error=skip leaves such records out and lists them"
    )
    found, report = read(path, "openai", on_error="skip")
    assert len(found) == report.read == 3 and len(report.skipped) == 5


def test_where_every_record_fails_alike_skipping_is_not_suggested(tmp_path):
    bad = changed(CHAT, "tools", to=None)
    with pytest.raises(RecordError, match=r"of the records after it 2 of 2 fail alike$"):
        read(write(tmp_path, bad, bad, bad), "openai")


def test_calls_and_tools_as_python_prints_them_are_read_and_counted():
    """Tables written with str() instead of json.dumps() contain these."""
    notes = Counter()
    made, tools = [{"name": "search", "arguments": ARGUMENTS}], [{"name": "search", "parameters": {}, "strict": True}]
    said = [{"from": "human", "value": QUERY}, {"from": "function_call", "value": str(made[0])}]
    (chat,) = sharegpt.parse({"conversations": said, "tools": str(tools)}, 1, notes)
    (question,) = xlam.parse({"query": QUERY, "tools": str(tools), "answers": str(made)}, 1, notes)
    assert [each.call for each in chat.messages[1].calls] == [SEARCH]
    assert [each.call for each in question.messages[1].calls] == [SEARCH]
    counted = {note.partition(":")[0] for note in notes if note.endswith(": read from Python's notation")}
    assert counted == {"conversations", "tools", "answers"}
    with pytest.raises(FieldError, match="answers: expected valid JSON, found"):
        list(xlam.parse({"query": QUERY, "tools": str(tools), "answers": "I cannot."}, 1, notes))


# --- mixed formats, and formats that are known but not read -----------------------------------------------------------


def test_a_record_of_another_format_than_the_first_names_both(tmp_path):
    with pytest.raises(RecordError) as caught:
        read(write(tmp_path, SAMPLES["openai"], SAMPLES["xlam"]))
    assert "record 2: messages: expected a list, found no such field" in str(caught.value)
    assert "as in data=xlam, while the file began with data=openai: give each format a file of its own" in str(
        caught.value
    )


def test_a_malformed_record_of_the_first_format_is_not_said_to_be_another(tmp_path):
    broken = changed(SAMPLES["anthropic"], "messages", 1, "content", 0, "type", to="image")
    with pytest.raises(RecordError) as caught:
        read(write(tmp_path, SAMPLES["anthropic"], broken))
    assert "data=openai" not in str(caught.value)


@pytest.mark.parametrize("reader", ["auto", "openai"])
@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"custom_id": "a", "method": "POST", "body": {"messages": []}}, "a request of a batch without its response"),
        ({"custom_id": "a", "response": {"body": {}}}, "a response of a batch without its request"),
        ({"id": "chatcmpl-1", "choices": []}, "an answer of an API without its request"),
        ({"id": "a", "question": [[]], "function": []}, "a question of BFCL"),
        ({"question": "?", "correct_answer": "direct"}, "a question of When2Call"),
        ({"prompt": [], "reward_model": {}}, "prompts for reinforcement learning, without answers"),
        ({"text": "<|im_start|>user"}, "text that a chat template wrote"),
        ({"instruction": "x", "input": "", "output": "y"}, "Alpaca's instruction and output"),
        ({"version": 1, "conversations": [CHAT, CHAT]}, "an object that holds records"),
        ({"a": CHAT, "b": CHAT}, "an object that holds records"),
        ({"data": {"train": [CHAT]}}, "an object that holds records"),
        ({"dialog": [{"role": "user", "content": "x"}]}, "messages in a field of another name"),
    ],
)
def test_what_is_known_and_not_read_is_named_with_what_to_do(tmp_path, record, said, reader):
    with pytest.raises(RecordError) as caught:
        read(write(tmp_path, record), reader)
    assert said in str(caught.value) and auto.UNREAD[said][1] in str(caught.value)


@pytest.mark.parametrize("field", openai.BESIDE)
def test_an_answer_beside_messages_is_not_left_out_without_a_word(field):
    with pytest.raises(FieldError, match=f"messages: expected the assistant's answer .* found it in `{field}` beside"):
        parsed("openai", {"messages": [{"role": "user", "content": "?"}], field: [SEARCHING]})


def test_a_record_in_which_the_assistant_says_nothing_is_counted():
    _, notes = parsed("openai", {"messages": [{"role": "user", "content": "?"}], "answer": None})
    assert notes["records without a message of the assistant, with nothing to learn"] == 1
