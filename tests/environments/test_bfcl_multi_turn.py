"""BFCL's multi-turn environment on the real package: its sets, its golden calls, its own checker."""

from __future__ import annotations

import importlib.util
import json
import random

import pytest

from tests.support.bfcl_package import benchmark, hold
from tltrain.data import bfcl as data
from tltrain.environments import bfcl
from tltrain.environments.bfcl_worker import MODULES, STATELESS
from tltrain.trajectory import Call

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(data.PACKAGE) is None,
    reason="bfcl-eval is not installed (pip install --no-deps bfcl-eval)",
)

ALL = tuple(bfcl.EXPECTED_COUNTS)
UNSOLVABLE = "multi_turn_miss_func_49"
"""A task whose golden calls use a tool before it is offered."""


def test_the_packages_tables_are_ours_and_its_sets_are_whole(caplog):
    from bfcl_eval.constants import executable_backend_config as package

    files = package.MULTI_TURN_FUNC_DOC_FILE_MAPPING
    for name, module in MODULES.items():
        assert package.CLASS_FILE_PATH_MAPPING[name] == f"{package.BACKEND_PATH_PREFIX}.{module}"
        assert files[name] == f"{module}.json"
    assert set(package.STATELESS_CLASSES) == STATELESS
    found = bfcl.tasks(benchmark(None, *ALL))
    counts = {category: sum(task.meta["category"] == category for task in found) for category in ALL}
    assert counts == bfcl.EXPECTED_COUNTS
    assert not caplog.records
    about = [task.meta["scenario"] for task in bfcl.tasks(benchmark(None))]
    assert {scenario: about.count(scenario) for scenario in about} == dict.fromkeys(
        ("file system", "vehicle", "trading", "travel"), 50
    )


@pytest.mark.parametrize("share", [pytest.param(16, id="a sixteenth"), pytest.param(1, marks=pytest.mark.slow)])
def test_golden_conversations_succeed(share):
    asked = benchmark(None, *ALL)
    make, failed = bfcl.make(asked), []
    for task in bfcl.tasks(asked)[::share]:
        environment = make()
        environment.reset(task)
        hold(environment, bfcl.golden_calls(asked, task))
        if not environment.outcome()["success"]:
            failed.append(task.id)
    assert failed == ([UNSOLVABLE] if share == 1 else [])


def test_conversations_share_no_card_balance():
    """With a long context, the package as shipped gives all simulators of a process the same cards."""
    asked = benchmark(None, "multi_turn_long_context")
    make, login = bfcl.make(asked), {"client_id": "a", "client_secret": "a", "refresh_token": "a"}
    task = next(task for task in bfcl.tasks(asked) if task.id == "multi_turn_long_context_151")
    balances = []
    for _ in range(2):
        environment = make()
        environment.reset(task)
        name = {"grant_type": "read_write", "user_first_name": "A", "user_last_name": "B"}
        token = json.loads(environment.call(Call("authenticate_travel", login | name)))["access_token"]
        card = {"access_token": token, "card_id": "2345678923456789"}
        route = {"travel_date": "2024-11-11", "travel_from": "SFO", "travel_to": "LAX", "travel_class": "economy"}
        balances.append(environment.call(Call("get_credit_card_balance", card)))
        assert json.loads(environment.call(Call("book_flight", card | route)))["booking_status"] is True
        assert environment.call(Call("get_credit_card_balance", card)) != balances[0]
    assert balances == ['{"card_balance": 7500.0}'] * 2


def official(task, turns, run):
    """Return the package's verdict; the text that it evaluates is written here, from literals."""
    from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker import multi_turn_checker

    questions, answers = data._files(data.folder(None), task.meta["category"])
    number = int(task.id.rpartition("_")[2])
    record, golden = (json.loads(path.read_text().splitlines()[number]) for path in (questions, answers))
    said = [
        [[f"{call.name}({', '.join(f'{k}={v!r}' for k, v in call.arguments.items())})"] for call in t] for t in turns
    ]
    verdict = multi_turn_checker(said, golden["ground_truth"], record, task.meta["category"], run)
    return verdict["valid"], verdict.get("error_type", "").removeprefix("multi_turn:")


VALUES = {"integer": [0, 3], "number": [1, 2.5], "boolean": [True, False], "array": [[1, 2.5], []], "object": [{}]}


def random_call(tools, rng):
    called = rng.choice(tools[:-1])
    given = [name for name in called.properties if name in called.required or rng.random() < 0.5]
    types = {name: called.properties[name]["type"] for name in given}
    return Call(
        called.name, {name: rng.choice(VALUES.get(kind, ["a", "AAPL", ".", "x"])) for name, kind in types.items()}
    )


def variants(entry, rng):
    """Yield golden calls, and variants that a model might make."""
    golden = [list(calls) for calls in entry.golden]
    yield golden
    places = [(turn, i) for turn, calls in enumerate(golden) for i in range(len(calls))]
    turn, i = rng.choice(places)
    yield [calls[:i] + calls[i + 1 :] if number == turn else calls for number, calls in enumerate(golden)]
    turn, i = rng.choice([(turn, i) for turn, i in places if golden[turn][i].arguments] or places)
    call = golden[turn][i]
    wrong = {key: value + ("x" if isinstance(value, str) else 1) for key, value in call.arguments.items()
             if isinstance(value, str | int | float)}  # fmt: skip
    changed = Call(call.name, {**call.arguments, **dict([rng.choice(list(wrong.items()))] if wrong else [])})
    yield [[changed if (number, j) == (turn, i) else one for j, one in enumerate(calls)]
           for number, calls in enumerate(golden)]  # fmt: skip
    yield [[random_call(entry.offer(number), rng), *calls] for number, calls in enumerate(golden)]
    yield [[random_call(entry.offer(number), rng) for _ in calls] for number, calls in enumerate(golden)]


@pytest.mark.parametrize("category", ALL)
def test_success_is_what_the_packages_own_checker_says_of_the_same_calls(category):
    rng, asked = random.Random(category), benchmark(None, category)
    make, verdicts = bfcl.make(asked), []
    entries = bfcl.read_entries(bfcl.package(None), category)
    for task in bfcl.tasks(asked)[::13]:
        for number, turns in enumerate(variants(entries[task.id], rng)):
            environment = make()
            environment.reset(task)
            hold(environment, turns)
            found = environment.outcome()
            assert (found["success"], found["error"] or "") == official(task, turns, f"run{number}"), (task.id, turns)
            verdicts.append(found["success"])
    assert len(verdicts) == 16 * 5
    assert 16 < sum(verdicts) < 60
