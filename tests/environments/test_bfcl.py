"""BFCL's multi-turn environment on a small package of the same layout: tasks, calls in their process, the verdict."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress

import pytest
import yaml

from tests.support.bfcl_package import DOCUMENTED, ENTRIES, benchmark, entry, hold, make_package, put
from tltrain.data import bfcl as data
from tltrain.environments import bfcl
from tltrain.environments.bfcl_process import Simulators
from tltrain.errors import TltrainError
from tltrain.trajectory import Call, Message, Task

SECRET = "TLTRAIN_TEST_SECRET"


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return make_package(tmp_path_factory.mktemp("package") / "bfcl_eval")


@pytest.fixture(scope="module")
def quick(package):
    """`quick(id)` returns an environment and its first turn; its simulators may take two seconds per call."""
    simulators = Simulators(package.parent, seconds=2)
    entries = {one.id: one for category in ENTRIES for one in bfcl.read_entries(package, category).values()}

    def begin(identity="multi_turn_base_0"):
        environment = bfcl.BfclEnvironment(entries, simulators)
        return environment, environment.reset(Task(identity))

    yield begin
    simulators.close()


# --- tasks ------------------------------------------------------------------------------------------------------------


def test_tasks_have_scenarios(package, caplog):
    found = bfcl.tasks(benchmark(package))
    assert [task.id for task in found] == ["multi_turn_base_0", "multi_turn_base_1"]
    assert found[0].meta == {
        "scenario": "file system",
        "category": "multi_turn_base",
        "classes": ["MathAPI", "GorillaFileSystem"],
    }
    assert found[1].meta["scenario"] == "maths"
    both = bfcl.tasks(benchmark(package, "multi_turn_base", "multi_turn_miss_func"))
    assert [task.meta["scenario"] for task in both] == ["multi_turn_base"] * 2 + ["multi_turn_miss_func"]


def test_another_number_of_tasks_is_told(tmp_path, caplog):
    bfcl.tasks(benchmark(make_package(tmp_path / "bfcl_eval")))
    assert "multi_turn_base.json: expected BFCL's 200 tasks, found 2: another release?" in caplog.text


def test_a_conversation_begins_with_the_users_words_and_finish_is_the_last_tool(package):
    environment = bfcl.make(benchmark(package))()
    turn = environment.reset(bfcl.tasks(benchmark(package))[0])
    assert turn.messages == (Message("user", "Turn 0."),)
    assert [one.name for one in turn.tools] == ["power", *(one["name"] for one in DOCUMENTED), "finish"]
    assert turn.tools[0].properties["base"]["type"] == "number"
    assert turn.tools[-1].required == ("answer",)
    assert environment.follow_up(None).messages == (Message("user", "Turn 1."),)
    assert environment.follow_up("done") is None


def test_golden_calls_are_read_as_calls_of_which_positional_values_get_their_names(package):
    asked = benchmark(package)
    golden = bfcl.golden_calls(asked, bfcl.tasks(asked)[0])
    assert golden == (
        (Call("write", {"text": "new"}), Call("read")),
        (Call("power", {"base": 2, "exponent": 3}),),
    )


def test_a_tool_that_is_held_out_comes_with_its_turn_and_does_not_exist_before(quick):
    environment, first = quick("multi_turn_miss_func_0")
    assert "write" not in [one.name for one in first.tools]
    said = environment.call(Call("write", {"text": "x"}))
    assert said == "Error during execution: name 'write' is not defined"
    second = environment.follow_up("That cannot be done.")
    assert second.messages == (Message("user", "There is more now."),)
    assert [one.name for one in second.tools][-3:] == ["misbehave", "write", "finish"]
    assert environment.call(Call("write", {"text": "new"})) == '{"notes": ["old", "new"]}'
    assert environment.follow_up("done").tools == second.tools
    environment.call(Call("read"))
    assert environment.follow_up("done") is None
    assert environment.outcome()["success"]


@pytest.mark.parametrize(
    ("record", "golden", "said"),
    [
        (entry("a", 1), [["read()"], []], "record 1: question: expected 2 turns, as ground_truth has, found 1 turns"),
        (entry("a", 1, question=[[]]), [[]], "question[0]: expected a user's message, or tools that are new in this"),
        (entry("a", 1, involved_classes=["os"]), [[]], "involved_classes[0]: expected one of GorillaFileSystem, "),
        (
            entry("a", 1, involved_classes=[]),
            [[]],
            "involved_classes: expected at least one class, found an empty list",
        ),
        (entry("a", 1, missed_function={"7": ["read"]}), [[]], "missed_function: expected turns from 0 to 0, found 7"),
        (entry("a", 1, missed_function={"0": ["sort"]}), [[]], "missed_function.0: expected one of power, write"),
        (entry("a", 1), [["read(__import__('os'))"]], "ground_truth: expected a call `name(parameter=literal, ...)`"),
        ({**entry("a", 1), "initial_config": []}, [[]], "initial_config: expected an object"),
    ],
)
def test_what_is_wrong_in_the_files_is_said(tmp_path, record, golden, said):
    folder = make_package(tmp_path / "bfcl_eval")
    put(folder, "multi_turn_base", [(record, golden)])
    with pytest.raises(TltrainError) as caught:
        bfcl.tasks(benchmark(folder))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_user_may_get_wrong_is_one_line_before_any_conversation(package, tmp_path, monkeypatch):
    with pytest.raises(TltrainError, match=r"^benchmark.categories: expected some of multi_turn_base, .*'exec'"):
        bfcl.tasks(benchmark(package, "exec"))
    (tmp_path / "bfcl_eval" / "data").mkdir(parents=True)
    with pytest.raises(TltrainError, match="runs the simulators of the package bfcl-eval: expected its folder"):
        bfcl.tasks(benchmark(tmp_path / "bfcl_eval"))
    broken = make_package(tmp_path / "broken" / "bfcl_eval")
    (broken / "eval_checker/multi_turn_eval/func_source_code/math_api.py").write_text("import no_such_module")
    with pytest.raises(TltrainError, match="simulators do not start: ModuleNotFoundError: No module named 'no_such_m"):
        bfcl.tasks(benchmark(broken))
    monkeypatch.setattr(data.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TltrainError, match="pip install --no-deps bfcl-eval"):
        bfcl.tasks(benchmark(None))


def test_its_configuration_composes(tltrain):
    found = yaml.safe_load(tltrain("--cfg", "job", "stage=eval", "benchmark=bfcl_multi").out)["benchmark"]
    assert (found["name"], found["multi"], found["categories"]) == ("bfcl", True, ["multi_turn_base"])
    ran = tltrain("stage=eval", "benchmark=bfcl_multi", "benchmark.max_turns=0", status=1)
    assert "benchmark.max_turns: expected a number from 1 to 10000, found 0" in ran.err + ran.out


# --- calls ------------------------------------------------------------------------------------------------------------


def test_answers_are_written_as_bfcl_writes_them(quick):
    environment, _ = quick()
    assert environment.call(Call("write", {"text": 'é"'})) == '{"notes": ["old", "\\u00e9\\""]}'
    assert environment.call(Call("read")) == 'old, é"'
    assert environment.call(Call("count")) == "1"
    assert environment.call(Call("clear")) == "None"
    assert environment.call(Call("odd", {"kind": "object"})) == "{'it': <class 'object'>}"
    assert environment.call(Call("odd", {"kind": "x"})) == "Error during execution: x"
    assert environment.call(Call("write", {"text": "", "where": "middle"})) == "Error during execution: where is middle"
    said = environment.call(Call("write", {"txt": ""}))
    assert said.startswith("Error during execution: GorillaFileSystem.write() got an unexpected keyword argument 'txt'")


@pytest.mark.parametrize(
    "name",
    [
        "_hidden",
        "_load_scenario",
        "__init__",
        "__class__",
        "notes",
        "eval",
        "os.system",
        "read.__globals__",
        "",
        "finish",
    ],
)
def test_only_what_is_offered_can_be_called(quick, name):
    environment, _ = quick()
    assert environment.call(Call(name, {"scenario": {}})) == f"Error during execution: name {name!r} is not defined"


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "\"); read(); write(text='",
        "{self.notes.__class__}",
        "../../etc/passwd\0",
        "${HOME} `id` \\ \n",
        "read()",
        "</s>\U0001f600[[[(((",
    ],
)
def test_text_stays_text(quick, text):
    environment, _ = quick()
    assert json.loads(environment.call(Call("write", {"text": text}))) == {"notes": ["old", text]}
    said = environment.call(Call("write", {"text": "a", text: text, "self": 1, "__class__": text}))
    assert said.startswith("Error during execution: ")
    assert environment.call(Call("write", {"text": {"__class__": [text]}})).startswith('{"notes": ["old", ')


def test_what_is_no_literal_is_refused(quick):
    environment, _ = quick()
    nested: list = []
    nested.append(nested)
    for value in (object(), {1, 2}, nested):
        assert environment.call(Call("write", {"text": value})).startswith("Error during execution: ")
    assert environment.call(Call("read")) == "old"


@pytest.mark.parametrize("long_context", [False, True])
def test_two_conversations_share_nothing(quick, long_context):
    identity = "multi_turn_long_context_0" if long_context else "multi_turn_base_0"
    (one, _), (other, _) = quick(identity), quick(identity)
    for number in (1, 2, 3):
        assert one.call(Call("count")) == other.call(Call("count")) == str(number)
        one.call(Call("write", {"text": "one"}))
    assert one.call(Call("read")) == "old, one, one, one"
    assert other.call(Call("read")) == "old"
    again, _ = quick(identity)
    assert again.call(Call("count")) == "1"


@pytest.mark.parametrize("how", ["hang", "exit", "fork", "base", "unspeakable"])
def test_a_tool_that_takes_the_process_with_it_ends_neither_us_nor_the_conversation(quick, how):
    environment, _ = quick()
    environment.call(Call("write", {"text": "new"}))
    bad = Call("odd", {"kind": how}) if how in ("base", "unspeakable") else Call("misbehave", {"how": how})
    begun = time.monotonic()
    said = environment.call(bad)
    assert said.startswith("Error during execution: ")
    assert environment.call(Call("read")) == "old, new"
    assert time.monotonic() - begun < 20
    environment.follow_up(None)
    environment.call(Call("power", {"base": 2, "exponent": 3}))
    environment.follow_up(None)
    assert environment.outcome()["success"]


def test_a_number_too_large_to_compute_is_given_up(quick):
    environment, _ = quick()
    said = environment.call(Call("power", {"base": 9, "exponent": 10**9}))
    assert said.startswith("Error during execution: no answer in 2 seconds")
    assert environment.call(Call("power", {"base": 2, "exponent": 10})) == '{"result": 1024}'


def test_memory_is_limited_prints_are_no_answers_and_long_answers_are_cut(quick):
    environment, _ = quick()
    assert environment.call(Call("misbehave", {"how": "memory"})) == "Error during execution: "
    assert environment.call(Call("misbehave", {"how": "print"})) == "printed"
    assert environment.call(Call("misbehave", {"how": "long"})) == "x" * 1_000_000
    assert environment.call(Call("read")) == "old"


def test_tools_see_none_of_our_environment(quick, monkeypatch):
    monkeypatch.setenv(SECRET, "1")
    environment, _ = quick()
    environment.call(Call("misbehave", {"how": "exit"}))  # to start a new process
    seen = environment.call(Call("misbehave", {"how": "environment"}))
    assert "PYTHONHASHSEED" in seen
    assert SECRET not in seen
    assert "PATH" not in seen.replace("PYTHONPATH", "")


def alive(pid):
    """Return whether a process runs (a zombie does not)."""
    with suppress(OSError), open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc to look for processes in")
def test_processes_end_with_the_simulators_that_started_them(package):
    simulators = Simulators(package.parent)
    scenario = bfcl.read_entries(package, "multi_turn_base")["multi_turn_base_0"].scenario
    child = simulators.answer(scenario, [[Call("misbehave", {"how": "spawn"})]])
    own = simulators._process.pid
    assert alive(own)
    assert alive(child)
    del simulators
    deadline = time.monotonic() + 10
    while (alive(own) or alive(child)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(own)
    assert not alive(child)


def test_a_process_that_somebody_ended_costs_no_answer(quick):
    environment, _ = quick()
    environment.call(Call("read"))
    process = environment._simulators._process
    process.kill()
    process.wait()
    assert environment.call(Call("read")) == "old"


# --- verdict ----------------------------------------------------------------------------------------------------------

NEW, READ, EIGHT = Call("write", {"text": "new"}), Call("read"), Call("power", {"base": 2, "exponent": 3})


@pytest.mark.parametrize(
    ("turns", "turn", "error", "reason"),
    [
        ([[NEW, READ], [EIGHT]], None, None, None),
        ([[READ, NEW, READ, READ], [READ, EIGHT]], None, None, None),
        ([[NEW, READ, EIGHT], [READ]], None, None, None),  # already answered in the turn before
        ([[READ], [EIGHT]], 1, "instance_state_mismatch", "GorillaFileSystem is ['old'], not ['old', 'new']"),
        ([[NEW, READ], [NEW]], 2, "instance_state_mismatch", "is ['old', 'new', 'new'], not ['old', 'new']"),
        ([[NEW, READ], [READ]], 2, "execution_response_mismatch", "not among the answers: '{\"result\": 8}'"),
        ([[NEW, READ], []], 2, "empty_turn_model_response", "nothing was called"),
        ([[NEW, READ]], 2, "force_terminated", "the conversation broke off in this turn"),
        ([], 1, "force_terminated", "the conversation broke off in this turn"),
    ],
)
def test_the_verdict_names_the_first_turn_that_failed_and_why(quick, turns, turn, error, reason):
    environment, _ = quick()
    hold(environment, turns)
    found = environment.outcome()
    assert (found["success"], found["turn"], found["error"], found["turns"]) == (turn is None, turn, error, 2)
    assert found["reason"] == reason if reason is None else reason in found["reason"]


def test_calls_of_a_turn_that_was_not_ended_do_not_count(quick):
    environment, _ = quick()
    hold(environment, [[NEW, READ]])
    environment.call(EIGHT)
    assert environment.outcome()["error"] == "force_terminated"
    environment.follow_up("8")
    assert environment.outcome()["success"]


def test_states_that_cannot_be_compared_have_failed(package):
    simulators = Simulators(package.parent)
    scenario = bfcl.read_entries(package, "multi_turn_base")["multi_turn_base_0"].scenario
    nested = [[Call("nest")]]
    found = simulators.verdict(scenario, nested, nested)
    assert (found["success"], found["turn"], found["error"]) == (False, 1, "not_comparable")
    assert found["reason"].startswith("RecursionError")
    simulators.close()
