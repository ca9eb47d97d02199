"""The Berkeley function calling leaderboard's multi-turn sets, whose tools are simulators that the package ships.

    data/BFCL_v4_{category}.json                  {"id", "question": [[message], ...], "involved_classes": [class, ...],
                                                   "initial_config": {class: state}, "missed_function": {turn: [name]}}
    data/possible_answer/BFCL_v4_{category}.json  {"id", "ground_truth": [["name(parameter=literal)", ...], ...]}
    data/multi_turn_func_doc/{module}.json        the documentation of a class's methods, one per line

A user says something, the model calls tools, and `finish`, which we add, ends the turn; then the user continues. In
`multi_turn_miss_func` some tools are offered only from the turn in which the user says so; in `multi_turn_miss_param` a
detail comes only when the user is asked again. Until then no call is right, and BFCL does not check the turn.
`multi_turn_long_context` has the base set's questions with far longer answers.

The simulators run in another process (`bfcl_worker`) and are called by name with literals: neither side evaluates text,
whereas BFCL evaluates the text of a call. BFCL's checker decides success by states and answers.

One task of the 800 cannot be solved: multi_turn_miss_func_49 needs `tail` two turns before it is offered. BFCL also
runs tools that are not offered, so it accepts the task's golden calls.
"""

from __future__ import annotations

import ast
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any

from tltrain.config import BfclConversations
from tltrain.data import bfcl
from tltrain.data.reading import expect, expect_choice, expect_tools, member, optional, read_file, records
from tltrain.environments import Environment, Prepared
from tltrain.environments.bfcl_process import Simulators
from tltrain.environments.bfcl_worker import MODULES
from tltrain.errors import FieldError, TltrainError
from tltrain.trajectory import Call, Message, Task, Tool, Turn

log = logging.getLogger(__name__)

EXPECTED_COUNTS = dict.fromkeys(
    ("multi_turn_base", "multi_turn_miss_func", "multi_turn_miss_param", "multi_turn_long_context"), 200
)
"""The multi-turn sets and their numbers of tasks."""

SCENARIOS = {
    "GorillaFileSystem": "file system",
    "VehicleControlAPI": "vehicle",
    "TradingBot": "trading",
    "TravelAPI": "travel",
    "MessageAPI": "messages",
    "TwitterAPI": "posts",
    "TicketAPI": "tickets",
    "MathAPI": "maths",
}
"""Class -> the topic of a task: the first class listed here that it involves. All tasks of the package have one of the
first four."""

FINISH = Tool(
    "finish",
    "End this turn once what the user asked for is done, or cannot be done without more from the user.",
    {
        "type": "object",
        "properties": {
            "answer": {"type": "string", "description": "what to tell the user: the outcome, or what is missing"}
        },
        "required": ["answer"],
    },
)
"""The tool that ends a turn of the conversation; always the last one on offer."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One task as given in the files.

    Attributes:
        tools: documented methods of all classes, in the package's order.
        held_out: tool -> the first turn, from 0, in which it is offered.
        turns: what the user says in each turn.
        golden: the calls of each turn; none if the user has to be asked, or told that it cannot be done.
    """

    id: str
    category: str
    classes: tuple[str, ...]
    config: Mapping[str, Any]
    tools: tuple[Tool, ...]
    held_out: Mapping[str, int]
    turns: tuple[tuple[Message, ...], ...]
    golden: tuple[tuple[Call, ...], ...]

    @property
    def scenario(self) -> Mapping[str, Any]:
        """Return the simulators' initial state."""
        long_context = "long_context" in self.category
        return {"classes": self.classes, "config": self.config, "long_context": long_context}

    def offer(self, turn: int) -> tuple[Tool, ...]:
        """Return the tools on offer in a turn: those held out until then come after the others, `finish` last."""
        always = [tool for tool in self.tools if tool.name not in self.held_out]
        late = [tool for tool in self.tools if self.held_out.get(tool.name, turn + 1) <= turn]
        return (*always, *late, FINISH)


# --- for the registry of environments -------------------------------------------------------------------------------


def tasks(benchmark: BfclConversations, seed: int = 0) -> list[Task]:
    """Return the tasks of `benchmark.categories`.

    `meta` has `category`, `classes`, and `scenario`, by which results are split: the task's topic or, if there are
    several categories, its category. `seed` has no effect: each scenario has its own.

    Raises:
        TltrainError: a category is not a multi-turn set, the package is not installed, its files differ from the
            layout above, or its simulators do not start (reported here, before the first conversation).
    """
    sets = _sets(benchmark)
    _simulators(package(benchmark.path).parent)
    found = []
    for category, entries in sets.items():
        for entry in entries.values():
            about = next(words for name, words in SCENARIOS.items() if name in entry.classes)
            scenario = category if len(sets) > 1 else about
            found.append(Task(entry.id, {"scenario": scenario, "category": category, "classes": list(entry.classes)}))
    return found


def make(benchmark: BfclConversations) -> Callable[[], Environment]:
    """Return a factory of environments, which share the process in which the simulators run.

    Raises:
        TltrainError: see `tasks`.
    """
    entries = {identity: entry for entries in _sets(benchmark).values() for identity, entry in entries.items()}
    simulators = _simulators(package(benchmark.path).parent)
    return lambda: BfclEnvironment(entries, simulators)


def golden_calls(benchmark: BfclConversations, task: Task) -> tuple[tuple[Call, ...], ...]:
    """Return the golden calls of each turn of a task, without `finish`."""
    return _sets(benchmark)[task.meta["category"]][task.id].golden


class BfclTasks(Prepared):
    """The conversations of `benchmark.categories`, for `tltrain.environments.registry`."""

    def __init__(self, benchmark: BfclConversations) -> None:
        self.benchmark = benchmark

    def tasks(self, seed: int) -> list[Task]:
        """Return the tasks; see `tasks`."""
        return tasks(self.benchmark, seed)

    def make(self) -> Callable[[], Environment]:
        """Return what makes an environment; see `make`."""
        return make(self.benchmark)

    def golden(self, task: Task) -> tuple[tuple[Call, ...], ...]:
        """Return the golden calls of each turn of a task."""
        return golden_calls(self.benchmark, task)


def _sets(benchmark: BfclConversations) -> dict[str, Mapping[str, Entry]]:
    """Return the entries by category and id."""
    unknown = [name for name in benchmark.categories if name not in EXPECTED_COUNTS]
    if unknown or not benchmark.categories:
        raise TltrainError(
            f"benchmark.categories: expected some of {', '.join(EXPECTED_COUNTS)}, found {list(benchmark.categories)}"
        )
    folder = package(benchmark.path)
    return {name: read_entries(folder, name) for name in benchmark.categories}


@cache
def _simulators(folder: Path) -> Simulators:
    """Return the process for the package in this folder; it ends with ours."""
    simulators = Simulators(folder)
    simulators.start()
    return simulators


class BfclEnvironment:
    """The world of one conversation: the calls so far, from which the simulators rebuild the state when they run."""

    words_end_turn = True
    """An answer in words, without a call, ends the user's turn, as in BFCL."""

    def __init__(self, entries: Mapping[str, Entry], simulators: Simulators) -> None:
        self._entries, self._simulators = entries, simulators

    def reset(self, task: Task) -> Turn:
        """Begin with the user's first words."""
        self._entry = self._entries[task.id]
        self._calls: list[list[Call | None]] = [[]]
        self._over = False
        return self._turn()

    def call(self, call: Call) -> str:
        """Run a tool on offer in this turn. Any other tool does not exist, even if it is offered later."""
        if call.name not in {tool.name for tool in self._turn().tools} - {FINISH.name}:
            return f"Error during execution: name {call.name!r} is not defined"
        made = self._calls[-1]
        made.append(call)
        try:
            answer = self._simulators.answer(self._entry.scenario, self._calls)
        except (TypeError, ValueError, RecursionError) as error:  # from JSON: not literals
            made[-1] = None
            return f"Error during execution: {error}"
        if answer is None:
            made[-1] = None  # otherwise every later call would end in the same way
            return (
                f"Error during execution: no answer in {self._simulators.seconds:g} seconds, or the tool ended itself"
            )
        return answer

    def follow_up(self, answer: str | None) -> Turn | None:
        """Return the user's next words. As in BFCL, they do not depend on the answer, or on whether there was one."""
        if len(self._calls) == len(self._entry.turns):
            self._over = True
            return None
        self._calls.append([])
        return self._turn()

    def outcome(self) -> Mapping[str, Any]:
        """Return BFCL's verdict `success`, the number of `turns`, and after a failure `turn` (from 1) and the reason.

        `error` is BFCL's name for the failure: `empty_turn_model_response`, `instance_state_mismatch`,
        `execution_response_mismatch`, `force_terminated` for a conversation that broke off, `not_comparable` if the
        checker itself fails; `reason` has the details.
        """
        ended = self._calls if self._over else self._calls[:-1]
        verdict = self._simulators.verdict(self._entry.scenario, ended, self._entry.golden)
        if verdict is None:
            verdict = {"success": False, "turn": None, "error": "not_comparable", "reason": "the checker did not end"}
        return {**verdict, "turns": len(self._entry.turns)}

    def close(self) -> None:
        """Do nothing: the process is shared."""

    def _turn(self) -> Turn:
        turn = len(self._calls) - 1
        return Turn(self._entry.offer(turn), self._entry.turns[turn])


# --- files ----------------------------------------------------------------------------------------------------------


def package(path: str | PathLike[str] | None) -> Path:
    """Return the package's folder, with code and data: `path`, or the installed one, located without importing it.

    Raises:
        TltrainError: there is no such folder, or it has only data.
    """
    folder = bfcl.folder(path).resolve().parent
    code = folder / "eval_checker" / "multi_turn_eval" / "func_source_code"
    if folder.name != bfcl.PACKAGE or not code.is_dir():
        raise TltrainError(
            f"{folder}: benchmark=bfcl_multi runs the simulators of the package bfcl-eval: expected its folder "
            f"{bfcl.PACKAGE}, with data/ and eval_checker/ (pip install --no-deps bfcl-eval)"
        )
    return folder


@cache
def read_entries(folder: Path, category: str) -> Mapping[str, Entry]:
    """Return the tasks of a category by id, in the file's order.

    Raises:
        TltrainError: there are no such files, they do not match each other, or a record differs from the format above.
    """
    questions, answers = bfcl._files(folder / "data", category)
    assert answers is not None  # true only of the single-turn irrelevance sets
    golden = dict(bfcl._answers(answers))
    position = iter(golden)

    def parse(record: Any, number: int, notes: Counter[str]) -> Iterator[Entry]:
        record = expect(record, dict, "record")
        identity = member(record, "id", str)
        if identity != next(position, None):
            raise FieldError("id", f"the one that {answers} has in this place", identity)
        yield _entry(record, golden[identity], folder, category)

    entries = {entry.id: entry for entry in read_file(questions, parse)}
    if len(entries) != len(golden):
        raise TltrainError(f"{answers}: expected {len(entries)} records, as {questions} has, found {len(golden)}")
    if len(entries) != EXPECTED_COUNTS[category]:
        expected = EXPECTED_COUNTS[category]
        log.warning("%s: expected BFCL's %d tasks, found %d: another release?", questions, expected, len(entries))
    return entries


def _entry(record: dict[str, Any], golden: list[Any], folder: Path, category: str) -> Entry:
    """Make a task from its record and its golden calls. Raises FieldError."""
    classes = tuple(
        expect_choice(name, MODULES, f"involved_classes[{i}]")
        for i, name in enumerate(member(record, "involved_classes", list))
    )
    if not classes:
        raise FieldError("involved_classes", "at least one class", "an empty list")
    tools = tuple(tool for name in classes for tool in _documented(folder, name))
    names = [tool.name for tool in tools]
    questions = member(record, "question", list)
    held_out = {
        expect_choice(name, names, f"missed_function.{turn}"): _turn_number(turn, questions)
        for turn, held in optional(record, "missed_function", {}).items()
        for name in expect(held, list, f"missed_function.{turn}")
    }
    if len(golden) != len(questions):
        raise FieldError("question", f"{len(golden)} turns, as ground_truth has", f"{len(questions)} turns")
    return Entry(
        id=record["id"],
        category=category,
        classes=classes,
        config=member(record, "initial_config", dict),
        tools=tools,
        held_out=held_out,
        turns=tuple(_messages(turn, i, i in held_out.values(), folder) for i, turn in enumerate(questions)),
        golden=tuple(
            tuple(bfcl._python_call(expect(text, str, f"ground_truth[{i}]"), tools) for text in calls)
            for i, calls in enumerate(expect(turn, list, "ground_truth") for turn in golden)
        ),
    )


def _turn_number(text: str, questions: list[Any]) -> int:
    if not text.isdecimal() or int(text) >= len(questions):
        raise FieldError("missed_function", f"turns from 0 to {len(questions) - 1}", text)
    return int(text)


def _messages(turn: Any, number: int, more_tools: bool, folder: Path) -> tuple[Message, ...]:
    """Return what the user says in a turn: the file's messages or, if it has none, that there are more tools now."""
    where = f"question[{number}]"
    messages = []
    for i, entry in enumerate(expect(turn, list, where)):
        entry = expect(entry, dict, f"{where}[{i}]")
        expect_choice(entry.get("role"), ["user"], f"{where}[{i}].role")
        messages.append(Message("user", member(entry, "content", str, f"{where}[{i}]")))
    if not messages and not more_tools:
        raise FieldError(where, "a user's message, or tools that are new in this turn", "neither")
    return tuple(messages) or (Message("user", _more_tools(folder)),)


@cache
def _documented(folder: Path, name: str) -> tuple[Tool, ...]:
    """Return the tools of a class."""
    path = folder / "data" / "multi_turn_func_doc" / f"{MODULES[name]}.json"
    try:
        entries = [bfcl.function(record, "record") for _, record in records(path)]
        return expect_tools(entries, "functions", Counter())
    except FieldError as error:
        raise TltrainError(f"{path}: {error}") from None


@cache
def _more_tools(folder: Path) -> str:
    """Return BFCL's words for more tools being on offer, read from the package's source without importing it."""
    path, name = folder / "constants" / "default_prompts.py", "DEFAULT_USER_PROMPT_FOR_ADDITIONAL_FUNCTION_FC"
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
        return next(
            expect(ast.literal_eval(node.value), str, name)
            for node in body
            if isinstance(node, ast.Assign) and any(getattr(target, "id", None) == name for target in node.targets)
        )
    except (OSError, SyntaxError, ValueError, StopIteration):
        raise TltrainError(f"{path}: expected a text {name}, found none") from None
