"""toolworld as an environment: it checks the final state and the answer."""

from __future__ import annotations

from dataclasses import replace

import pytest
from omegaconf import DictConfig, OmegaConf

from tests.support.mae_rules import STRICT
from tltrain import toolworld as data
from tltrain.config import ToolworldConversations
from tltrain.environments import Environment
from tltrain.environments.golden import GoldenCalls
from tltrain.environments.loop import ConversationSettings, converse
from tltrain.evaluation import conversation_scores
from tltrain.formats.calls import render_call
from tltrain.formats.tool_errors import Pattern, Rule
from tltrain.toolworld import environment
from tltrain.toolworld.domains import TEST
from tltrain.toolworld.environment import Toolworld, facts, golden_calls, missing_facts, script_of
from tltrain.toolworld.registry import Domain
from tltrain.trajectory import Call

SIZE = 300


def settings(**keys) -> DictConfig:
    """Return the keys of `benchmark=toolworld_multi`."""
    return OmegaConf.structured(ToolworldConversations(name="toolworld", **keys))


TASKS = environment.tasks(settings(size=SIZE), 0)
GOLDEN = GoldenCalls({task.id: golden_calls(task) for task in TASKS})
EVERYTHING = Rule("normalized_substring", (Pattern("any", ""),))
"""A rule by which every answer is an error."""
WRITES = ("borrow_book", "setTaskPriority", "addTask", "completeTask", "bookTrainSeat")


def hold(tasks, answer, max_turns=12):
    return converse(tasks, Toolworld, answer, ConversationSettings(max_turns, rule=STRICT), parallel=16)


def play(script, *calls: Call) -> dict:
    """Return the outcome after these calls, the last of them `finish`."""
    texts = [render_call(call) for call in calls]
    task = next(task for task in TASKS if task.id == script.identity)
    (found,) = hold([task], lambda samples: [texts[sum(m.role == "assistant" for m in samples[0].messages)]])
    return dict(found.outcome)


def the_script(task: str):
    """Return a golden script of this task."""
    return next(script for script in map(script_of, (one.id for one in TASKS)) if script.task == task)


def finish(answer: str) -> Call:
    return Call("finish", {"answer": answer})


# --- the ceiling ----------------------------------------------------------------------------------------------------


def test_golden_conversations_are_a_full_success():
    found = hold(TASKS, GOLDEN)
    scores = conversation_scores.score(found)
    assert {level: metric.value for level, metric in scores.items()} == {"de": 0, "ce": 0, "va": 100, "success": 100}
    assert scores["success"].n == SIZE
    assert [len(one.calls) for one in found] == [task.meta["golden_calls"] for task in TASKS]
    assert {task.meta["scenario"] for task in TASKS} == {domain.name for domain in TEST}
    assert any(call.call.name == "ask_to_user" for one in found for call in one.calls)
    assert not any(one.outcome["missing"] or one.outcome["differing"] for one in found)


def test_tasks_are_those_of_which_single_turns_are_asked():
    samples = list(data.samples(5, 3))
    tasks = environment.tasks(settings(size=5, seed=3), 0)
    assert [sample.id.partition("/")[0] for sample in samples] == [task.id for task in tasks]
    assert [sample.query for sample in samples] == [script_of(task.id).query for task in tasks]


def test_the_environment_is_one():
    made: Environment = environment.ToolworldTasks(settings()).environment()
    turn = made.reset(TASKS[0])
    assert [tool.name for tool in turn.tools[-2:]] == ["ask_to_user", "finish"]
    assert made.outcome()["success"] is False  # there is no answer
    made.close()


# --- the answer -----------------------------------------------------------------------------------------------------


def test_facts_are_what_the_tools_said_and_the_golden_answer_says():
    # The position in the list identifies the task: the first 40 tasks were read by hand.
    read = {
        0: ["Portuguese", "The Error in the Clock"],
        1: [211, "Jack Silva"],
        2: [],
        5: ["5A"],
        8: [127.41, "T-8185"],
    }
    read |= {10: ["C33", 3, "2026-10-24"], 13: [11, "21A", 21], 30: ["2027-01-17", "T-9474"], 31: [27], 34: [70000]}
    assert {at: facts(script_of(TASKS[at].id)) for at in read} == read


def test_only_tasks_that_change_something_and_tell_nothing_have_no_fact():
    without = {task.meta["task"] for task in TASKS if not facts(script_of(task.id))}
    assert without == {"done"}


@pytest.mark.parametrize(
    ("answer", "fact", "stated"),
    [
        ("It costs 12.5 euro.", 12.5, True),
        ("It costs 12.50.", 12.5, True),
        ("It costs $12.5, tip included", 12.5, True),
        ("It costs 12.", 12.5, False),
        ("It costs 112.5", 12.5, False),
        ("It costs 12.55", 12.5, False),
        ("It costs 12.5.1", 12.5, False),
        ("About 1,285,000 km2", 1285000, True),
        ("1285000.0", 1285000, True),
        ("3,4 and 5", 4, True),
        ("a 42-minute delay", 42, True),
        ("on 2025-03-31", 31, False),
        ("seat 12A, T-12", 12, False),
        ("-12", 12, False),
        ("9" * 5000, 12, False),
        ("due 2025-03-31.", "2025-03-31", True),
        ("due 2025-03-312", "2025-03-31", False),
        ("jack  SILVA sits there", "Jack Silva", True),
        ("Jack Silvan", "Jack Silva", False),
        ("T-82", "T-8", False),
        ("", "x", False),
    ],
)
def test_how_an_answer_states_a_fact(answer, fact, stated):
    assert missing_facts(answer, [fact]) == ([] if stated else [fact])


def test_a_wrong_answer_fails_and_says_what_is_missing():
    script = the_script("delay")
    (minutes,) = facts(script)
    *calls, golden = script.golden
    assert play(script, *calls, golden)["success"]
    assert play(script, *calls, finish(f"{minutes} min"))["success"]
    found = play(script, *calls, finish(f"It is {minutes + 1} minutes late."))
    assert found == {"success": False, "state": True, "answer": False, "missing": [minutes], "differing": []}
    assert not play(script, *calls, finish(""))["success"]


def test_every_fact_is_asked_for():
    for task in TASKS[:100]:
        script = script_of(task.id)
        golden = script.golden[-1].arguments["answer"]
        for fact in facts(script):
            assert missing_facts(golden.replace(str(fact), "?"), facts(script))


def test_without_finish_there_is_no_success():
    tasks = [task for task in TASKS if task.meta["task"] == "done"][:3]
    found = hold(tasks, GOLDEN, max_turns=2)  # of the calls find, complete, finish
    assert {one.ended for one in found} == {"turn limit"}
    assert [dict(one.outcome) for one in found] == [
        {"success": False, "state": True, "answer": False, "missing": [], "differing": []}
    ] * 3


# --- the state ------------------------------------------------------------------------------------------------------


def test_a_change_left_out_made_twice_or_made_otherwise_fails():
    tried = set()
    for task in TASKS:
        script = script_of(task.id)
        *calls, golden = script.golden
        for at, made in enumerate(calls):
            if made.name not in WRITES or made.name in tried or len(calls) > 4:
                continue
            tried.add(made.name)
            left_out = play(script, *calls[:at], *calls[at + 1 :], golden)
            assert (left_out["success"], left_out["answer"]) == (False, True) and left_out["differing"]
            name = {"addTask": "title", "bookTrainSeat": "passenger", "setTaskPriority": "priority"}.get(made.name)
            if name:
                other = replace(made, arguments={**made.arguments, name: "low"})
                if other != made:
                    assert not play(script, *calls[:at], other, *calls[at + 1 :], golden)["state"]
            if made.name not in ("setTaskPriority", "completeTask"):  # repeating those two changes nothing
                assert not play(script, *calls[: at + 1], made, *calls[at + 1 :], golden)["state"]
    assert tried == set(WRITES)


def test_reading_more_and_errors_on_the_way_do_no_harm():
    script = the_script("whole_trip")
    *calls, golden = script.golden
    wrong = Call("getTrainFare", {"trainId": "TR-0"}), Call("nothing", {}), Call("getTrainFare", {"x": 1})
    found = play(script, calls[0], calls[1], *wrong, calls[1], *calls[2:], golden)
    assert found["success"]


def test_two_conversations_share_no_state():
    task = next(task for task in TASKS if script_of(task.id).task == "booking")
    found = hold([task] * 5, GOLDEN)
    assert [one.outcome["success"] for one in found] == [True] * 5


def test_the_checker_looks_at_every_domain_on_offer():
    script = the_script("delay")  # it only reads
    booking = Call("bookTrainSeat", {"trainId": "TR-1", "passenger": "A B"})
    train = next(iter(script.golden[0].arguments.values()))
    if "bookTrainSeat" not in script.offered:
        script = next(
            one
            for one in map(script_of, (task.id for task in TASKS))
            if one.task == "delay" and "bookTrainSeat" in one.offered and one.reply is None
        )
        train = script.golden[0].arguments["trainId"]
    booking = replace(booking, arguments={**booking.arguments, "trainId": train})
    found = play(script, booking, *script.golden)
    assert found == {"success": False, "state": False, "answer": True, "missing": [], "differing": ["trains"]}
    assert all(isinstance(domain, Domain) for domain in environment.differing_domains(script, script.world([booking])))


# --- splits, tools, seeds, and what failed ---------------------------------------------------------------------------


def test_golden_conversations_of_other_splits_and_tools_are_a_full_success():
    for keys in ({"split": "validation"}, {"tools": "confusable"}, {"split": "validation", "tools": "all"}):
        benchmark = settings(size=25, **keys)
        tasks = environment.tasks(benchmark, 0)
        found = hold(tasks, GoldenCalls({task.id: golden_calls(task) for task in tasks}))
        assert conversation_scores.score(found)["success"].value == 100, keys


def test_tasks_depend_on_the_benchmarks_seed_alone():
    assert environment.tasks(settings(size=3), 0) == environment.tasks(settings(size=3), 7)
    assert environment.tasks(settings(size=3), 0) != environment.tasks(settings(size=3, seed=1), 0)


def test_call_errors_are_those_that_the_world_knows_of_and_no_rule_overrules_it():
    script = the_script("shelf")
    *calls, golden = script.golden
    texts = [render_call(call) for call in (*calls, Call(calls[-1].name, {"strange": 1}), golden)]
    task = next(task for task in TASKS if task.id == script.identity)

    def answer(samples):
        return [texts[sum(message.role == "assistant" for message in samples[0].messages)]]

    for rule in (STRICT, EVERYTHING, None):
        (found,) = converse([task], Toolworld, answer, ConversationSettings(12, rule=rule), parallel=1)
        assert [call.ce for call in found.calls] == [False] * len(calls) + [True, False], rule
