"""The released file of prompts and golden calls (`data=irm`): its trajectories, and which lines begin a message."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.irm_records import PROMPT, RECORD
from tests.support.paths import ROTBENCH, needs_rotbench
from tests.support.reader_samples import STUBS, TOOLS, changed, lines, writer
from tltrain import toolworld
from tltrain.data import irm, rotbench
from tltrain.data.reading import ReadReport, read_file
from tltrain.errors import RecordError
from tltrain.formats import joined
from tltrain.formats.calls import render_call
from tltrain.formats.tl import TL
from tltrain.trajectory import Call, Message, Tool, Trajectory, actions

HISTORY = (
    Message("user", "Advice on love?"),
    Message.calling(Call("search", {"q": "love"}), learn=False),
    Message("tool", "search() got an unexpected keyword argument 'q'"),
    Message.calling(Call("search", {"query": "löve", "limit": 2}), learn=False),
    Message("tool", "Listen."),
)
GOLDEN = Message.calling(Call("finish", {"answer": 'Listen "well".'}))
KEPT = "messages: lines that look like the start of a message, kept as text"
REWRITTEN = "instructions: text rendered differently from the source"


@pytest.fixture
def write(tmp_path):
    return writer(tmp_path)


def read(prompt: str, output: str = "finish(answer=1)") -> tuple[Trajectory, Counter[str]]:
    """Return the trajectory of one record, and the notes."""
    notes: Counter[str] = Counter()
    (trajectory,) = irm.parse({"instruction": prompt, "output": output}, 1, notes)
    return trajectory, notes


def said(trajectory: Trajectory) -> list[tuple[str, str]]:
    """Return the history's messages as (role, text)."""
    return [(m.role, render_call(m.calls[0].call) if m.calls else m.text) for m in trajectory.messages[:-1]]


def prompt_of(trajectory: Trajectory, messages: tuple[Message, ...]) -> str:
    return joined(TL.prompt_segments(replace(trajectory, messages=messages)))


# --- records to trajectories ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [json.dumps([RECORD]), lines(RECORD)])
def test_a_record_becomes_a_trajectory_whose_last_call_alone_is_learned(write, content):
    report = ReadReport()
    (trajectory,) = read_file(write(content), irm.parse, report=report)
    assert trajectory.messages == (*HISTORY, GOLDEN)
    assert [tool.name for tool in trajectory.tools] == ["search", "finish"]
    assert trajectory.tools[0].required == ("query",) and trajectory.tools[0].properties["limit"]["type"] == "integer"
    assert joined(TL.prompt_segments(replace(trajectory, messages=HISTORY))) == PROMPT
    assert (trajectory.id, report.notes) == ("1", {})


@pytest.mark.parametrize(
    ("prompt", "output"),
    [
        (f"\n {PROMPT}", RECORD["output"]),
        (f"{PROMPT} \n", f" {RECORD['output']}"),
        (PROMPT, f"{RECORD['output']}</s>"),
        (PROMPT, f"\n{RECORD['output']} </s>\n</s> "),
        (PROMPT.removesuffix("\nAssistant:"), RECORD["output"]),
        (PROMPT.removesuffix("Assistant:"), RECORD["output"]),
    ],
)
def test_space_around_the_last_marker_and_end_tokens_make_no_difference(prompt, output):
    trajectory, notes = read(prompt, output)
    assert trajectory.messages == (*HISTORY, GOLDEN) and not notes


def test_other_fields_are_kept_and_instructions_stand_before_the_tools(write):
    record = {"id": 7, "split": "a", **RECORD, "instruction": PROMPT.replace("System: ", "System: Be brief.\n\n")}
    (trajectory,) = read_file(write(lines(record)), irm.parse)
    assert (trajectory.id, trajectory.meta, trajectory.instructions) == ("7", {"split": "a"}, "Be brief.")


def test_a_history_of_only_a_question():
    trajectory, notes = read(f"System: {STUBS}\nUser: Hi\nAssistant:")
    assert said(trajectory) == [("user", "Hi")] and not notes


def test_other_spellings_are_read_and_counted():
    manner = PROMPT.replace("query: string", "query:str").replace('search(q="love")', "search(q = 'love') ")
    trajectory, notes = read(manner, "finish(answer='x')")
    assert trajectory.messages[:-1] == HISTORY
    assert prompt_of(trajectory, HISTORY) == PROMPT
    assert notes == {
        "system messages: tools rendered differently from the source": 1,
        "messages: calls rendered differently from the source": 2,
        REWRITTEN: 1,
    }


def test_a_golden_call_of_a_tool_that_is_not_on_offer_is_counted():
    trajectory, notes = read(PROMPT, "stop(code=1)")
    assert trajectory.messages[-1] == Message.calling(Call("stop", {"code": 1}))
    assert notes == {"outputs: calls of a tool that is not on offer": 1}


# --- which lines are messages ---------------------------------------------------------------------------------------

CALL, ANSWER = "search(query=1)", "finish(answer=1)"


@pytest.mark.parametrize(
    ("history", "messages"),
    [
        # A line of a user or a tool that only looks like a message of a role that cannot speak there.
        ("User: a\nOutput: b\nUser: c", [("user", "a\nOutput: b\nUser: c")]),
        (
            f"User: a\nAssistant: {CALL}\nOutput: b\nUser: bob\nOutput: c",
            [("user", "a"), ("assistant", CALL), ("tool", "b\nUser: bob\nOutput: c")],
        ),
        # A quoted dialogue: the assistant's line is neither a call nor answered by a user; or text follows its call.
        (
            f"User: a\nAssistant: Hello (you)!\nAssistant: {CALL}\nOutput: b",
            [("user", "a\nAssistant: Hello (you)!"), ("assistant", CALL), ("tool", "b")],
        ),
        (
            f"User: a\nAssistant: Hello.\nOutput: none\nAssistant: {CALL}\nOutput: b",
            [("user", "a\nAssistant: Hello.\nOutput: none"), ("assistant", CALL), ("tool", "b")],
        ),
        (f"User: Why\nAssistant: {ANSWER}\nfails?", [("user", f"Why\nAssistant: {ANSWER}\nfails?")]),
        ("User: a\nAssistant:\nOutput:", [("user", "a\nAssistant:\nOutput:")]),
        # Not markers, because the space or the line break is missing.
        ("User: a User: b\nUser:c\nuser: d\n User: e", [("user", "a User: b\nUser:c\nuser: d\n User: e")]),
        # Messages: text that a user answers, a call before the user or before the next call, a call of an unknown tool.
        (
            "User: a\nAssistant: Which (one)?\nUser: b",
            [("user", "a"), ("assistant", "Which (one)?"), ("user", "b")],
        ),
        (
            f"User: a\nAssistant: {CALL}\nUser: b\nAssistant: {CALL}\nAssistant: {ANSWER}\nOutput: c",
            [
                ("user", "a"),
                ("assistant", CALL),
                ("user", "b"),
                *[("assistant", c) for c in (CALL, ANSWER)],
                ("tool", "c"),
            ],
        ),
        ("User: a\nAssistant: f(x=1)\nOutput: b", [("user", "a"), ("assistant", "f(x=1)"), ("tool", "b")]),
        # Content may be empty or end in line breaks.
        (f"User: \nAssistant: {CALL}\nOutput: b\n\n", [("user", ""), ("assistant", CALL), ("tool", "b\n\n")]),
        (f"User: a\nAssistant: {CALL}\nOutput: ", [("user", "a"), ("assistant", CALL), ("tool", "")]),
    ],
)
def test_a_line_is_a_message_where_its_role_may_speak(history, messages):
    prompt = f"System: {STUBS}\n{history}\nAssistant:"
    trajectory, notes = read(prompt)
    assert said(trajectory) == messages
    assert prompt_of(trajectory, trajectory.messages[:-1]) == prompt
    assert REWRITTEN not in notes


def test_lines_kept_as_text_are_counted():
    _, notes = read(f"System: {STUBS}\nUser: a\nUser: b\nOutput: c\nAssistant: {CALL}\nOutput: d\nAssistant:")
    assert notes == {KEPT: 2}


def test_a_line_break_within_a_calls_string_ends_nothing():
    trajectory, notes = read(f'System: {STUBS}\nUser: a\nAssistant: search(query="b\nUser: c")\nOutput: d\nAssistant:')
    assert trajectory.messages[1].calls[0].call == Call("search", {"query": "b\nUser: c"})
    assert said(trajectory)[2:] == [("tool", "d")]
    assert notes[KEPT] == notes[REWRITTEN] == 1  # rendering the call again escapes the line break


def test_end_tokens_within_the_history_are_left_out_and_counted():
    trajectory, notes = read(PROMPT.replace("limit=2)", "limit=2)</s>"))
    assert trajectory.messages[:-1] == HISTORY and notes[REWRITTEN] == 1


@pytest.mark.parametrize("description", ["Asks.\nUser: who is asked", 'Quotes\n    """\nUser: x'])
@pytest.mark.parametrize("names", [(), ("who",)])
def test_documentation_may_contain_lines_that_look_like_a_role(description, names):
    properties = {name: {"type": "string", "description": "Who.\nUser: or\nAssistant: "} for name in names}
    tool = Tool("ask", description, {"type": "object", "properties": properties, "required": []})
    trajectory = Trajectory("1", (tool, *TOOLS), (Message("user", "Hi"),))
    back, notes = read(prompt_of(trajectory, trajectory.messages))
    assert (back.tools[0], said(back)) == (tool, [("user", "Hi")])
    assert REWRITTEN not in notes


def test_documentation_in_another_spelling_may_contain_such_lines_too():
    stub = 'Function:\ndef now():\n    """\n    The time.\nUser: whoever asks.\n    """\n\n'
    trajectory, notes = read(f"System: {stub}\nUser: Hi\nAssistant:", "now()")
    assert trajectory.tools[0].description == "The time.\nUser: whoever asks."
    assert said(trajectory) == [("user", "Hi")] and notes[REWRITTEN] == 1


def test_a_message_without_text_may_lack_the_space_behind_its_role():
    trajectory, notes = read(f"System: {STUBS}\nUser:\nAssistant: {CALL}\nOutput:\nAssistant:")
    assert said(trajectory) == [("user", ""), ("assistant", CALL), ("tool", "")] and notes == {REWRITTEN: 1}


ROLE_LINES = ("\nUser: ", "\nAssistant: ", "\nOutput: ")
PIECES = ("\n", " ", "System: ", '"""', "love", "f(", ")", "</s>", STUBS, ANSWER, 'search(query="a")')
contents = st.lists(st.sampled_from(ROLE_LINES + PIECES), max_size=6).map("".join)


@given(contents, st.lists(st.tuples(st.sampled_from([CALL, ANSWER, "f(x=1)"]), contents), max_size=3))
def test_the_text_is_unchanged_unless_a_call_is_rendered_differently(query, rounds):
    answered = "".join(f"\nAssistant: {call}\nOutput: {answer}" for call, answer in rounds)
    prompt = f"System: {STUBS}\nUser: {query}{answered}\nAssistant:"
    trajectory, notes = read(prompt)
    assert [tool.name for tool in trajectory.tools] == ["search", "finish"]
    again = prompt_of(trajectory, trajectory.messages[:-1])
    assert again == prompt or notes["messages: calls rendered differently from the source"]
    assert (again != prompt) == (REWRITTEN in notes)


# --- round trips ----------------------------------------------------------------------------------------------------


def calls_of(message):
    return [made.call for made in message.calls]


def assert_pairs_read_back(trajectories):
    """Check that each call with its history, written as a record, reads back with equal text, messages and call."""
    count = 0
    for trajectory in trajectories:
        for action in actions(trajectory.messages):
            history = replace(trajectory, messages=trajectory.messages[: action.at])
            prompt = prompt_of(history, history.messages)
            back, notes = read(prompt, render_call(action.call))
            assert prompt_of(back, back.messages[:-1]) == prompt
            assert [(m.role, calls_of(m)) for m in back.messages[:-1]] == [
                (m.role, calls_of(m)) for m in history.messages
            ]
            assert back.messages[-1] == Message.calling(action.call)
            assert not notes.keys() - {"outputs: calls of a tool that is not on offer"}
            count += 1
    return count


def test_pairs_written_from_toolworld_read_back():
    assert assert_pairs_read_back(toolworld.generate(40, 0, 0.3)) > 120


@needs_rotbench
def test_pairs_written_from_rotbench_read_back():
    """Its noisy levels have tools and parameters with arbitrary characters in their names."""
    assert assert_pairs_read_back(rotbench.read_training(ROTBENCH, ["clean", "union"])) == 2 * 3 * 70


# --- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "to", "error"),
    [
        ([], "text", 'record: expected an object, found "text"'),
        (["instruction"], ["a"], 'instruction: expected a string, found ["a"]'),
        (["output"], None, "output: expected a string, found null"),
        (["output"], "I cannot (sorry).", 'output: expected a call, `name(parameter=value, ...)`, found "I cannot'),
        (["output"], "", 'output: expected a call, `name(parameter=value, ...)`, found ""'),
        (["instruction"], "User: Hi\nAssistant:", "instruction: expected `System:` and the tools at its start, found"),
        (["instruction"], "", 'instruction: expected `System:` and the tools at its start, found ""'),
        (
            ["instruction"],
            f"System: {STUBS}\nAssistant:",
            "instruction: expected a line `User: ...` below the tools, found none",
        ),
        (
            ["instruction"],
            "System: Be brief.\nUser: Hi\nAssistant:",
            'instruction: expected tools as Python stubs between `System:` and `User:`, found "Be brief."',
        ),
        (
            ["instruction"],
            'System: Function:\ndef f(a: string):\n    """\n    F.\n    """\nUser: Hi\nAssistant:',
            "instruction: expected tools as Python stubs, found tool documentation: `f(a: string)`",
        ),
        (
            ["instruction"],
            f"{PROMPT} search",
            "instruction: expected a user's message, a tool's answer or an empty `Assistant:` at its end, "
            'found "Assistant: search"',
        ),
    ],
)
def test_a_malformed_record_is_reported_with_file_record_and_field(write, path, to, error):
    file = write(lines(RECORD, changed(RECORD, *path, to=to) if path else to))
    with pytest.raises(RecordError) as caught:
        list(read_file(file, irm.parse))
    assert str(caught.value).startswith(f"{file}, record 2: {error}") and "\n" not in str(caught.value)


@pytest.mark.parametrize("field", ["instruction", "output"])
def test_a_missing_field_is_reported(write, field):
    file = write(lines({key: value for key, value in RECORD.items() if key != field}))
    with pytest.raises(RecordError, match=f"record 1: {field}: expected a string, found no such field"):
        list(read_file(file, irm.parse))


# --- the command line -----------------------------------------------------------------------------------------------

BROKEN = {**RECORD, "output": "none"}


def test_every_golden_call_is_kept_by_mae_and_no_call_of_a_history(tltrain, write):
    ran = tltrain("stage=mae", "data=irm", f"data.path={write(json.dumps([RECORD, RECORD]))}")
    counts = {"records_read": 2, "trajectories": 2, "calls": 6, "kept": 2, "not_learned_by_source": 4}
    assert ran.metrics.items() >= counts.items()
    for line in ran.lines("train.jsonl"):
        calls = [m for m in line["messages"] if m["role"] == "assistant"]
        assert [m.get("learn", True) for m in calls] == [False, False, True]
        assert calls[-1]["call"] == {"name": "finish", "arguments": {"answer": 'Listen "well".'}}


def test_a_mistake_ends_in_one_line_and_skip_goes_on(tltrain, write):
    path = write(lines(RECORD, BROKEN))
    words = ["stage=mae", "data=irm", f"data.path={path}"]
    ran = tltrain(*words, status=1)
    assert f"{path}, record 2: output: expected a call" in ran.err and "Traceback" not in ran.err
    ran = tltrain(*words, "data.on_error=skip")
    assert (ran.metrics["records_read"], ran.metrics["records_skipped"], ran.metrics["kept"]) == (1, 1, 1)


def test_a_missing_path_is_reported(tltrain):
    assert "data=irm reads a file: give data.path=PATH" in tltrain("stage=mae", "data=irm", status=1).err


def test_supervised_training_learns_the_golden_calls_alone(tltrain, write):
    path = write(json.dumps([RECORD, RECORD]))
    words = ["model=tiny", "hardware.bf16=false", "data.holdout=0", "stage.args.max_steps=1"]
    ran = tltrain("stage=sft", "data=irm", f"data.path={path}", *words)
    assert ran.metrics["train"]["turns"] == 2
