"""A user's own tools: the documented functions of a Python file, and a file of tasks for them.

    benchmark.module    a Python file. Each public function or named method (`python_module`) is a tool: its docstring
                        says what it does, and under `Args:` what each parameter means; type hints give the schema
                        (`transformers.utils.get_json_schema`). Functions whose names begin with `_`, and those that
                        check outcomes, are not tools.
    benchmark.path      JSON lines, one task per line:
        question        what the user says
        calls           golden calls, as text `order(book="Dune")` or as {"name", "arguments"}
        answer          a text, a number or a list of them that the answer to the user has to state
        check           a function of the module that returns true or false, whether the outcome is right; it gets the
                        answer to the user if it has a parameter `answer`, and is called once beforehand

The last three fields are optional. A task is solved if its answer is stated and its check returns true; with only
golden calls, if they are made, in any order, and no other call succeeds; with none of the three, nobody can tell. All
other fields are kept in `Task.meta`, and results are split by its `scenario`.

The functions run in a `Sandbox`, one process per conversation, so each conversation has its own state (the module's
variables). A call has failed if the function raises or returns an object that states an `error`. A call that dies or
hangs is answered with an error, and the next call gets a freshly loaded module. Tools that draw random numbers or read
the clock do not repeat.
"""

from __future__ import annotations

import inspect
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tltrain.config import PythonToolsConversations
from tltrain.data.reading import expect, member, optional, read_file, rest, shown
from tltrain.environments import Environment, Prepared, python_module
from tltrain.environments.sandbox import Isolation, Limits, Sandbox, isolation
from tltrain.environments.sandbox_library import readable
from tltrain.environments.sandbox_machine import tool_user
from tltrain.errors import FieldError, TltrainError, suggestion
from tltrain.formats.calls import CallSyntaxError, read_call
from tltrain.grading import grade
from tltrain.toolworld.environment import Fact, missing_facts
from tltrain.trajectory import FINISH, Call, Message, Task, Tool, Turn

log = logging.getLogger(__name__)

END = Tool(
    FINISH,
    "End the task and give the user the answer.",
    {
        "type": "object",
        "properties": {"answer": {"type": "string", "description": "The answer, in a short sentence."}},
        "required": ["answer"],
    },
)
FIELDS = ("question", "calls", "answer", "check", "id")
ERROR = "Error: "
"""The beginning of a sandbox's errors; a text that a tool returns begins with a quotation mark."""
LONGER = "; benchmark.time_limit=SECONDS gives it more time"


@dataclass(frozen=True, slots=True)
class Problem:
    """A line of the file of tasks. `golden` is None if the line has no `calls`."""

    question: str
    golden: tuple[Call, ...] | None
    facts: tuple[Fact, ...]
    check: str | None
    meta: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Toolbox:
    """A module's tools, and tasks for them.

    Attributes:
        tools: the tools on offer; `finish` is the last.
        hears_answer: for each function that checks outcomes, whether it has a parameter `answer`.
    """

    file: Path
    tools: tuple[Tool, ...]
    hears_answer: Mapping[str, bool]
    problems: Mapping[str, Problem]

    @property
    def callable(self) -> frozenset[str]:
        """Return the functions that may be called in the sandbox."""
        return frozenset(tool.name for tool in self.tools[:-1]) | frozenset(self.hears_answer)


# --- what the registry asks for ---------------------------------------------------------------------------------------


def tasks(benchmark: PythonToolsConversations, seed: int) -> list[Task]:
    """Return the tasks of `benchmark.path` in their order.

    Raises:
        TltrainError: a file is missing, the module cannot be imported, a function is not documented, or a task does not
            have the form that this module describes.
    """
    return [Task(identity, problem.meta) for identity, problem in _toolbox(benchmark).problems.items()]


def golden_calls(benchmark: PythonToolsConversations, task: Task) -> tuple[tuple[Call, ...], ...]:
    """Return the golden calls of a task's only turn, and `finish` with its answer; nothing if there are none."""
    problem = _toolbox(benchmark).problems[task.id]
    if problem.golden is None:
        return ()
    answer = ", ".join(map(str, problem.facts)) or "Done."
    return ((*problem.golden, Call(FINISH, {"answer": answer})),)


def isolated(benchmark: PythonToolsConversations) -> Isolation:
    """Return this machine's isolation of the tools. Raises TltrainError if it is weaker than `benchmark.isolation`."""
    return isolation(str(benchmark.isolation), benchmark.network)


def make(benchmark: PythonToolsConversations) -> Callable[[], Environment]:
    """Return a factory of environments, after the module has been loaded once as it will be for conversations.

    Raises:
        TltrainError: see `tasks`; the module cannot be loaded in the sandbox, or this machine's isolation is weaker
            than `benchmark.isolation`.
    """
    toolbox, level = _toolbox(benchmark), isolated(benchmark).level
    folder = toolbox.file.parent
    limits = Limits(seconds=benchmark.time_limit, memory=benchmark.memory_limit, output=benchmark.max_output)
    source = readable(folder, tool_user(level))

    def session() -> Sandbox:
        return Sandbox(folder, toolbox.file.stem, toolbox.callable, limits, benchmark.network, level, source)

    with session() as trial:
        if (problem := trial.loaded()) is not None:
            raise TltrainError(
                f"benchmark.module={benchmark.module}: cannot be loaded where tools run, without network and other "
                f"files: {problem.removeprefix(ERROR)}{LONGER if 'took longer than' in problem else ''}"
            )
        for check in toolbox.hears_answer:
            _tell(check, toolbox, trial, "", " before any call is made")
    log.info("the tools of %s are %s", toolbox.file.name, ", ".join(tool.name for tool in toolbox.tools))
    return lambda: PythonTools(toolbox, session)


class PythonToolsTasks(Prepared):
    """The conversations with a user's Python tools, for `tltrain.environments.registry`."""

    def __init__(self, benchmark: PythonToolsConversations) -> None:
        self.benchmark = benchmark

    def tasks(self, seed: int) -> list[Task]:
        """Return the tasks; see `tasks`."""
        return tasks(self.benchmark, seed)

    def make(self) -> Callable[[], Environment]:
        """Return what makes an environment; see `make`."""
        return make(self.benchmark)

    def golden(self, task: Task) -> tuple[tuple[Call, ...], ...]:
        """Return the golden calls of a task; see `golden_calls`."""
        return golden_calls(self.benchmark, task)

    def isolation(self) -> Isolation:
        """Return this machine's isolation of the tools; see `isolated`."""
        return isolated(self.benchmark)


class PythonTools:
    """The world of one task: the module in its own process, which starts with the first call."""

    def __init__(self, toolbox: Toolbox, session: Callable[[], Sandbox]) -> None:
        self._toolbox, self._session = toolbox, session
        self._problem: Problem | None = None
        self._sandbox: Sandbox | None = None
        self._answer: str | None = None
        self._made: list[Call] = []
        self.failed: bool | None = None
        """Whether the last call was answered with an error."""

    def reset(self, task: Task) -> Turn:
        """Begin with the question."""
        self.close()
        self._problem, self._sandbox = self._toolbox.problems[task.id], self._session()
        self._answer, self._made = None, []
        return Turn(self._toolbox.tools, (Message("user", self._problem.question),))

    def call(self, call: Call) -> str:
        """Return what the function returns, as JSON, or an error as text."""
        _, sandbox = self._conversation()
        if call.name not in {tool.name for tool in self._toolbox.tools[:-1]}:
            self.failed = True
            return f"{ERROR}there is no tool named {call.name}"
        answer = sandbox.call(call.name, call.arguments)
        if answer.startswith(ERROR) and (kind := _UNWRITABLE.match(answer)):
            _warn_of_result(self._toolbox.file, call.name, kind[1])
        self.failed = answer.startswith(ERROR) or _states_error(answer)
        if not self.failed:
            self._made.append(call)
        return answer

    def follow_up(self, answer: str | None) -> None:
        """Record the answer to the user, who says nothing more."""
        self._answer = answer or ""

    def outcome(self) -> Mapping[str, Any]:
        """Return `success`, and whether each of `answer`, `check` and `calls` that decides it is right.

        Raises:
            TltrainError: the function that checks the outcome raises, or returns neither true nor false.
        """
        problem, _ = self._conversation()
        found: dict[str, Any] = {}
        if problem.facts:
            found["missing"] = missing_facts(self._answer or "", problem.facts)
            found["answer"] = self._answer is not None and not found["missing"]
        if problem.check is not None:
            found["check"] = self._checked(problem.check)
        if not found and problem.golden is not None:
            found["calls"] = _same(self._made, problem.golden, self._toolbox.tools)
        verdicts = [found[name] for name in ("answer", "check", "calls") if name in found]
        return {"success": all(verdicts) if verdicts else None, **found}

    def close(self) -> None:
        """End the tools' process."""
        if self._sandbox is not None:
            self._sandbox.close()
        self._sandbox = self._problem = None

    def _checked(self, check: str) -> bool:
        _, sandbox = self._conversation()
        return _tell(check, self._toolbox, sandbox, self._answer or "")

    def _conversation(self) -> tuple[Problem, Sandbox]:
        if self._problem is None or self._sandbox is None:
            raise RuntimeError("`reset` starts a conversation; none has been started")
        return self._problem, self._sandbox


def _tell(check: str, toolbox: Toolbox, sandbox: Sandbox, answer: str, when: str = "") -> bool:
    """Return what a function of the module says about the outcome.

    Raises:
        TltrainError: it raises, hangs, or returns neither true nor false.
    """
    verdict = sandbox.call(check, {"answer": answer} if toolbox.hears_answer[check] else {})
    if verdict in ("true", "false"):
        return verdict == "true"
    found = f"it failed: {verdict.removeprefix(ERROR)}" if verdict.startswith(ERROR) else f"found {verdict}"
    raise TltrainError(f"{toolbox.file}: {check}{when}: expected True or False whatever the model does, {found}")


_UNWRITABLE = re.compile(r"Error: Object of type (\S+) is not JSON serializable$")


@cache
def _warn_of_result(file: Path, name: str, kind: str) -> None:
    """Warn once that a function returns what a model cannot be shown."""
    log.warning(
        "%s: %s returned a value of type %s, which JSON cannot hold: the call counts as the model's error; return "
        "text, numbers, lists, objects, dataclasses or pydantic models",
        *(file, name, kind),
    )


def _states_error(answer: str) -> bool:
    """Return whether a result is an object whose `error` is neither empty nor false, as many tools report theirs."""
    if not answer.startswith("{"):
        return False
    try:
        return bool(json.loads(answer).get("error"))
    except (ValueError, RecursionError):  # it was cut
        return False


def _same(made: Sequence[Call], golden: Sequence[Call], tools: Sequence[Tool]) -> bool:
    """Return whether the calls are the golden ones, in any order."""
    left = list(golden)
    for call in made:
        equal = next((one for one in left if grade(call, one, tools).cf), None)
        if equal is None:
            return False
        left.remove(equal)
    return not left


# --- files ------------------------------------------------------------------------------------------------------------


def _toolbox(benchmark: PythonToolsConversations) -> Toolbox:
    for name in ("module", "path"):
        if getattr(benchmark, name) is None:
            raise TltrainError(
                "benchmark=python_tools runs tools of your own: give benchmark.module=my_tools.py and "
                "benchmark.path=tasks.jsonl"
            )
    file = Path(str(benchmark.module))
    if not file.is_file():
        raise TltrainError(f"benchmark.module={file}: there is no such file")
    if file.suffix != ".py" or not file.stem.isidentifier():
        raise TltrainError(f"benchmark.module={file}: expected a Python file such as my_tools.py")
    versions = tuple(Path(path).stat().st_mtime_ns for path in (file, str(benchmark.path)) if Path(path).exists())
    return _read(file.resolve(), str(benchmark.path), versions)


@cache
def _read(file: Path, path: str, versions: tuple[int, ...]) -> Toolbox:
    """Read both files; `versions` change with them."""
    functions = python_module.functions(file)
    checks = {}
    for line in read_file(path, _check_names):
        if line is not None:
            if line not in functions:
                near = suggestion(line, functions)
                raise TltrainError(f"{path}: check: expected a function of {file.name}, found {line}{near}")
            checks[line] = "answer" in inspect.signature(functions[line]).parameters
    tools = {name: function for name, function in functions.items() if name not in checks}
    offered = (*python_module.offered(file, tools), END)
    problems: dict[str, Problem] = {}

    def parse(record: Any, number: int, notes: Counter[str]) -> Iterator[tuple[str, Problem]]:
        record = expect(record, dict, "record")
        identity = str(record.get("id", f"{Path(path).stem}/{number}"))
        if identity in problems:
            raise FieldError("id", "another one in each record", identity)
        yield identity, _problem(record, offered, file)

    for identity, problem in read_file(path, parse):
        problems[identity] = problem
    return Toolbox(file, offered, checks, problems)


def _check_names(record: Any, number: int, notes: Counter[str]) -> list[str | None]:
    return [optional(expect(record, dict, "record"), "check", "") or None]


def _problem(record: dict[str, Any], tools: Sequence[Tool], file: Path) -> Problem:
    calls = optional(record, "calls", [])
    golden = [_golden(entry, f"calls[{i}]", tools, file) for i, entry in enumerate(calls)]
    answer = record.get("answer")
    facts = [] if answer is None else answer if isinstance(answer, list) else [answer]
    for fact in facts:
        if isinstance(fact, bool) or not isinstance(fact, str | int | float):
            raise FieldError("answer", "a text, a number or a list of them", shown(answer))
    return Problem(
        question=member(record, "question", str),
        golden=None if record.get("calls") is None else tuple(call for call in golden if call.name != FINISH),
        facts=tuple(facts),
        check=optional(record, "check", "") or None,
        meta=rest(record, *FIELDS),
    )


def _golden(entry: Any, where: str, tools: Sequence[Tool], file: Path) -> Call:
    if isinstance(entry, str):
        try:
            call = read_call(entry)
        except CallSyntaxError as error:
            raise FieldError(where, "a call such as order(book='Dune')", f"{entry} ({error})") from None
    else:
        entry = expect(entry, dict, where)
        call = Call(member(entry, "name", str, where), optional(entry, "arguments", {}, where))
    names = [tool.name for tool in tools]
    if call.name not in names:
        raise FieldError(where, f"a call of a tool of {file.name}", f"{call.name}{suggestion(call.name, names)}")
    if wrong := grade(call, None, tools).contradictions:
        raise FieldError(where, f"a call as {file.name} documents it", f"{entry} ({'; '.join(wrong)})")
    return call
