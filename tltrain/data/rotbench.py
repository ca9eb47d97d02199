"""RoTBench as released (github.com/Junjie-Ye/RoTBench, `Data/`): tool documentation at five levels of noise.

    first_turn/{level}.json    a query and the accepted golden calls
    third_turn/{level}.json    a query, two calls with the tools' answers, and the accepted golden third calls

A record is `{"id", "scenario", "conversations": [{"from", "value"}, ...]}`. The system message contains the tools as a
JSON list, an assistant's message has three lines `Thought: ...`, `Action: name`, `Action Input: {json}`, and the last
message is a list of such texts, each of them accepted. Ids repeat (up to twice in a file), so ours consist of the file
and the record's position, from 1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from tltrain.config import OnError
from tltrain.data import nearby
from tltrain.data.reading import (
    Parse,
    ReadReport,
    T,
    expect,
    expect_choice,
    expect_tools,
    member,
    parse_json,
    parse_json_at,
    read_file,
    records,
    shown,
)
from tltrain.errors import FieldError, TltrainError
from tltrain.trajectory import ANY, Call, Message, Role, Sample, Tool, Trajectory

NOISE_LEVELS = ("clean", "slight", "medium", "heavy", "union")
EXPECTED_COUNTS = {
    "first": dict(zip(NOISE_LEVELS, (105, 210, 210, 210, 105), strict=True)),
    "third": dict(zip(NOISE_LEVELS, (70, 140, 140, 140, 70), strict=True)),
}
"""Number of records in each file of the release."""

ROLES: Mapping[str, Role] = {"user": "user", "assistant": "assistant", "function": "tool"}
ANY_VALUE = "None"
"""A golden value that accepts any predicted value."""

_TURN_FOLDERS = ("first_turn", "third_turn")
_BEFORE_TOOLS = "following tools:\n"
_AFTER_QUERY = "\nBegin!\n"
_STEP = re.compile(r"Thought:(.*?)\nAction:([^\n]*)\nAction Input:(.*)", re.DOTALL)


def read_training(
    path: str | PathLike[str],
    levels: Sequence[str] = ("clean",),
    on_error: OnError | str = OnError.stop,
    report: ReadReport | None = None,
    check_counts: bool = True,
) -> Iterator[Trajectory]:
    """Yield the third-turn trajectories of the given levels.

    The last call is the first accepted one that states every value. If there is none, it is the first, and its "None"
    (any value is accepted) is kept. A call that the user answers (`ask_to_user`) keeps that answer as a user's message.
    `meta["open_parameters"]` lists the parameters of the last two tools, `ask_to_user` and `finish`: text to the user.

    Args:
        path: the folder that holds `first_turn` and `third_turn`.
        check_counts: raise unless a level has as many records as in the release.
    """

    def parse(record: Any, number: int, notes: Counter[str]) -> Iterator[Trajectory]:
        found = _parse(record, notes)
        golden = next((call for call in found.goldens if ANY_VALUE not in call.arguments.values()), None)
        if golden is None:
            golden = found.goldens[0]
            notes['goldens: "None" (any value) learned literally'] += 1
        if len(found.goldens) > 1:
            notes["goldens: accepted calls besides the one learned"] += len(found.goldens) - 1
        yield Trajectory(
            f"third_turn/{level}/{number}",
            found.tools,
            (*found.messages, Message.calling(golden)),
            meta={
                "scenario": found.scenario,
                "level": level,
                "turn": 3,
                "query": found.query,
                "open_parameters": [f"{tool.name}.{name}" for tool in found.tools[-2:] for name in tool.properties],
            },
        )

    for level in levels:
        yield from _read_level(path, "third", level, parse, on_error, report, check_counts)


def read_samples(
    path: str | PathLike[str],
    levels: Sequence[str] = ("clean",),
    turns: Sequence[str] = ("first", "third"),
    on_error: OnError | str = OnError.stop,
    report: ReadReport | None = None,
    check_counts: bool = True,
) -> Iterator[Sample]:
    """Yield the benchmark's samples, turn by turn and level by level; a golden value "None" becomes `ANY`.

    `meta` has `scenario`, `level`, `turn` (`first` or `third`) and `query`; `finish_tool` and `ask_tool`, the names of
    `finish` and `ask_to_user` in this sample (noise renames them; they are the last tool and the one before it); and
    `query_in_third_turn`, whether the query also occurs in the third-turn training data (absent without those files).
    """
    third_turn_queries: frozenset[str] | None = None

    def parse(record: Any, number: int, notes: Counter[str]) -> Iterator[Sample]:
        found = _parse(record, notes)
        if len(found.tools) < 2:
            raise FieldError("conversations[0].value", "at least two tools, ask_to_user and finish", len(found.tools))
        meta: dict[str, Any] = {
            "scenario": found.scenario,
            "level": level,
            "turn": turn,
            "query": found.query,
            "finish_tool": found.tools[-1].name,
            "ask_tool": found.tools[-2].name,
        }
        if third_turn_queries is not None:
            meta["query_in_third_turn"] = found.query in third_turn_queries
        goldens = tuple(
            Call(call.name, {name: ANY if value == ANY_VALUE else value for name, value in call.arguments.items()})
            for call in found.goldens
        )
        yield Sample(f"{turn}_turn/{level}/{number}", found.tools, found.messages, goldens, meta=meta)

    for turn in turns:
        for level in levels:
            third_turn_queries = _third_turn_queries(path, level)
            yield from _read_level(path, turn, level, parse, on_error, report, check_counts)


# --- files ----------------------------------------------------------------------------------------------------------


def check_place(path: str | PathLike[str], turns: Iterable[str], levels: Iterable[str]) -> None:
    """Raise a TltrainError if the file of a turn and level does not exist."""
    levels = list(levels)
    for turn in turns:
        for level in levels:
            _level_file(path, turn, level)


def _turn_folder(path: str | PathLike[str], turn: str) -> Path | None:
    """Find the folder `first_turn` or `third_turn`, in any case (the release has `First_Turn`)."""
    try:
        folders = [folder for folder in Path(path).iterdir() if folder.is_dir()]
    except OSError as error:
        raise TltrainError(
            f"{path}: expected a folder with first_turn and third_turn (RoTBench's Data), found: {error.strerror}"
            f"{nearby.folder_hint(path, _TURN_FOLDERS)}"
        ) from None
    return next((folder for folder in folders if folder.name.lower() == f"{turn}_turn"), None)


def _level_file(path: str | PathLike[str], turn: str, level: str) -> Path:
    if turn not in EXPECTED_COUNTS:
        raise TltrainError(f"RoTBench's turns are {', '.join(EXPECTED_COUNTS)}; found {turn}")
    folder = _turn_folder(path, turn)
    if folder is None:
        hint = nearby.folder_hint(path, [f"{turn}_turn"])
        raise TltrainError(f"{path}: expected a folder {turn}_turn in it (RoTBench's Data){hint}")
    there = [name for name in NOISE_LEVELS if (folder / f"{name}.json").is_file()]
    if level not in there:
        raise TltrainError(f"{folder}: expected {level}.json; the levels there are {', '.join(there) or 'none'}")
    return folder / f"{level}.json"


def _read_level(
    path: str | PathLike[str],
    turn: str,
    level: str,
    parse: Parse[T],
    on_error: OnError | str,
    report: ReadReport | None,
    check_counts: bool,
) -> Iterator[T]:
    file = _level_file(path, turn, level)
    expected = EXPECTED_COUNTS[turn][level]
    count = sum(1 for _ in records(file)) if check_counts else expected
    if count != expected:
        raise TltrainError(f"{file}: expected RoTBench's {expected} records, found {count}")
    yield from read_file(file, parse, on_error, report)


def _third_turn_queries(path: str | PathLike[str], level: str) -> frozenset[str] | None:
    """Return the queries of the level's third-turn file or of another's (they are the same); None if none exists."""
    folder = _turn_folder(path, "third")
    files = [folder / f"{name}.json" for name in (level, *NOISE_LEVELS)] if folder else []
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return None
    return frozenset(read_file(file, lambda record, number, notes: [_parse(record, notes).query], "skip"))


# --- records --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Record:
    tools: tuple[Tool, ...]
    messages: tuple[Message, ...]
    goldens: tuple[Call, ...]
    scenario: str

    @property
    def query(self) -> str:
        return self.messages[0].text


def _parse(record: Any, notes: Counter[str]) -> _Record:
    record = expect(record, dict, "record")
    conversation = member(record, "conversations", list)
    if len(conversation) < 3:
        raise FieldError("conversations", "a system message, a query and golden calls", f"{len(conversation)} messages")
    pairs = [_pair(message, f"conversations[{i}]") for i, message in enumerate(conversation)]
    roles = [role for role, _ in pairs]
    if (roles[0], roles[1], roles[-1]) != ("system", "user", "assistant"):
        raise FieldError("conversations", "a system message, a query, ..., golden calls", ", ".join(roles))
    tools = _tools(expect(pairs[0][1], str, "conversations[0].value"), notes)
    messages = tuple(
        _message(role, expect(value, str, f"conversations[{i}].value"), f"conversations[{i}]", notes)
        for i, (role, value) in enumerate(pairs[1:-1], 1)
    )
    where = f"conversations[{len(pairs) - 1}].value"
    accepted = expect(pairs[-1][1], list, where)
    if not accepted:
        raise FieldError(where, "at least one golden call", "an empty list")
    goldens = tuple(_step(expect(text, str, f"{where}[{i}]"), f"{where}[{i}]")[1] for i, text in enumerate(accepted))
    return _Record(tools, messages, goldens, member(record, "scenario", str))


def _pair(message: Any, where: str) -> tuple[str, Any]:
    message = expect(message, dict, where)
    role = expect_choice(message.get("from"), ["system", *ROLES], f"{where}.from")
    if "value" not in message:
        raise FieldError(f"{where}.value", "a string", "no such field")
    return role, message["value"]


def _tools(text: str, notes: Counter[str]) -> tuple[Tool, ...]:
    """Parse the tools in a system message. The text around them describes a format other than ours and is dropped."""
    before, marker, after = text.partition(_BEFORE_TOOLS)
    if not marker:
        raise FieldError("conversations[0].value", "the words `following tools:` and a JSON list", before)
    entries, _ = parse_json_at(after, 0, "conversations[0].value, tools")
    notes["system messages: RoTBench's text around the tools not kept"] += 1
    return expect_tools(entries, "conversations[0].value, tools", notes)


def _message(role: str, text: str, where: str, notes: Counter[str]) -> Message:
    if role == "system":
        raise FieldError(f"{where}.from", f"one of {', '.join(ROLES)}", role)
    if role != "assistant":
        return Message(ROLES[role], text.removesuffix(_AFTER_QUERY) if role == "user" else text)
    thought, call = _step(text, f"{where}.value")
    if thought:
        notes["messages: thoughts are not in the TL format"] += 1
    return Message.calling(call, thought=thought)


def _step(text: str, where: str) -> tuple[str, Call]:
    """Parse the thought and the call of `Thought: ...\\nAction: name\\nAction Input: {json}`."""
    step = _STEP.fullmatch(text)
    if step is None or not step[2].strip():
        raise FieldError(where, "lines `Thought:`, `Action: name`, `Action Input: {json}`", shown(text))
    arguments = expect(parse_json(step[3], f"{where}, Action Input"), dict, f"{where}, Action Input")
    return step[1].strip(), Call(step[2].strip(), arguments)
