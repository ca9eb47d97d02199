"""benchmark=python_tools: a user's own functions, their schemas, their state, and the errors of their files."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable

import pytest
from omegaconf import OmegaConf

from tests.support.composition import composed
from tests.support.environment_samples import says
from tests.support.mae_rules import STRICT
from tltrain.config import PythonToolsConversations
from tltrain.environments import python_tools, registry
from tltrain.environments.golden import GoldenCalls
from tltrain.environments.loop import Conversation, ConversationSettings, converse
from tltrain.errors import TltrainError
from tltrain.trajectory import Call

pytestmark = pytest.mark.slow

MODULE = '''
"""Lamps."""
import json as _json
from dataclasses import dataclass
from typing import Literal

on = []


def switch(lamp: str, state: Literal["on", "off"] = "on") -> str:
    """Switch a lamp.

    Args:
        lamp: Its name.
        state: Whether it is on.
    """
    on.append(lamp) if state == "on" else on.remove(lamp)
    return f"{lamp} is {state}"


def count() -> int:
    """Count the lamps that are on."""
    return len(on)


def hang() -> None:
    """Wait for ever."""
    while True:
        pass


def _right(answer: str) -> bool:
    return on == ["a"] and "one" in answer


def _perhaps():
    return "perhaps"


def _first() -> bool:
    return on[0] == "a"


def _late(answer: str) -> bool:
    return not on or on[1] == answer
'''


@pytest.fixture
def files(tmp_path) -> Callable[..., OmegaConf]:
    """`files(*tasks, module=MODULE, **keys)` returns the keys of a benchmark over these files."""

    def write(*tasks: dict, module: str = MODULE, **keys):
        (tmp_path / "lamps.py").write_text(textwrap.dedent(module))
        (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
        paths = {"module": str(tmp_path / "lamps.py"), "path": str(tmp_path / "tasks.jsonl"), "time_limit": 1.0}
        schema = OmegaConf.structured(PythonToolsConversations)
        return OmegaConf.merge(schema, {"name": "python_tools", **paths, **keys})

    return write


def hold(benchmark, *said: str, **settings) -> list[Conversation]:
    """Hold a conversation about each task, all with these answers."""
    world = registry.World(benchmark)
    world.prepare()
    return converse(
        world.tasks(0), world.environment, says(*said), ConversationSettings(max_turns=9, **settings), parallel=4
    )


def question(text: str = "Switch on a.", **fields) -> dict:
    return {"question": text, **fields}


def test_documented_functions_are_the_tools_and_finish_is_one_more(files):
    (found,) = hold(files(question(check="_right", scenario="lamps")), 'finish(answer="")')
    switch, count, _, finish = found.tools
    assert [tool.name for tool in found.tools] == ["switch", "count", "hang", "finish"]
    assert (switch.description, count.description) == ("Switch a lamp.", "Count the lamps that are on.")
    assert switch.properties["state"] == {"type": "string", "enum": ["on", "off"], "description": "Whether it is on."}
    assert switch.required == ("lamp",) and finish.required == ("answer",)
    assert (found.task.id, dict(found.task.meta)) == ("tasks/1", {"scenario": "lamps"})


def test_state_is_the_conversations_own(files):
    found = hold(files(question(), question()), 'switch(lamp="a")', "count()", 'finish(answer="")')
    assert [[m.text for m in one.messages if m.role == "tool"] for one in found] == [['"a is on"', "1"]] * 2


def test_an_error_or_a_hang_costs_a_turn_and_not_the_conversation(files):
    (found,) = hold(
        files(question()), 'switch(lamp="a", state="off")', "hang()", "count()", 'finish(answer="")', rule=None
    )
    assert [call.error is not None for call in found.calls] == [True, True, False, False]
    assert found.messages[2].text == "Error: list.remove(x): x not in list"
    assert "took longer than 1 s" in found.messages[4].text
    assert found.ended == "finish"


def test_an_object_that_states_an_error_is_an_error_of_the_tool(files):
    module = '''
def find(title: str) -> dict:
    """Find a book.

    Args:
        title: Its title.
    """
    return {"Dune": {"error": ""}, "Emma": {"error": "sold out"}}.get(title) or "Error: none"
'''
    said = [f'find(title="{title}")' for title in ("Dune", "Emma", "Errors")]
    (found,) = hold(files(question(calls=[said[0]]), module=module), *said, 'finish(answer="")', rule=STRICT)
    assert [call.ce for call in found.calls] == [False, True, False, False]
    assert found.outcome["success"] is False  # the third call ran and is not golden


OF_MANY_KINDS = '''
import datetime, decimal, enum, functools, pathlib
from dataclasses import dataclass

@dataclass
class Lamp:
    name: str
    since: datetime.date

class _Room:
    def __init__(self): self.lamps = []
    def add(self, name: str) -> int:
        """Add a lamp.

        Args:
            name: Its name.
        """
        self.lamps.append(name)
        return len(self.lamps)

add = _Room().add
put = add

@functools.lru_cache
def get(name: str) -> Lamp:
    """Get a lamp.

    Args:
        name: Its name.
    """
    print("to nobody")
    return Lamp(name, datetime.date(2020, 2, 3))

def all_kinds() -> dict:
    """Return values of other kinds."""
    kind = enum.Enum("Kind", {"LED": "led"})
    return {"set": {3, 10, 1}, "mixed": frozenset(["b", 1]), "price": decimal.Decimal("1.50"), "kind": kind.LED,
            "path": pathlib.PurePosixPath("a/b"), "range": tuple(range(2))}

def names() -> list:
    """Return names in the order of a set."""
    return list({"hall", "kitchen", "garden", "attic", "cellar", "bath"})

def raw() -> bytes:
    """Return bytes."""
    return b""
'''


def test_methods_and_cached_functions_are_tools_and_common_results_are_written(files, caplog):
    said = ["add(name='a')", "put(name='b')", "get(name='a')", "all_kinds()", "names()", "raw()", "raw()"]
    found = hold(files(question(), question(), module=OF_MANY_KINDS), *said, 'finish(answer="")')
    assert [tool.name for tool in found[0].tools] == ["add", "put", "get", "all_kinds", "names", "raw", "finish"]
    answers = [[message.text for message in one.messages if message.role == "tool"] for one in found]
    assert answers[0] == answers[1]  # in another process
    assert answers[0][:3] == ["1", "2", '{"name": "a", "since": "2020-02-03"}']
    expected = {"set": [1, 3, 10], "mixed": ["b", 1], "price": "1.50", "kind": "led", "path": "a/b", "range": [0, 1]}
    assert json.loads(answers[0][3]) == expected
    assert answers[0][5] == "Error: Object of type bytes is not JSON serializable"
    warnings = [one.getMessage() for one in caplog.records if "lamps.py: raw returned" in one.getMessage()]
    assert len(warnings) == 1 and "counts as the model's error" in warnings[0]


OUTCOMES = [
    ({"check": "_right"}, ['switch(lamp="a")', 'finish(answer="one")'], {"success": True, "check": True}),
    ({"check": "_right"}, ['switch(lamp="b")', 'finish(answer="one")'], {"success": False, "check": False}),
    ({"check": "_right"}, ['switch(lamp="a")', 'finish(answer="two")'], {"success": False, "check": False}),
    ({"answer": 12}, ['finish(answer="There are 12.")'], {"success": True, "answer": True, "missing": []}),
    ({"answer": [12, "a b"]}, ['finish(answer="12")'], {"success": False, "answer": False, "missing": ["a b"]}),
    ({"calls": ["count()"]}, ["count()", 'finish(answer="")'], {"success": True, "calls": True}),
    ({"calls": ["count()"]}, ['finish(answer="")'], {"success": False, "calls": False}),
    ({"calls": ["count()"]}, ["count()", "count()", 'finish(answer="")'], {"success": False, "calls": False}),
    ({"calls": []}, ['finish(answer="")'], {"success": True, "calls": True}),
    ({}, ['finish(answer="")'], {"success": None}),
]


def test_the_outcome(files):
    benchmark = files(*(question(id=str(number), **fields) for number, (fields, _, _) in enumerate(OUTCOMES)))

    def answer(samples):
        return [OUTCOMES[int(one.id.partition("#")[0])][1][int(one.id.partition("#")[2]) - 1] for one in samples]

    make = python_tools.make(benchmark)
    found = converse(python_tools.tasks(benchmark, 0), make, answer, ConversationSettings(max_turns=9), parallel=4)
    assert [dict(one.outcome) for one in found] == [expected for _, _, expected in OUTCOMES]


def test_a_public_function_that_checks_outcomes_is_no_tool(files):
    toolbox = files(question(check="right"), module=MODULE.replace("_right", "right"))
    assert "right" not in {tool.name for tool in python_tools._toolbox(toolbox).tools}
    with pytest.raises(TltrainError, match=r"right: expected a docstring .* name begins with _ is not a tool"):
        python_tools.tasks(files(question(), module=MODULE.replace("_right", "right")), 0)


@pytest.mark.parametrize(
    ("check", "found"),
    [("_perhaps", 'found "perhaps"'), ("_first", "it failed: list index out of range"), ("hang", "it failed: .*1 s")],
)
def test_a_check_that_does_not_tell_is_told_before_the_first_conversation(files, check, found):
    benchmark = files(question(check="_right"), question(check=check))
    message = rf"lamps.py: {check} before any call is made: expected True or False whatever the model does, {found}"
    with pytest.raises(TltrainError, match=message):
        python_tools.make(benchmark)


def test_a_check_that_fails_only_later_breaks_its_conversation_alone(files, caplog):
    found = hold(files(question(check="_late"), question(check="_right")), 'switch(lamp="a")', 'finish(answer="one")')
    assert [one.ended for one in found] == ["environment error", "finish"] and found[1].outcome["success"]
    said = "lamps.py: _late: expected True or False whatever the model does, it failed: list index out of range"
    assert said in found[0].outcome["error"] and "TltrainError" not in found[0].outcome["error"]
    assert said in caplog.text


def test_golden_calls_are_the_ceiling(files):
    benchmark = files(
        question(calls=[{"name": "switch", "arguments": {"lamp": "a"}}], answer="one", check="_right"),
        question(calls=["switch(lamp='b')", "finish(answer='')"]),
        question(),
    )
    tasks = python_tools.tasks(benchmark, 0)
    golden = {task.id: python_tools.golden_calls(benchmark, task) for task in tasks}
    assert golden["tasks/2"] == ((Call("switch", {"lamp": "b"}), Call("finish", {"answer": "Done."})),)
    assert golden["tasks/3"] == ()
    make = python_tools.make(benchmark)
    found = converse(tasks, make, GoldenCalls(golden), ConversationSettings(max_turns=9), parallel=4)
    assert [one.outcome["success"] for one in found] == [True, True, None]


def documented(body: str, signature: str = "x: int", doc: str = '"""Do.\n\n    Args:\n        x: It.\n    """') -> str:
    return f"def tool({signature}):\n    {doc}\n    {body}\n"


@pytest.mark.parametrize(
    ("module", "task", "message"),
    [
        ("def tool(x: int):\n    return x\n", {}, "tool: expected a docstring .* because it has no docstring"),
        (documented("return x", "x"), {}, "tool: expected .* type hints .*Argument x is missing a type hint"),
        (documented("return x", doc='"""Do."""'), {}, "tool: expected .* no description for the argument 'x'"),
        (documented("return x", "*x: int"), {}, "tool: its parameter .*x: int has to be one that is given by name"),
        ("async " + documented("return x"), {}, r"tool: expected a function, found a coroutine .*asyncio.run\(_tool\("),
        (documented("yield x"), {}, r"tool: expected a function that returns its result, found a generator \(yield\)"),
        (
            "import enum\nK = enum.Enum('K', 'a b')\n" + documented("return x", "x: K | None"),
            {},
            r"tool: its parameter x is an Enum, .* not its members: write typing.Literal\[1, 2\]",
        ),
        ("class Lamp:\n    def switch(self): ...\n", {}, r"expected documented functions, .* switch = Lamp\(\).switch"),
        (documented("return x").replace("tool", "finish"), {}, "finish: ends the conversation and is always on offer"),
        ("import no_such_module\n", {}, r"lamps.py: cannot be imported: .*no_such_module.* \(lamps.py, line 1\)"),
        ("def f(:\n", {}, "lamps.py: cannot be imported: SyntaxError"),
        ("raise SystemExit\n", {}, "lamps.py: cannot be imported: SystemExit"),
        ("x = 1\n", {}, "lamps.py: expected documented functions, found no"),
        (
            MODULE,
            {"calls": ["swich(lamp='a')"]},
            r"record 1: calls\[0\]: expected a call of a tool of lamps.py, .*did yo",
        ),
        (MODULE, {"calls": ["switch(lmp='a')"]}, r"record 1: calls\[0\]: expected a call as lamps.py documents it"),
        (MODULE, {"calls": ["switch"]}, r"record 1: calls\[0\]: expected a call such as order"),
        (MODULE, {"calls": [3]}, r"record 1: calls\[0\]: expected an object"),
        (MODULE, {"check": "wrong"}, "check: expected a function of lamps.py, found wrong"),
        (MODULE, {"answer": {"a": 1}}, "record 1: answer: expected a text, a number or a list of them"),
        (MODULE, {"question": None}, "record 1: question: expected"),
    ],
)
def test_errors_are_one_line(files, module, task, message):
    with pytest.raises(TltrainError, match=message) as found:
        python_tools.tasks(files({"question": "?", **task}, module=module), 0)
    assert "\n" not in str(found.value)


def test_a_module_that_cannot_be_loaded_in_the_sandbox_is_told_before_the_first_conversation(files):
    module = "import os\nopen(os.environ['LAMPS_SECRET_PLACE'])\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAMPS_SECRET_PLACE", __file__)
        benchmark = files(question(), module=module + MODULE)
        with pytest.raises(TltrainError, match=r"cannot be loaded where tools run, .*LAMPS_SECRET_PLACE"):
            python_tools.make(benchmark)


def test_a_module_that_takes_long_to_load_is_told_with_the_remedy(files):
    benchmark = files(question(), module="import time\ntime.sleep(2)\n" + MODULE)
    benchmark.time_limit = 0.5
    with pytest.raises(TltrainError, match=r"took longer than 0.5 s; benchmark.time_limit=SECONDS gives it more time"):
        python_tools.make(benchmark)


def test_a_file_with_the_name_of_a_standard_module_is_refused(files, tmp_path):
    benchmark = files(question())
    benchmark.module = str((tmp_path / "lamps.py").rename(tmp_path / "calendar.py"))
    with pytest.raises(TltrainError, match=r"calendar.py: .* of a module of Python's standard library, .* rename it"):
        python_tools.tasks(benchmark, 0)


def test_missing_files(tmp_path):
    keys = ["stage=eval", "benchmark=python_tools", "model=tiny"]
    with pytest.raises(TltrainError, match=r"give benchmark.module=my_tools.py and benchmark.path=tasks.jsonl"):
        python_tools.tasks(composed(*keys).benchmark, 0)
    keys += [f"benchmark.path={tmp_path}/tasks.jsonl"]
    with pytest.raises(TltrainError, match="there is no such file"):
        python_tools.tasks(composed(*keys, f"benchmark.module={tmp_path}/none.py").benchmark, 0)
    (tmp_path / "my-tools.py").write_text("")
    with pytest.raises(TltrainError, match="expected a Python file such as"):
        python_tools.tasks(composed(*keys, f"benchmark.module={tmp_path}/my-tools.py").benchmark, 0)
