"""Toolworld: what is generated, that it was really executed, and that its labels are right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from functools import cache
from itertools import combinations, islice

import pytest

from tltrain.data import tl_training
from tltrain.errors import TltrainError
from tltrain.grading import Outcome, grade
from tltrain.toolworld import KINDS, World, generate, samples
from tltrain.toolworld.domains import (
    FUNCTIONS,
    SPLITS,
    STANDARD,
    TEST,
    TRAIN,
    VALIDATION,
    domains_of,
)
from tltrain.toolworld.domains.user import user
from tltrain.trajectory import ANY, Call, Trajectory, actions

SIZES = {"train": 2000, "validation": 700, "test": 2000}


@cache
def everything(split: str, error_rate: float) -> list[Trajectory]:
    return list(generate(SIZES[split], 0, error_rate, split))


def trajectories(split: str = "train", size: int | None = None, error_rate: float = 0.17) -> list[Trajectory]:
    return everything(split, error_rate)[:size]


def turns(trajectory: Trajectory) -> list[tuple[int, Call, str | None, bool]]:
    """Return position in the messages, call, kind of mistake, and whether the answer is an error, for every turn."""
    calls = [(action.at, action.call) for action in actions(trajectory.messages)]
    truth = zip(calls, trajectory.meta["errors"], trajectory.meta["failed"], strict=True)
    return [(at, call, kind, failed) for (at, call), kind, failed in truth]


def world_of(trajectory: Trajectory) -> World:
    return World(trajectory.id, [tool.name for tool in trajectory.tools], trajectory.meta["reply"])


def digest_elsewhere(hash_seed: str) -> str:
    code = (
        "import hashlib; from tltrain.toolworld import generate;"
        "print(hashlib.sha256(repr(list(generate(60, 5))).encode()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout


# -- reproducible ---------------------------------------------------------------------------------------------------


def test_same_seed_gives_the_same_bytes_whatever_the_hash_seed():
    assert digest_elsewhere("1") == digest_elsewhere("2")


def test_a_larger_size_only_appends():
    assert list(generate(40, 3)) == list(islice(generate(90, 3), 40))
    assert list(samples(40, 3)) == list(islice(samples(90, 3), 40))


def test_seeds_and_splits_give_different_queries():
    first, second = ({t.query for t in generate(200, seed)} for seed in (1, 2))
    assert len(first & second) < 20 and len(first) > 190


def test_error_rate_leaves_the_golden_conversation_as_it_is():
    for clean, noisy in zip(trajectories(size=200, error_rate=0), generate(200, 0, 0.5), strict=True):
        golden = [call for _, call, kind, _ in turns(noisy) if kind is None]
        assert golden == [call for _, call, _, _ in turns(clean)]
        assert (clean.query, clean.tools) == (noisy.query, noisy.tools)


def test_generate_is_lazy():
    assert next(generate(10**9)).id == "toolworld-train-0-0"


# -- domains, tools, splits -----------------------------------------------------------------------------------------


def test_there_are_at_least_60_tools_in_12_domains():
    domains = [domain for split in SPLITS for domain in domains_of(split, "all")]
    assert len(domains) >= 12 and len({domain.name for domain in domains}) == len(domains)
    assert sum(len(domain.tools) for domain in domains) >= 60
    assert len(FUNCTIONS) == sum(len(domain.tools) for domain in domains) + 2


def test_every_json_type_and_both_styles_of_name_occur():
    tools = [function.tool for function in FUNCTIONS.values()]
    types = {schema["type"] for tool in tools for schema in tool.properties.values()}
    assert types == {"string", "integer", "number", "boolean", "array", "object"}
    assert any("_" in tool.name for tool in tools) and any(tool.name != tool.name.lower() for tool in tools)
    assert any(set(tool.properties) - set(tool.required) for tool in tools)


def test_most_tools_share_a_prefix_with_another_of_their_domain():
    def first_word(name: str) -> str:
        return name.split("_")[0] if "_" in name else "".join(c if c.islower() else " " for c in name).split()[0]

    shared = total = 0
    for domain in (*TRAIN, *VALIDATION, *TEST):
        words = Counter(map(first_word, domain.tools))
        shared += sum(words[first_word(name)] > 1 for name in domain.tools)
        total += len(domain.tools)
    assert shared / total > 0.6


def test_splits_share_neither_tools_nor_documentation_nor_tasks_nor_wordings():
    def told(split: str) -> tuple[set, set, set, set]:
        domains = domains_of(split, "all")
        tools = [function.tool for domain in domains for function in domain.tools.values()]
        tasks = [task for domain in domains for task in domain.tasks]
        names = [(task.domain.name, task.name) for task in tasks]
        wordings = {query for task in tasks for query in task.queries}
        return {tool.name for tool in tools}, {tool.description for tool in tools}, set(names), wordings

    for one, other in combinations(SPLITS, 2):
        for ours, theirs in zip(told(one), told(other), strict=True):
            assert ours and theirs and not ours & theirs
    assert len(TEST) >= len(TRAIN) / 4


@pytest.mark.parametrize("split", SPLITS)
def test_the_name_of_a_task_is_unique_in_its_split(split):
    names = [task.name for domain in domains_of(split, "all") for task in domain.tasks]
    assert len(set(names)) == len(names) and not any("+" in name for name in names)


@pytest.mark.parametrize("split", SPLITS)
def test_a_conversation_offers_4_to_8_tools_of_its_split_and_ends_with_the_users(split):
    own = {name for domain in STANDARD[split] for name in domain.tools}
    for trajectory in trajectories(split):
        *names, asking, ending = (tool.name for tool in trajectory.tools)
        assert (asking, ending) == ("ask_to_user", "finish")
        assert set(names) <= own and len(set(names)) == len(names)
        assert 4 <= len(trajectory.tools) <= 8
    assert {tool.name for trajectory in trajectories(split) for tool in trajectory.tools} == own | set(user.tools)


def test_tools_offered_sets_the_number_of_tools():
    assert {len(t.tools) for t in generate(50, tools_offered=(8, 10))} == {8, 9, 10}


@pytest.mark.parametrize("split", SPLITS)
def test_every_task_occurs_with_one_to_four_calls_of_tools(split):
    lengths, seen = Counter(), set()
    for trajectory in trajectories(split):
        golden = [call for _, call, kind, _ in turns(trajectory) if kind is None]
        lengths[sum(call.name not in user.tools for call in golden)] += 1
        seen |= {name for name in trajectory.meta["task"].split("+")}
        assert golden[-1].name == "finish" and golden[-1].arguments["answer"]
    assert set(lengths) == {1, 2, 3, 4} and min(lengths.values()) > 0.05 * len(trajectories(split))
    assert seen == {task.name for domain in STANDARD[split] for task in domain.tasks}


# -- golden calls ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
def test_golden_calls_fit_their_documentation_and_never_fail(split):
    types = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict}
    for trajectory in trajectories(split):
        tools = {tool.name: tool for tool in trajectory.tools}
        for _, call, kind, failed in turns(trajectory):
            if kind is None:
                tool = tools[call.name]
                assert not failed, (trajectory.id, call)
                assert set(tool.required) <= set(call.arguments) <= set(tool.properties)
                for name, value in call.arguments.items():
                    assert isinstance(value, types[tool.properties[name]["type"]]), (call, name)


def _parts(value: object) -> list[str]:
    """Return a value as the strings that a reader would have to copy."""
    if isinstance(value, list):
        return [part for item in value for part in _parts(item)]
    if isinstance(value, dict):
        return [part for item in value.items() for part in _parts(list(item))]
    return [] if isinstance(value, bool) else [str(value)]


@pytest.mark.parametrize("split", SPLITS)
def test_golden_values_stand_in_the_query_or_in_earlier_answers(split):
    for trajectory in trajectories(split, error_rate=0):
        for at, call, _, _ in turns(trajectory):
            seen = "\n".join(message.text for message in trajectory.messages[:at])
            lacking = [p for p in _parts(list(call.arguments.values())) if p not in seen]
            if call.name not in user.tools:
                assert not lacking, (trajectory.query, call, lacking)


def test_later_calls_use_earlier_answers():
    later = using = 0
    for trajectory in trajectories(error_rate=0):
        for at, call, _, _ in turns(trajectory):
            if at > 1 and call.name not in user.tools:
                later += 1
                using += any(part not in trajectory.query for part in _parts(list(call.arguments.values())))
    assert using / later > 0.5


def test_a_missing_detail_is_asked_for_and_then_used():
    asking = [t for t in trajectories(error_rate=0) if t.meta["reply"] is not None]
    assert 0.03 < len(asking) / 2000 < 0.2
    for trajectory in asking:
        assert trajectory.messages[1].calls[0].call.name == "ask_to_user"
        assert trajectory.messages[1].calls[0].call.arguments["question"].endswith("?")
        assert trajectory.messages[2].text == trajectory.meta["reply"]
        assert set(_parts(list(trajectory.messages[3].calls[0].call.arguments.values()))) - set(
            trajectory.query.split()
        )


# -- wrong calls and their labels -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "rate"), [("train", 0), ("test", 0.5), *((split, 0.17) for split in SPLITS)])
def test_share_of_wrong_calls_is_the_error_rate(split, rate):
    kinds = [kind for t in trajectories(split, error_rate=rate) for kind in t.meta["errors"]]
    assert sum(kind is not None for kind in kinds) / len(kinds) == pytest.approx(
        rate, abs=0.01 if split != "validation" else 0.02
    )


@pytest.mark.parametrize("split", SPLITS)
def test_every_kind_of_mistake_occurs(split):
    kinds = Counter(kind for t in trajectories(split) for kind in t.meta["errors"] if kind)
    assert set(kinds) == set(KINDS)


def test_a_kind_is_what_the_grade_against_the_next_golden_call_says():
    for trajectory in trajectories(size=500):
        golden = None
        for _, call, kind, _ in reversed(turns(trajectory)):
            if kind is None:
                golden = call
                continue
            found = grade(call, golden, trajectory.tools)
            sets = [name for name in ("hallucinated", "redundant", "missing") if getattr(found, name)]
            assert kind == ("+".join(sets) if found.outcome is Outcome.PARAMETERS else found.outcome.value)


@pytest.mark.parametrize("split", SPLITS)
def test_answers_and_truth_are_what_running_the_calls_says(split):
    for trajectory in trajectories(split, 500):
        world = world_of(trajectory)
        for at, call, _, failed in turns(trajectory):
            answer = world.run(call)
            assert answer.failed == failed
            if call.name != "finish":
                assert trajectory.messages[at + 1].text == answer.text


def test_wrong_calls_leave_the_world_as_it_was():
    for clean, noisy in zip(trajectories(size=300, error_rate=0), generate(300, 0, 0.6), strict=True):
        worlds = world_of(clean), world_of(noisy)
        for world, trajectory in zip(worlds, (clean, noisy), strict=True):
            for _, call, _, _ in turns(trajectory):
                world.call(call)
        for domain in {FUNCTIONS[tool.name].domain for tool in clean.tools}:
            assert worlds[0].snapshot(domain) == worlds[1].snapshot(domain)


def test_wrong_calls_may_go_unnoticed_and_all_hallucinated_ones_fail():
    failed_by_kind: dict[str, Counter] = {kind: Counter() for kind in KINDS}
    for trajectory in trajectories():
        for _, _, kind, failed in turns(trajectory):
            if kind:
                failed_by_kind[kind][failed] += 1
    for kind, failed in failed_by_kind.items():
        assert failed[True]
        assert not (failed[False] and "hallucina" in kind)
    for kind in ("wrong_tool", "wrong_value", "redundant"):
        assert failed_by_kind[kind][False]


def test_errors_come_in_many_shapes_and_right_answers_may_speak_of_errors():
    wrong, right = set(), []
    for trajectory in trajectories():
        for at, call, _, failed in turns(trajectory):
            if call.name != "finish":
                (wrong.add if failed else right.append)(trajectory.messages[at + 1].text)
    objects = ('{"error": ', '{"status": 404', '{"success": false')
    lines = ("Error: ", "Invalid API call: ", "ValueError: ", "Traceback ", "TypeError: ", "NameError: ")
    for shape in (*objects, *lines):
        assert any(text.startswith(shape) for text in wrong), shape
    assert any(" got an unexpected keyword argument " in text for text in wrong)
    assert 0.03 < sum("error" in text.lower() for text in right) / len(right) < 0.15


# -- samples, raw file, arguments -----------------------------------------------------------------------------------


def test_samples_are_turns_of_golden_conversations():
    drawn = list(samples(300, 7))
    assert len({sample.id.split("/")[0] for sample in drawn}) == 300
    assert {sample.meta["turn"] for sample in drawn} >= {1, 2, 3, 4}
    assert {sample.meta["scenario"] for sample in drawn} == {domain.name for domain in TEST}
    for sample in drawn:
        (golden,) = sample.goldens
        assert golden.name == sample.meta["tool"] in {tool.name for tool in sample.tools}
        assert len(sample.messages) == 2 * sample.meta["turn"] - 1
        assert sample.messages[-1].role == ("user" if sample.meta["turn"] == 1 else "tool")
        if golden.name in user.tools:
            assert list(golden.arguments.values()) == [ANY]
    assert 0.15 < sum(sample.meta["tool"] == "finish" for sample in drawn) / 300 < 0.5


def test_a_raw_record_has_the_papers_shape_and_reads_back():
    for trajectory in trajectories(size=20):
        record = json.loads(json.dumps(tl_training.raw_record(trajectory)))
        system, question, answer, *_ = record["conversations"]
        tools = json.loads(system["content"])
        assert system["role"] == "system" and [set(tool) for tool in tools] == [{"type", "function"}] * len(tools)
        assert question == {"role": "user", "content": trajectory.query}
        name, arguments = answer["content"].split("\n", 1)
        assert Call(name, json.loads(arguments)) == trajectory.messages[1].calls[0].call
        assert {m["role"] for m in record["conversations"][3:]} == {"assistant", "function"}
        (read,) = tl_training.parse(record, 1, Counter())
        assert (read.tools, read.messages) == (trajectory.tools, trajectory.messages)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"split": "dev"}, "split"),
        ({"tools": "easy"}, "tools"),
        ({"error_rate": 1}, "error_rate"),
        ({"error_rate": -0.1}, "error_rate"),
        ({"tools_offered": (2, 8)}, "tools_offered"),
        ({"tools_offered": (8, 4)}, "tools_offered"),
    ],
)
def test_a_wrong_argument_is_one_line_that_names_it(arguments, named):
    with pytest.raises(TltrainError, match=f"^{named}: expected .*, found .*$"):
        next(generate(1, **arguments))
