"""RoTBench's release: third-turn trajectories for training, and the benchmark's samples."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.support.paths import ROTBENCH, needs_rotbench
from tests.support.rotbench_records import FIRST, SYSTEM, THIRD, message, step
from tltrain.data import rotbench
from tltrain.data.reading import ReadReport
from tltrain.errors import RecordError, TltrainError
from tltrain.formats.calls import read_call, render_call
from tltrain.trajectory import ANY, Call, Message

LEVELS = ["clean", "slight", "heavy", "union"]


OTHER = {**FIRST, "conversations": [SYSTEM, message("user", "Find y.\nBegin!\n"), *FIRST["conversations"][2:]]}


@pytest.fixture
def release(tmp_path):
    """A small folder in the release's layout; `write` replaces the records of a file."""

    def write(turn, level, records):
        folder = tmp_path / f"{turn}_turn"
        folder.mkdir(exist_ok=True)
        (folder / f"{level}.json").write_text(json.dumps(records))

    write("first", "clean", [FIRST, OTHER])
    write("third", "clean", [THIRD])
    return tmp_path, write


def train(path, **options):
    return list(rotbench.read_training(path, check_counts=False, **options))


def samples(path, **options):
    return list(rotbench.read_samples(path, check_counts=False, **options))


def test_a_third_turn_becomes_a_trajectory_that_ends_in_the_first_golden_with_every_value_stated(release):
    report = ReadReport()
    (read,) = train(release[0], report=report)
    assert read.id == "third_turn/clean/1"
    assert read.messages == (
        Message("user", "Find x."),
        Message.calling(Call("ask", {"q": "Which\nx?"}), thought="Which?"),
        Message("user", "That one.\n"),
        Message.calling(Call("find", {"q": "None"})),
        Message("tool", "error"),
        Message.calling(Call("find", {"q": "it"})),
    )
    assert [tool.name for tool in read.tools] == ["find", "ask", "end"] and read.instructions == ""
    known = {"scenario": "PL", "level": "clean", "turn": 3, "query": "Find x."}
    # Text to the user is open text, whatever names the noise gives these two tools.
    assert read.meta == known | {"open_parameters": ["ask.q", "end.q"]}
    assert report.notes == {
        "system messages: RoTBench's text around the tools not kept": 1,
        "messages: thoughts are not in the TL format": 1,
        "goldens: accepted calls besides the one learned": 2,
    }


def test_if_every_golden_call_contains_none_the_first_is_learned_literally(release):
    path, write = release
    third = json.loads(json.dumps(THIRD))
    third["conversations"][-1]["value"] = [step("find", q="None", limit=3), step("end", q="None")]
    write("third", "clean", [third])
    report = ReadReport()
    assert train(path, report=report)[0].messages[-1].calls[0].call == Call("find", {"q": "None", "limit": 3})
    assert report.notes['goldens: "None" (any value) learned literally'] == 1


def test_samples_keep_every_golden_and_none_accepts_anything(release):
    first, other, third = samples(release[0])
    assert [sample.id for sample in (first, other, third)] == [
        "first_turn/clean/1",
        "first_turn/clean/2",
        "third_turn/clean/1",
    ]
    assert first.goldens == (Call("find", {"q": "x", "limit": ANY}), Call("end", {"q": "None of it"}))
    assert first.messages == (Message("user", "Find x."),) and len(third.messages) == 5
    assert first.meta == {
        "scenario": "PL",
        "level": "clean",
        "turn": "first",
        "query": "Find x.",
        "finish_tool": "end",
        "ask_tool": "ask",
        "query_in_third_turn": True,
    }
    assert (other.meta["query_in_third_turn"], third.meta["query_in_third_turn"]) == (False, True)
    assert third.meta["turn"] == "third"


def test_the_folders_may_have_the_capitals_of_the_release(release):
    path, _ = release
    (path / "first_turn").rename(path / "First_Turn")
    assert len(samples(path, turns=["first"])) == 2


def test_without_third_turn_files_seen_queries_are_unknown(tmp_path):
    (tmp_path / "first_turn").mkdir()
    (tmp_path / "first_turn" / "clean.json").write_text(json.dumps([FIRST]))
    (sample,) = samples(tmp_path, turns=["first"])
    assert "query_in_third_turn" not in sample.meta


def test_a_missing_level_is_named_with_those_that_exist(release):
    path, _ = release
    with pytest.raises(TltrainError, match=r"third_turn: expected medium\.json; the levels there are clean$"):
        train(path, levels=["clean", "medium"])
    with pytest.raises(TltrainError, match="expected a folder third_turn in it"):
        train(path / "first_turn")
    with pytest.raises(TltrainError, match="expected a folder with first_turn and third_turn"):
        train(path / "nowhere")
    with pytest.raises(TltrainError, match="turns are first, third; found second"):
        samples(path, turns=["second"])


def test_another_number_of_records_than_the_release_has_is_an_error(release):
    path, _ = release
    with pytest.raises(TltrainError, match=r"clean\.json: expected RoTBench's 70 records, found 1$"):
        next(rotbench.read_training(path))
    with pytest.raises(TltrainError, match=r"clean\.json: expected RoTBench's 105 records, found 2$"):
        next(rotbench.read_samples(path))


def broken(*path, to):
    copy = json.loads(json.dumps(THIRD))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return copy


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (broken("scenario", to=None), "scenario: expected a string, found null"),
        (broken("conversations", to=[SYSTEM]), "conversations: expected a system message, a query and golden calls"),
        (broken("conversations", 0, to=message("user", "x")), "conversations: expected a system message, a query, ..."),
        (broken("conversations", 0, "value", to="x"), "conversations[0].value: expected the words `following tools:`"),
        (
            broken("conversations", 0, "value", to="following tools:\n[{]"),
            "conversations[0].value, tools: expected valid JSON",
        ),
        (broken("conversations", 3, "from", to="human"), "conversations[3].from: expected one of system, user, "),
        (broken("conversations", 5, to={"from": "function"}), "conversations[5].value: expected a string, found no"),
        (broken("conversations", 4, "value", to="find(q)"), "conversations[4].value: expected lines `Thought:`, "),
        (
            broken("conversations", 4, "value", to="Thought:\nAction: find\nAction Input: {'q': 1}"),
            "conversations[4].value, Action Input: expected valid JSON",
        ),
        (
            broken("conversations", 4, "value", to="Thought:\nAction: find\nAction Input: [1]"),
            "conversations[4].value, Action Input: expected an object, found [1]",
        ),
        (broken("conversations", 6, "value", to=[]), "conversations[6].value: expected at least one golden call"),
        (broken("conversations", 6, "value", to="x"), 'conversations[6].value: expected a list, found "x"'),
        (broken("conversations", 6, "value", 1, to="x"), "conversations[6].value[1]: expected lines `Thought:`, "),
    ],
)
def test_a_wrong_record_is_said_with_file_record_and_field_or_skipped_and_listed(release, record, said):
    path, write = release
    write("third", "clean", [THIRD, record])
    with pytest.raises(RecordError) as caught:
        train(path)
    assert str(caught.value).startswith(f"{path / 'third_turn' / 'clean.json'}, record 2: {said}")
    report = ReadReport()
    assert len(train(path, on_error="skip", report=report)) == 1
    assert report.skipped == [str(caught.value)] and report.read == 1


@needs_rotbench
def test_every_record_of_the_release_reads():
    report = ReadReport()
    read = list(rotbench.read_samples(ROTBENCH, LEVELS, report=report))
    assert Counter((sample.meta["turn"], sample.meta["level"]) for sample in read) == {
        ("first", "clean"): 105,
        ("first", "slight"): 210,
        ("first", "heavy"): 210,
        ("first", "union"): 105,
        ("third", "clean"): 70,
        ("third", "slight"): 140,
        ("third", "heavy"): 140,
        ("third", "union"): 70,
    }
    assert len({sample.id for sample in read}) == len(read) == report.read
    assert all(sample.goldens and sample.messages[-1].role in ("user", "tool") for sample in read)
    assert {sample.meta["finish_tool"] for sample in read if sample.meta["level"] == "clean"} == {"finish"}
    assert {sample.meta["ask_tool"] for sample in read if sample.meta["level"] == "clean"} == {"ask_to_user"}


@needs_rotbench
def test_seventy_of_a_levels_queries_are_third_turn_queries_too():
    for level, seen, unseen in (("clean", 70, 35), ("slight", 140, 70)):
        read = rotbench.read_samples(ROTBENCH, [level], turns=["first"])
        assert Counter(sample.meta["query_in_third_turn"] for sample in read) == {True: seen, False: unseen}


@needs_rotbench
def test_the_releases_training_trajectories_end_in_a_golden_call():
    read = list(rotbench.read_training(ROTBENCH, LEVELS))
    assert len(read) == 70 + 140 + 140 + 70
    for trajectory in read:
        last = trajectory.messages[-1]
        assert sum(len(message.calls) for message in trajectory.messages) == 3
        assert last.calls[0].call.name in {tool.name for tool in trajectory.tools}
        assert "None" not in last.calls[0].call.arguments.values()


@needs_rotbench
def test_the_releases_calls_survive_the_tl_format():
    for trajectory in rotbench.read_training(ROTBENCH, LEVELS):
        for call in (made.call for turn in trajectory.messages for made in turn.calls):
            assert read_call(render_call(call)) == call
