"""Read files of records: the paper's raw format, chat completions, and reports of unreadable records."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.reader_samples import CHAT, CHAT_READ, LOVE, RAW, SEARCH, TOOLS, call, changed, lines, writer
from tltrain import mae
from tltrain.data import openai, tl_training
from tltrain.data.reading import MAX_DEPTH, ReadReport, parse_json, read_file, records
from tltrain.errors import FieldError, RecordError, TltrainError
from tltrain.formats.tl import TL
from tltrain.trajectory import Call, Message, Trajectory


@pytest.fixture
def write(tmp_path):
    return writer(tmp_path)


# --- files and records ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        '[{"a": 1}, {"a": 2}]',
        '\ufeff\n [{"a": 1}\n,{"a": 2}] \n',
        '{"a": 1}\n{"a": 2}\n',
        '\ufeff{"a": 1}\r\n\n  \n{"a": 2}',
    ],
)
def test_a_list_and_json_lines_are_told_apart_by_content(write, content):
    assert list(records(write(content, "data.txt"))) == [(1, {"a": 1}), (2, {"a": 2})]


def test_json_lines_are_not_held_in_memory(tmp_path):
    path = tmp_path / "many.jsonl"
    line = json.dumps({"text": "x" * 10_000}) + "\n"
    with path.open("w") as file:
        file.writelines(line for _ in range(1_000))
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_file(path, lambda record, number, notes: [number])) == 1_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size / 20


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"a": 1}\n{"a": 2\n', "record 2: line: expected valid JSON, found"),
        ('{"a": 1}\n{"a": NaN}\n', "record 2: line: expected valid JSON, found NaN"),
        ('{"a": 1}\n{"a": 1e999}\n', "record 2: line: expected valid JSON, found 1e999"),
        ('{"a": 1}\n{"a": 2} {}\n', "record 2: line: expected valid JSON, found '{}' at character 10"),
        ('{"a": 1}\n{"a": "\\ud800"}\n', "record 2: line: expected Unicode text"),
        ('{"a": 1}\n{"a": "\0"}\n', "record 2: line: expected valid JSON"),
        ('{"a": 1}\n' + "[" * 100_000 + "\n", "record 2: line: expected JSON nested at most 100 deep"),
        (f'{{"a": 1}}\n{"[" * 101}{"]" * 101}\n', "record 2: line: expected JSON nested at most 100 deep"),
        ('{"a": 1}\n' + "1" * 5000 + "\n", "record 2: line: expected valid JSON"),
        (b'{"a": 1}\n{"a": "\xff"}\n', "record 2: text: expected UTF-8, found the byte ff at position 8"),
        ('[{"a": 1}, {"a": 2}', "record 2: item: expected valid JSON, found the end"),
        ('[{"a": 1}, {"a": ]', "record 2: item: expected valid JSON"),
        ('[{"a": 1}, {"a": "\\ud800"}]', "record 2: item: expected Unicode text"),
        ('[{"a": 1}, {}] x', "record 2: end of the list: expected valid JSON, found 'x'"),
    ],
)
def test_invalid_json_is_one_line_with_the_record_number(write, content, said):
    path = write(content)
    with pytest.raises(RecordError) as caught:
        list(records(path))
    assert str(caught.value).startswith(f"{path}, {said}") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"a": "Le café"}\n'.encode("latin-1"), "e9 at position 14; if café is a word of it, iconv -f WINDOWS-1252"),
        ('[{"a": "– 5 €"}]'.encode("cp1252"), "the byte 96 at position 9; if – is a word of it, iconv -f WINDOWS-1252"),
        (b'{"a": "\x81"}\n', "iconv -f ENCODING -t UTF-8 FILE > NEW converts it from its own encoding"),
    ],
)
def test_text_in_another_encoding_names_the_command_that_converts_it(write, content, said):
    path = write(content)
    with pytest.raises(TltrainError) as caught:
        list(read_file(path, tl_training.parse))
    assert str(caught.value).startswith(str(path)) and said in str(caught.value)


@given(st.text(max_size=40) | st.text(alphabet='{}[]",:\\ud8e19.-NaIty ', max_size=40))
def test_any_text_is_json_or_a_field_error(text):
    try:
        value = parse_json(text, "here")
    except FieldError:
        return
    assert parse_json(json.dumps(value, allow_nan=False), "again") == value


def test_nesting_up_to_the_limit_is_read():
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH, "here")
    assert parse_json(json.dumps("[" * 500), "a string with brackets") == "[" * 500


@pytest.mark.parametrize("content", ["", "\n \n", "[]", "[ ]\n"])
def test_a_file_without_records_is_an_error(write, content):
    with pytest.raises(TltrainError, match=r"expected records \(a JSON list, or JSON lines\), found none"):
        list(read_file(write(content), tl_training.parse))


def test_a_missing_file_and_a_folder_say_what_was_expected(tmp_path):
    for path in (tmp_path / "none.json", tmp_path, str(tmp_path) + "/\0", tmp_path / ("x" * 300)):
        with pytest.raises(TltrainError, match="expected a file of JSON, found: "):
            list(records(path))


def test_skip_counts_and_lists_what_cannot_be_read_and_keeps_the_rest(write):
    broken = changed(RAW, "conversations", 1, "role", to="human")
    path = write(lines(RAW, broken) + "{\n" + lines(RAW, {"id": "x"}))
    report = ReadReport()
    assert list(read_file(path, tl_training.parse, "skip", report)) == [LOVE, LOVE]
    assert report.read == 2
    assert [line.split(": ")[0] for line in report.skipped] == [f"{path}, record {n}" for n in (2, 3, 5)]
    assert report.skipped[0] == (
        f'{path}, record 2: conversations[1].role: expected one of user, assistant, function, found "human"'
    )


def test_skip_also_works_inside_a_json_list(write):
    report = ReadReport()
    path = write(json.dumps([RAW, {}, {"id": "\ud800"}, RAW]))
    assert list(read_file(path, tl_training.parse, "skip", report)) == [LOVE, LOVE]
    assert len(report.skipped) == 2 and report.read == 2


# --- the paper's raw format -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [json.dumps([RAW]), lines(RAW)])
def test_raw_trajectories_are_read_from_a_list_or_json_lines(write, content):
    assert list(read_file(write(content), tl_training.parse)) == [LOVE]


@pytest.mark.parametrize(
    ("path", "to", "said"),
    [
        (["id"], None, "id: expected a string, found null"),
        (["conversations"], {}, "conversations: expected a list, found {}"),
        (["conversations"], [], "conversations: expected a system message, found an empty list"),
        (["conversations", 0, "role"], "user", 'conversations[0].role: expected one of system, found "user"'),
        (["conversations", 0, "content"], "{}", "conversations[0].content: expected a list, found {}"),
        (["conversations", 0, "content"], "[", "conversations[0].content: expected valid JSON, found the end"),
        (
            ["conversations", 0, "content"],
            '[{"name": 1}]',
            "conversations[0].content[0].name: expected a string, found 1",
        ),
        (
            ["conversations", 0, "content"],
            '[{"type": "function", "function": {"description": "x"}}]',
            "conversations[0].content[0].function.name: expected a string, found no such field",
        ),
        (
            ["conversations", 0, "content"],
            '[{"name": "f", "parameters": {"properties": {"p": "string"}}}]',
            'conversations[0].content[0].parameters.properties.p: expected an object, found "string"',
        ),
        (["conversations", 2, "content"], "search", "conversations[2].content: expected a tool's name, a line break"),
        (["conversations", 2, "content"], "search\n[1]", "conversations[2].content: expected an object, found [1]"),
        (["conversations", 2, "content"], "search\n{} {}", "conversations[2].content: expected nothing after"),
        (["conversations", 3], "text", 'conversations[3]: expected an object, found "text"'),
        (["conversations", 3, "content"], ["a"], 'conversations[3].content: expected a string, found ["a"]'),
    ],
)
def test_a_malformed_raw_record_is_reported_with_file_record_field_expected_and_found(write, path, to, said):
    file = write(lines(RAW, changed(RAW, *path, to=to)))
    with pytest.raises(RecordError) as caught:
        list(read_file(file, tl_training.parse))
    assert str(caught.value).startswith(f"{file}, record 2: {said}")


def test_a_record_that_is_not_an_object_is_reported():
    with pytest.raises(FieldError, match="record: expected an object, found 3"):
        list(tl_training.parse(3, 1, Counter()))


def test_what_is_left_out_of_raw_records_is_counted(write):
    record = changed(RAW, "conversations", 2, "content", to='search\n{"q": 1}\nmore')
    record["conversations"][3]["name"] = "search"
    enum = {"name": "f", "parameters": {"properties": {"p": {"enum": [1]}}}}
    record["conversations"][0]["content"] = json.dumps([enum])
    report = ReadReport()
    (read,) = read_file(write(lines(record)), tl_training.parse, report=report)
    assert read.messages[1].calls[0].call == Call("search", {"q": 1})
    assert report.notes == {
        "messages: text below a call's arguments not kept": 1,
        "messages: `name` not kept": 1,
        "tools: `enum` of a parameter is not in the stub": 1,
    }


def test_a_raw_record_can_be_written_back():
    assert list(tl_training.parse(tl_training.raw_record(LOVE), 1, Counter())) == [LOVE]


def test_several_calls_of_one_message_are_written_one_after_another():
    several = Message.calling(Call("search", {"q": 1}), Call("search", {"q": 2}))
    trajectory = Trajectory("x", TOOLS, (several, Message("tool", "one"), Message("tool", "two")))
    said = [entry["content"] for entry in tl_training.raw_record(trajectory)["conversations"][1:]]
    assert said == ['search\n{"q": 1}', "one", 'search\n{"q": 2}', "two"]


@pytest.mark.parametrize(
    "trajectory",
    [Trajectory("x", TOOLS, (), "Be brief."), Trajectory("x", TOOLS, (Message("assistant", "Hello."),))],
)
def test_what_the_raw_format_cannot_represent_is_an_error(trajectory):
    with pytest.raises(TltrainError, match=r"trajectory x: the paper's raw format has no .*; leave stage.write out"):
        tl_training.raw_record(trajectory)


# --- chat completions -----------------------------------------------------------------------------------------------


def test_several_calls_of_one_message_stay_together_with_their_answers_in_order(write):
    report = ReadReport()
    (read,) = read_file(write(lines(CHAT)), openai.parse, report=report)
    assert read == Trajectory("1", TOOLS[:1], CHAT_READ, "Be brief.")
    assert report.notes == {"messages: text beside a call is not in the TL format": 1}
    assert [piece.text for piece in TL.segments(read)[2:]] == [
        "\nAssistant:",
        ' search(query="love")',
        "\nOutput: Listen.",
        "\nAssistant:",
        ' search(query="work")',
        "\nOutput: Rest.",
        "\nAssistant:",
        " Listen, and rest.",
    ]


def test_tools_may_be_the_text_of_a_list_and_other_fields_are_kept(write):
    record = {**CHAT, "tools": json.dumps([SEARCH]), "id": "chat-7", "source": "here"}
    (read,) = read_file(write(lines(record)), openai.parse)
    assert (read.id, read.tools, read.meta) == ("chat-7", TOOLS[:1], {"source": "here"})


def test_answers_without_a_known_id_are_matched_by_order(write):
    record = changed(CHAT, "messages", 3, to={"role": "tool", "content": "Listen."})
    record["messages"][4] = {"role": "tool", "tool_call_id": "zzz", "content": "Rest."}
    report = ReadReport()
    (read,) = read_file(write(lines(record)), openai.parse, report=report)
    assert read.messages == CHAT_READ
    assert report.notes["messages: answers whose `tool_call_id` matches no call, matched by order"] == 1


def test_an_answer_by_id_is_not_taken_by_one_without(write):
    record = changed(CHAT, "messages", 3, to={"role": "tool", "content": "Rest."})
    (read,) = read_file(write(lines(record)), openai.parse)
    assert read.messages == CHAT_READ


@pytest.mark.parametrize(
    ("fields", "is_error", "noted"),
    [
        ({"is_error": True}, True, []),
        ({"isError": False}, False, []),
        ({"error": True}, True, []),
        ({"status": "error"}, True, []),
        ({"status": "success"}, False, []),
        ({"exit_code": 2}, True, []),
        ({"exitCode": 0}, False, []),
        ({"is_error": False, "status": "error"}, False, ["status"]),  # the flag takes precedence
        ({"status": "completed"}, None, ["status"]),  # the status of the item, not of the call
        ({"error": "a text"}, None, ["error"]),
        ({}, None, []),
    ],
)
def test_an_explicit_outcome_of_an_answer_is_kept(write, fields, is_error, noted):
    record = changed(CHAT, "messages", 3, to={**CHAT["messages"][3], **fields})
    report = ReadReport()
    (read,) = read_file(write(lines(record)), openai.parse, report=report)
    assert [message.is_error for message in read.messages if message.role == "tool"] == [None, is_error]
    assert {note for note in report.notes if "not kept" in note} == {f"messages: `{field}` not kept" for field in noted}


def test_the_older_function_call_form_is_read(write):
    record = {
        "functions": [SEARCH],
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": None, "function_call": {"name": "search", "arguments": ""}},
            {"role": "function", "name": "search", "content": "None."},
        ],
    }
    (read,) = read_file(write(lines(record)), openai.parse)
    assert read.messages == (
        Message("user", "Hi"),
        Message.calling(Call("search", {})),
        Message("tool", "None."),
    )


def test_calls_without_answers_stay_together_and_a_late_system_message_in_its_place(write):
    record = {
        "tools": [SEARCH],
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "developer", "content": "Now."},
            {
                "role": "assistant",
                "reasoning": "hm",
                "tool_calls": [call("a", "search", "{}"), call("b", "finish", "{}")],
            },
        ],
    }
    report = ReadReport()
    (read,) = read_file(write(lines(record)), openai.parse, report=report)
    assert read.instructions == "" and read.messages == (
        Message("user", "Hi"),
        Message("user", "Now."),
        Message.calling(Call("search"), Call("finish"), thought="hm"),
    )
    assert mae.learnable(read, None) == [True, True]
    assert report.notes == {
        "messages: a later system message kept in its place, as a message of the user": 1,
        "messages: thoughts are not in the TL format": 1,
        "calls: without an argument that is required": 1,
        "calls: of tools that are not on offer": 1,
    }


def test_tools_that_change_in_a_conversation_are_counted(write):
    report = ReadReport()
    user = {"role": "user", "content": "Book it.", "tools": [SEARCH]}
    said = {"role": "assistant", "content": "Hi."}
    record = {"tools": [SEARCH], "messages": [{"role": "user", "content": "Hi"}, said, user]}
    (read,) = read_file(write(lines(record)), openai.parse, report=report)
    assert [tool.name for tool in read.tools] == ["search"]
    assert report.notes == {"messages: `tools` not kept": 1}


@pytest.mark.parametrize("field", openai.THOUGHTS)
def test_a_thought_is_kept_and_what_is_no_text_is_counted(write, field):
    report = ReadReport()
    record = changed(CHAT, "messages", 2, to={**CHAT["messages"][2], field: "Hm."})
    (read,) = read_file(write(lines(record)), openai.parse, report=report)
    assert read.messages[1].thought == "Hm."
    record["messages"][2][field] = {"summary": []}
    (read,) = read_file(write(lines(record)), openai.parse, report=report)
    assert read.messages[1].thought == "" and report.notes[f"messages: `{field}` not kept"] == 1


@pytest.mark.parametrize(
    ("path", "to", "said"),
    [
        (["tools"], None, "tools: expected a list of tools, as the conversation calls some, found null"),
        (["messages"], "x", 'messages: expected a list, found "x"'),
        (["messages", 1, "role"], "narrator", "messages[1].role: expected one of system, developer, user"),
        (["messages", 1, "content"], None, "messages[1].content: expected a string, found null"),
        (
            ["messages", 1, "content", 0, "type"],
            "image_url",
            'messages[1].content[0].type: expected one of text, found "image_url"',
        ),
        (
            ["messages", 2, "tool_calls", 1, "function"],
            None,
            "messages[2].tool_calls[1].function: expected an object, found null",
        ),
        (
            ["messages", 2, "tool_calls", 0, "function", "arguments"],
            "{'a': f(1)}",
            "messages[2].tool_calls[0].function.arguments: expected valid JSON",
        ),
        (
            ["messages", 2, "tool_calls", 0, "function", "arguments"],
            "[1]",
            "messages[2].tool_calls[0].function.arguments: expected an object, found [1]",
        ),
        (["messages", 2, "tool_calls"], [], "messages[3]: expected no tool's answer to a message without calls"),
        (["messages", 5], {"role": "tool", "content": "x"}, "messages[5]: expected at most 2 answers to 2 calls"),
        (["messages", 5], {"role": "assistant", "content": None}, "messages[5].content: expected a string, found null"),
        (["messages", 0], {"role": "tool", "content": "x"}, "messages[0]: expected an answer to a call"),
    ],
)
def test_a_malformed_chat_record_is_reported_with_its_field(write, path, to, said):
    file = write(lines(CHAT, changed(CHAT, *path, to=to)))
    with pytest.raises(RecordError) as caught:
        list(read_file(file, openai.parse))
    assert str(caught.value).startswith(f"{file}, record 2: {said}")
