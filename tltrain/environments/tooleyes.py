"""ToolEyes (github.com/Junjie-Ye/ToolEyes): 382 queries in 7 scenarios, with Python tools that really run.

    Test_Data/scenario_data_zero_processed.json    the queries, each with the tools it is offered
    Tool_Library/Category/Name/tool.py             Python functions
    Tool_Library/Category/Name/config_gpt4.json    their documentation, a list of OpenAI's functions

A record is `{"id", "conversations": [system, user], "path": "ToolEyes/Tool_Library/Category/Name", "scenario"}`; the
tools are a JSON list in the system message. The text around them asks for a format other than ours and is dropped. `id`
repeats the query, and two records share theirs with another, so our ids are `Category/Name/number`, with the record's
number in the file, from 1. Three of the 95 tool sets document a name twice; both stubs are shown, as in the release.

We answer `finish` and `ask_to_user` ourselves. Everything else runs in a `Sandbox`, one process per conversation: most
tools are stateless, but those of Wikidata number their results and refer to them later. Answers are what ToolEyes shows
a model, the returned value as JSON; if a tool fails, `Error: ` and the exception's message. Most tools query services
on the internet, many with a key that the model must state: without the network, or without the packages that they
import, they answer with errors.

Only a user can tell whether a query was met, so `success` is None.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tltrain.config import ToolEyesConversations
from tltrain.data import nearby
from tltrain.data.reading import expect, expect_tools, member, optional, parse_json_at, read_file, read_json
from tltrain.environments import Environment, Prepared
from tltrain.environments.sandbox import Isolation, Limits, Sandbox, isolation
from tltrain.environments.sandbox_library import readable
from tltrain.environments.sandbox_machine import tool_user
from tltrain.errors import FieldError, TltrainError
from tltrain.trajectory import Call, Message, Task, Tool, Turn

log = logging.getLogger(__name__)

QUERIES = "scenario_data_zero_processed.json"
EXPECTED_COUNTS = {"queries": 382, "modules": 95}
"""Counts of the release. A library with fewer modules is a different one, whose number of queries is not checked."""

FINISH = Tool(
    "finish",
    "Ends the task with the final answer.",
    {
        "type": "object",
        "properties": {"answer": {"type": "string", "description": "The answer to the user's request."}},
        "required": ["answer"],
    },
)
ASK = Tool(
    "ask_to_user",
    "Asks the user for information without which the task cannot be done.",
    {
        "type": "object",
        "properties": {"question": {"type": "string", "description": "What to ask the user."}},
        "required": ["question"],
    },
)
NOTHING_TO_ADD = "I have nothing to add; please go on with what I have told you."
"""The user's reply with `benchmark.user=rule`, and to a question that a file of answers does not answer."""

_BEFORE_TOOLS = "following tools:\n"
_FOLDER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")


# --- the queries ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Query:
    """One record: the user's request, with tools of one module, `(category, name)`."""

    id: str
    text: str
    tools: tuple[Tool, ...]
    module: tuple[str, str]
    scenario: str


def tasks(benchmark: ToolEyesConversations, seed: int) -> list[Task]:
    """Return a task for each query, in the order of the file; `meta`: `scenario`, `category`, `module`, `query`.

    Raises:
        TltrainError: there is no `benchmark.path`, or its files differ from the release.
    """
    return [
        Task(
            query.id,
            {
                "scenario": query.scenario,
                "category": query.module[0],
                "module": "/".join(query.module),
                "query": query.text,
            },
        )
        for query in _queries(_folder(benchmark))[: benchmark.limit]
    ]


def _folder(benchmark: ToolEyesConversations) -> Path:
    if benchmark.path is None:
        raise TltrainError("benchmark=tooleyes reads a checkout of ToolEyes: give benchmark.path=FOLDER")
    return Path(benchmark.path)


def _queries(folder: Path) -> list[Query]:
    """Return the queries of a checkout, or of a folder that has only their file; their number is checked."""
    file = next((file for file in (folder / "Test_Data" / QUERIES, folder / QUERIES) if file.is_file()), None)
    if file is None:
        hint = nearby.folder_hint(folder, ["Test_Data", QUERIES])
        raise TltrainError(f"benchmark.path={folder}: expected a checkout of ToolEyes, with Test_Data/{QUERIES}{hint}")
    queries = list(read_file(file, _parse))
    root = folder / "Tool_Library"
    modules = len(list(root.glob("*/*/tool.py"))) if root.is_dir() else EXPECTED_COUNTS["modules"]
    if modules >= EXPECTED_COUNTS["modules"] and len(queries) != EXPECTED_COUNTS["queries"]:
        raise TltrainError(f"{file}: expected ToolEyes' {EXPECTED_COUNTS['queries']} queries, found {len(queries)}")
    return queries


def _parse(record: Any, number: int, notes: Counter[str]) -> list[Query]:
    record = expect(record, dict, "record")
    messages = member(record, "conversations", list)
    said = [expect(message, dict, f"conversations[{i}]") for i, message in enumerate(messages)]
    if [message.get("from") for message in said] != ["system", "user"]:
        raise FieldError("conversations", "a message from system and one from user", [m.get("from") for m in said])
    system, text = (member(message, "value", str, f"conversations[{i}]") for i, message in enumerate(said))
    before, marker, after = system.partition(_BEFORE_TOOLS)
    if not marker:
        raise FieldError("conversations[0].value", "the words `following tools:` and a JSON list", before)
    entries, _ = parse_json_at(after, 0, "conversations[0].value, tools")
    tools = expect_tools(entries, "conversations[0].value, tools", notes)
    names = {tool.name for tool in tools}
    tools += tuple(tool for tool in (ASK, FINISH) if tool.name not in names)
    module = _module(member(record, "path", str))
    return [Query(f"{module[0]}/{module[1]}/{number}", text, tools, module, member(record, "scenario", str))]


def _module(path: str) -> tuple[str, str]:
    """Return category and name of `.../Tool_Library/Category/Name`; both must be plain folder names."""
    *before, category, name = ["", "", *path.split("/")]
    if "" in before[2:] or ".." in before or not all(map(_FOLDER_NAME.fullmatch, (category, name))):
        raise FieldError("path", "a folder like ToolEyes/Tool_Library/Category/Name", path)
    return category, name


# --- the tools ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Library:
    """The modules of a `Tool_Library` that queries need, and the names of the functions that each documents."""

    root: Path
    functions: Mapping[tuple[str, str], frozenset[str]]

    @classmethod
    def read(cls, root: Path, queries: list[Query]) -> Library:
        """Return the library at `root`.

        Raises:
            TltrainError: a module is missing, is outside the library, or has unreadable documentation.
        """
        if not root.is_dir():
            raise TltrainError(f"{root}: there is no such folder; benchmark=tooleyes runs the tools of a checkout")
        root = root.resolve()
        functions = {module: _documented(root, module) for module in dict.fromkeys(query.module for query in queries)}
        offered = {(query.module, tool.name) for query in queries for tool in query.tools}
        missing = sorted(
            f"{'/'.join(module)}: {name}"
            for module, name in offered
            if name not in functions[module] | {FINISH.name, ASK.name}
        )
        if missing:
            log.warning("%s: %d tools on offer are not documented there, first %s", root, len(missing), missing[0])
        return cls(root, functions)


def _documented(root: Path, module: tuple[str, str]) -> frozenset[str]:
    """Return the functions that a module's `config_gpt4.json` names."""
    folder = root.joinpath(*module)
    for file in (folder / "tool.py", folder / "config_gpt4.json"):
        if not file.is_file():
            raise TltrainError(f"{file}: there is no such file, but a query needs the tools of {'/'.join(module)}")
        if not file.resolve().is_relative_to(root):
            raise TltrainError(f"{file}: expected a file of the library, found a link to {file.resolve()}")
    try:
        tools = expect_tools(read_json(folder / "config_gpt4.json"), "tools", Counter())
    except FieldError as error:
        raise TltrainError(f"{folder / 'config_gpt4.json'}: {error}") from None
    return frozenset(tool.name for tool in tools) - {FINISH.name, ASK.name}


def isolated(benchmark: ToolEyesConversations) -> Isolation:
    """Return this machine's isolation of the tools.

    Raises:
        TltrainError: it is weaker than `benchmark.isolation`.
    """
    return isolation(str(benchmark.isolation), benchmark.network)


def make(benchmark: ToolEyesConversations) -> Callable[[], Environment]:
    """Return a factory of environments; the library, the user and the machine are checked now.

    Raises:
        TltrainError: the library or the user's answers are malformed, the tools' user cannot read the library, or the
            machine's isolation is weaker than `benchmark.isolation`.
    """
    level = isolated(benchmark).level
    folder = _folder(benchmark)
    queries = _queries(folder)
    by_id = {query.id: query for query in queries}
    library = Library.read(folder / "Tool_Library", queries)
    user = User.read(benchmark.user, by_id)
    limits = Limits(seconds=benchmark.time_limit, memory=benchmark.memory_limit, output=benchmark.max_output)
    source = readable(library.root, tool_user(level))
    complained: set[str] = set()

    def session(query: Query) -> Sandbox:
        functions = library.functions[query.module] & {tool.name for tool in query.tools}
        module = ".".join((*query.module, "tool"))
        return Sandbox(library.root, module, functions, limits, benchmark.network, level, source)

    return lambda: ToolEyes(by_id, session, user, complained)


class ToolEyesTasks(Prepared):
    """The conversations of ToolEyes, for `tltrain.environments.registry`."""

    def __init__(self, benchmark: ToolEyesConversations) -> None:
        self.benchmark = benchmark

    def tasks(self, seed: int) -> list[Task]:
        """Return the tasks; see `tasks`."""
        return tasks(self.benchmark, seed)

    def make(self) -> Callable[[], Environment]:
        """Return what makes an environment; see `make`."""
        return make(self.benchmark)

    def isolation(self) -> Isolation:
        """Return this machine's isolation of the tools; see `isolated`."""
        return isolated(self.benchmark)


class ToolEyes:
    """The world of one query: its module, in a process of its own that starts with the first call."""

    def __init__(
        self,
        queries: Mapping[str, Query],
        session: Callable[[Query], Sandbox],
        user: User,
        complained: set[str],
    ) -> None:
        self._queries, self._session, self._user, self._complained = queries, session, user, complained
        self._query: Query | None = None
        self._sandbox: Sandbox | None = None
        self._ask: Callable[[str], str] = str

    def reset(self, task: Task) -> Turn:
        """Return the query and its tools."""
        self.close()
        if task.id not in self._queries:
            raise TltrainError(f"task {task.id}: not a query of benchmark.path")
        self._query = query = self._queries[task.id]
        self._ask = self._user.begin(query)
        self._sandbox = self._session(query)
        return Turn(query.tools, (Message("user", query.text),))

    def call(self, call: Call) -> str:
        """Return the tool's answer, or the user's."""
        if self._query is None or self._sandbox is None:
            return "Error: the conversation has not begun"
        if call.name == FINISH.name:
            return ""
        if call.name == ASK.name:
            return self._ask(str(next(iter(call.arguments.values()), "")))
        answer = self._sandbox.call(call.name, call.arguments)
        module = "/".join(self._query.module)
        if self._sandbox.load_error and module not in self._complained:
            self._complained.add(module)
            log.warning("the tools of %s cannot be loaded and answer: %s", module, self._sandbox.load_error)
        return answer

    def follow_up(self, answer: str | None) -> None:
        """Return None: the user says nothing more."""
        return None

    def outcome(self) -> Mapping[str, Any]:
        """Return that success cannot be judged."""
        return {"success": None}

    def close(self) -> None:
        """End the tools' process."""
        if self._sandbox is not None:
            self._sandbox.close()
        self._sandbox = self._query = None


# --- the user -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class User:
    """Answers `ask_to_user`: by a rule, from a file, or from a person at the terminal."""

    answers: Mapping[str, tuple[tuple[str | None, str], ...]]
    """Query id -> (question, answer) pairs; the question is None if the answer is for any question."""
    terminal: bool = False

    @classmethod
    def read(cls, user: str, ids: Mapping[str, Any]) -> User:
        """Read `rule`, `terminal`, or a file of JSON lines `{"id", "question" (may be left out), "answer"}`."""
        if user == "rule":
            return cls({})
        if user == "terminal":
            if not sys.stdin.isatty():
                raise TltrainError("benchmark.user=terminal: standard input is not a terminal; expected rule or a file")
            return cls({}, terminal=True)
        if not Path(user).is_file():
            raise TltrainError(f"benchmark.user={user}: expected rule, terminal, or a file of answers")

        def parse(record: Any, number: int, notes: Counter[str]) -> list[tuple[str, str | None, str]]:
            id_ = member(expect(record, dict, "record"), "id", str)
            if id_ not in ids:
                raise FieldError("id", f"that of a query, like {next(iter(ids), 'Category/Name/1')}", id_)
            return [(id_, optional(record, "question", "") or None, member(record, "answer", str))]

        answers: dict[str, tuple[tuple[str | None, str], ...]] = {}
        for id_, question, answer in read_file(user, parse):
            answers[id_] = (*answers.get(id_, ()), (question, answer))
        return cls(answers)

    def begin(self, query: Query) -> Callable[[str], str]:
        """Return a function that gives the user's reply to each question of one conversation.

        From a file it is the answer to this very question (ignoring case and spaces), else the next one for any
        question.
        """
        if self.terminal:
            return lambda question: _ask_on_terminal(query, question) or NOTHING_TO_ADD
        given = self.answers.get(query.id, ())
        fitting = {_plain(question): answer for question, answer in given if question is not None}
        for_any = iter([answer for question, answer in given if question is None])
        return lambda question: fitting.get(_plain(question)) or next(for_any, NOTHING_TO_ADD)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


_terminal = threading.Lock()


def _ask_on_terminal(query: Query, question: str) -> str:
    """Return a line from the terminal. The model's control characters must not reach it: they are shown as escapes."""
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in question)
    with _terminal:
        try:
            return input(f"\n[{query.id}] {query.text}\nThe model asks: {shown}\nYour answer: ").strip()
        except (EOFError, UnicodeDecodeError):
            return ""
