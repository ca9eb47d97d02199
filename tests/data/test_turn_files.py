"""Files in the TL format and our own: one record per turn, `train.jsonl`, one conversation to continue."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.reader_samples import CHAT, CHAT_READ, LOVE, RAW, STUBS, TEXTS, TOOLS, changed, lines, writer
from tltrain.data import native, tl_training, turns
from tltrain.data.chat import read_history
from tltrain.data.reading import ReadReport, parse_json, read_file
from tltrain.errors import FieldError, RecordError, TltrainError
from tltrain.formats.stubs import render_tools
from tltrain.trajectory import ANY, Call, Message, Tool, ToolCall, Trajectory


@pytest.fixture
def write(tmp_path):
    return writer(tmp_path)


# --- one record per turn --------------------------------------------------------------------------------------------


def learning(trajectory, *turns_):
    """Return `trajectory` with `learn` set only on these turns (from 1)."""
    number, messages = 0, []
    for message in trajectory.messages:
        number += message.role == "assistant"
        learn = message.role != "assistant" or number in turns_
        messages.append(message.with_learn(learn))
    return Trajectory(trajectory.id, trajectory.tools, tuple(messages), trajectory.instructions)


def test_turn_records_are_those_of_the_released_script():
    """The raw record above, converted by hand: the first call failed and is dropped, but counted."""
    (read,) = tl_training.parse(RAW, 1, Counter())
    assert turns.turn_records(learning(read, 2, 3)) == [
        {"id": "Turn 2: love", "conversations": TEXTS[:5]},
        {"id": "Turn 3: love", "conversations": TEXTS},
    ]


def test_an_empty_call_and_a_tool_without_parameters_in_turn_records():
    raw = {
        "id": 7,
        "conversations": [
            {
                "role": "system",
                "content": json.dumps(
                    [
                        {
                            "type": "function",
                            "function": {
                                "name": "now",
                                "description": "The time.",
                                "parameters": {"type": "object", "properties": {}, "required": []},
                            },
                        }
                    ]
                ),
            },
            {"role": "user", "content": "Time?"},
            {"role": "assistant", "content": "now\n{}"},
        ],
    }
    (read,) = tl_training.parse(raw, 1, Counter())
    assert turns.turn_records(read) == [
        {
            "id": "Turn 1: 7",
            "conversations": [
                {"role": "system", "content": 'Function:\ndef now():\n    """\n    The time.\n\n    Args:\n    """'},
                {"role": "user", "content": "Time?"},
                {"role": "assistant", "content": "now()"},
            ],
        }
    ]


def test_text_without_a_call_is_written_and_read_unchanged(write):
    said = Message("assistant", "I can't (sorry).")
    trajectory = Trajectory("x", TOOLS, (Message("user", "Hi"), said), "Be brief.")
    (record,) = turns.turn_records(trajectory)
    assert record["conversations"][0]["content"] == f"Be brief.\n\n{STUBS}"
    assert record["conversations"][-1] == {"role": "assistant", "content": "I can't (sorry)."}
    (read,) = turns.read(write(lines(record)))
    assert (read.messages, read.instructions) == (trajectory.messages, "Be brief.")


@pytest.mark.parametrize("learned", [(1,), (2,), (3,), (1, 2), (1, 3), (2, 3), (1, 2, 3)])
def test_the_turns_of_one_trajectory_become_one_again(write, learned):
    here = learning(LOVE, *learned)
    (read,) = turns.read(write(json.dumps(turns.turn_records(here))))
    assert read.messages == here.messages[: 2 * max(learned)], "up to its last turn, with the same flags"
    assert render_tools(read.tools) == STUBS
    assert turns.turn_records(read) == turns.turn_records(here)


def test_trajectories_that_share_an_id_stay_apart(write):
    other = Trajectory("love", TOOLS, (Message("user", "More?"), *LOVE.messages[1:]))
    report = ReadReport()
    here = (LOVE, LOVE, other, learning(LOVE, 3), learning(LOVE, 3))
    written = [record for one in here for record in turns.turn_records(one)]
    read = list(turns.read(write(json.dumps(written)), report=report))
    assert [one.messages for one in read] == [one.messages for one in here]
    assert report.read == len(written) == 11


def test_another_trajectory_with_the_same_id_and_a_later_turn_is_not_merged(write):
    other = Trajectory("love", TOOLS, (*LOVE.messages[:2], Message("tool", "Other."), *LOVE.messages[3:]))
    written = turns.turn_records(learning(LOVE, 2)) + turns.turn_records(learning(other, 3))
    assert len(list(turns.read(write(json.dumps(written))))) == 2


def test_other_spellings_of_calls_and_tools_are_read_and_counted(write):
    seed = [
        {"role": "system", "content": STUBS.replace("query: string", "query:str") + "\n\n"},
        TEXTS[1],
        {"role": "assistant", "content": "search(query = 'love') "},
    ]
    report = ReadReport()
    (read,) = turns.read(write(lines({"id": "Turn 1: x", "conversations": seed})), report=report)
    assert read.messages[-1].calls[0].call == Call("search", {"query": "love"}) and render_tools(read.tools) == STUBS
    assert report.notes == {
        "messages: calls rendered differently from the source": 1,
        "system messages: tools rendered differently from the source": 1,
    }


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"id": "love", "conversations": TEXTS}, 'id: expected `Turn {n}: {id}`, found "love"'),
        ({"id": "Turn 2: love", "conversations": TEXTS}, "id: expected `Turn 3: ...`"),
        ({"id": "Turn 3: love", "conversations": TEXTS[:6]}, "conversations: expected an assistant message at the end"),
        ({"id": "Turn 3: love", "conversations": TEXTS[1:]}, 'conversations[0].role: expected system, found "user"'),
        ({"id": "Turn 3: love", "conversations": []}, "conversations[0].role: expected system, found an empty list"),
        (
            {"id": "Turn 1: love", "conversations": [{"role": "system", "content": "Function:\ndef f"}, *TEXTS[1:3]]},
            "conversations[0].content: expected tools as Python stubs",
        ),
    ],
)
def test_a_wrong_turn_record_is_said_with_its_field(write, record, said):
    path = write(lines(record))
    with pytest.raises(RecordError) as caught:
        list(turns.read(path))
    assert str(caught.value).startswith(f"{path}, record 1: {said}")


def test_skipped_turns_leave_the_rest_of_their_trajectory_together(write):
    first, second, third = turns.turn_records(LOVE)
    report = ReadReport()
    (read,) = turns.read(write(lines(first, changed(second, "id", to="?"), third)), "skip", report)
    assert read.messages == learning(LOVE, 1, 3).messages and len(report.skipped) == 1


# --- our own format -------------------------------------------------------------------------------------------------

words = st.text(max_size=12)
names = words.filter(str.strip)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(words, values, max_size=3)
calls = st.builds(ToolCall, st.builds(Call, names, objects), st.booleans(), words)
messages = st.one_of(
    st.builds(Message, st.just("user"), words, learn=st.booleans()),
    st.builds(Message, st.just("tool"), words, learn=st.booleans(), answers=words, is_error=st.none() | st.booleans()),
    st.builds(Message, st.just("assistant"), words, st.lists(calls, max_size=3).map(tuple), words, st.booleans()),
)
schemas = st.fixed_dictionaries(
    {"properties": st.dictionaries(words, st.fixed_dictionaries({"type": words, "description": words}), max_size=2)},
    optional={"required": st.lists(words, max_size=2), "type": st.just("object")},
)
trajectories = st.builds(
    Trajectory,
    words,
    st.lists(st.builds(Tool, names, words, schemas), max_size=2).map(tuple),
    st.lists(messages, max_size=4).map(tuple),
    words,
    objects,
)


OTHER_VERSION = "expected 0, 1 or 2 (a newer tltrain wrote this: read it with that one, or update)"


@given(trajectories)
def test_our_own_lines_read_back_as_they_were(trajectory):
    line = native.dumps(trajectory)
    assert "\n" not in line
    assert list(native.parse(parse_json(line, "line"), 1, Counter())) == [trajectory]


def test_one_call_is_written_as_before_and_several_with_their_own_flags_and_ids():
    kept, dropped = Call("search", {"query": "love"}), Call("search", {"q": 1})
    messages = (
        Message("user", "Hi"),
        Message.calling(dropped, learn=False),
        Message("tool", "Error"),
        Message("assistant", "", (ToolCall(kept, id="a"), ToolCall(dropped, False, "b")), thought="Both."),
        Message("tool", "Error", answers="b"),
        Message("tool", "Listen.", answers="a"),
        Message("assistant", "Bye.", learn=False),
    )
    written = json.loads(native.dumps(Trajectory("x", TOOLS, messages)))
    assert written["version"] == 1
    assert written["messages"][1:] == [
        {"role": "assistant", "content": "", "call": {"name": "search", "arguments": {"q": 1}}, "learn": False},
        {"role": "tool", "content": "Error"},
        {
            "role": "assistant",
            "content": "",
            "thought": "Both.",
            "calls": [
                {"name": "search", "arguments": {"query": "love"}, "id": "a"},
                {"name": "search", "arguments": {"q": 1}, "id": "b", "learn": False},
            ],
        },
        {"role": "tool", "content": "Error", "answers": "b"},
        {"role": "tool", "content": "Listen.", "answers": "a"},
        {"role": "assistant", "content": "Bye.", "learn": False},
    ]


@pytest.mark.parametrize("is_error", [True, False])
def test_an_explicit_outcome_is_written_in_version_2(is_error):
    trajectory = Trajectory("x", TOOLS, (Message.calling(Call("search")), Message("tool", "42", is_error=is_error)))
    written = json.loads(native.dumps(trajectory))
    assert written["version"] == 2 and written["messages"][1] == {"role": "tool", "content": "42", "is_error": is_error}
    assert list(native.parse(written, 1, Counter())) == [trajectory]
    with pytest.raises(FieldError, match='expected "version": 2 in a line that has `is_error`, found version 1'):
        list(native.parse({**written, "version": 1}, 1, Counter()))


VERSION_0 = (
    '{"id": "love", "tools": [{"name": "search", "description": "Finds.", "parameters": {}}], "messages": ['
    '{"role": "user", "content": "Hi"}, '
    '{"role": "assistant", "content": "Hm.", "call": {"name": "search", "arguments": {"q": 1}}, "learn": false}, '
    '{"role": "tool", "content": "Error"}, '
    '{"role": "assistant", "content": "", "call": {"name": "search", "arguments": {}}}, '
    '{"role": "assistant", "content": "Bye.", "learn": false}], "instructions": "Be brief.", "meta": {"level": 1}}'
)
"""A line from before lines had versions."""


@pytest.mark.parametrize("line", [VERSION_0, VERSION_0.replace("{", '{"version": 0, ', 1)])
def test_a_line_without_a_version_is_read(write, line):
    (read,) = read_file(write(line + "\n"), native.parse)
    assert read == Trajectory(
        "love",
        (Tool("search", "Finds.", {}),),
        (
            Message("user", "Hi"),
            Message.calling(Call("search", {"q": 1}), text="Hm.", learn=False),
            Message("tool", "Error"),
            Message.calling(Call("search")),
            Message("assistant", "Bye.", learn=False),
        ),
        "Be brief.",
        {"level": 1},
    )


@pytest.mark.parametrize(("key", "value"), [("calls", []), ("thought", "?"), ("answers", "a")])
def test_a_field_unknown_to_version_0_names_the_version_that_has_it(write, key, value):
    record = changed(json.loads(VERSION_0), "messages", 1, key, to=value)
    with pytest.raises(RecordError, match=rf'messages\[1\]: expected "version": 1 in a line that has `{key}`, found'):
        list(read_file(write(lines(record)), native.parse))


@pytest.mark.parametrize("value", [ANY, float("nan"), float("inf"), object(), {1, 2}, "\ud800"])
def test_what_json_cannot_hold_is_not_written(value):
    golden = Trajectory("x", TOOLS, (Message.calling(Call("search", {"query": value})),))
    with pytest.raises(TltrainError, match="trajectory x: cannot be written as JSON"):
        native.dumps(golden)


@pytest.mark.parametrize(
    ("path", "to", "said"),
    [
        (["extra"], 1, "record: expected the fields version, id, tools, messages, instructions, meta, found extra"),
        (["tools"], "[]", 'tools: expected a list, found "[]"'),
        (
            ["messages", 0, "role"],
            "function",
            'messages[0].role: expected one of user, assistant, tool, found "function"',
        ),
        (
            ["messages", 0, "call"],
            {"name": "f"},
            "messages[0].call: expected a call with role assistant only, found user",
        ),
        (["messages", 1, "call", "arguments"], [], "messages[1].call.arguments: expected an object, found []"),
        (["messages", 1, "learn"], 0, "messages[1].learn: expected true or false, found 0"),
        (["messages", 1, "calls"], [{"name": "f"}], "messages[1]: expected `call` or `calls`, found both"),
        (["messages", 2, "calls"], [], "messages[2].calls: expected calls with role assistant only, found tool"),
        (
            ["messages", 0, "thought"],
            "?",
            "messages[0].thought: expected a thought with role assistant only, found user",
        ),
        (
            ["messages", 1, "answers"],
            "a",
            "messages[1].answers: expected an answer with role tool only, found assistant",
        ),
        (
            ["messages", 1, "call", "weight"],
            1,
            "messages[1].call: expected the fields name, arguments, id, learn, found weight",
        ),
        (["version"], 3, f"version: {OTHER_VERSION}, found 3"),
        (["version"], "1", f'version: {OTHER_VERSION}, found "1"'),
        (["version"], [1], f"version: {OTHER_VERSION}, found [1]"),
        (["version"], True, f"version: {OTHER_VERSION}, found true"),
        (["version"], 0.5, f"version: {OTHER_VERSION}, found 0.5"),
    ],
)
def test_a_malformed_line_of_our_own_is_reported_with_its_field(write, path, to, said):
    file = write(lines(changed(json.loads(native.dumps(LOVE)), *path, to=to)))
    with pytest.raises(RecordError) as caught:
        list(read_file(file, native.parse))
    assert str(caught.value) == f"{file}, record 1: {said}"


# --- one conversation to continue -----------------------------------------------------------------------------------


def test_the_inference_format_of_the_released_readme_is_read(write):
    path = write(
        json.dumps(
            [
                {"role": "System", "content": STUBS + "\n\n"},
                {"role": "User", "content": "Could you give me some advice about 'love'?"},
                {"role": "Assistant", "content": "search(query = 'love') "},
                {"role": "Output", "content": "..."},
            ],
            indent=4,
        )
    )
    tools, history, instructions = read_history(path)
    assert render_tools(tools) == STUBS and instructions == ""
    assert history == (
        Message("user", "Could you give me some advice about 'love'?"),
        Message.calling(Call("search", {"query": "love"})),
        Message("tool", "..."),
    )


def test_chat_completions_messages_with_tools_are_read(write):
    path = write(json.dumps({**CHAT, "messages": CHAT["messages"][:-1]}, indent=1))
    assert read_history(path) == (TOOLS[:1], CHAT_READ[:-1], "Be brief.")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (TEXTS, 'messages, the role of the last of 6: expected one of user, tool, found "assistant"'),
        (TEXTS[:1], "messages: expected a user's message, found none"),
        ([{"role": "System", "content": "Hello"}, TEXTS[1]], "tools: expected at least one tool to call, found none"),
        ([*TEXTS[:2], {"role": "Assistant", "tool_calls": []}], "messages[2].content: expected a string"),
        ({"messages": []}, "tools: expected at least one tool to call, found none"),
        ("hello", 'content: expected a list, found "hello"'),
    ],
)
def test_a_conversation_that_cannot_be_continued_is_one_line(write, content, said):
    path = write(json.dumps(content))
    with pytest.raises(TltrainError) as caught:
        read_history(path)
    assert str(caught.value).startswith(f"{path}: {said}")
