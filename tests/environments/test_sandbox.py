"""Tools that hang, crash, lie or snoop: each call gets an answer as text, and nothing is left behind."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.rude_tools import LIMITS, best_only, gone, running, still_works
from tltrain.environments import sandbox_folders

# --- hanging, ending ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["hang", "ignore_signals", "spin"])
def test_a_tool_that_does_not_return_is_ended_in_time(rude, tool):
    tools = rude()
    began = time.monotonic()
    assert tools.call(tool, {}) == "Error: the tool took longer than 1 s"
    assert 1 <= time.monotonic() - began < 15  # on a busy machine its end takes seconds
    assert still_works(tools)


@pytest.mark.parametrize(
    ("tool", "arguments", "answer"),
    [
        ("end_process", {"code": 3}, "Error: the tool ended its process (status 3)"),
        ("end_process", {"code": 0}, "Error: the tool ended its process (status 0)"),
        ("crash", {}, "Error: the tool ended its process (SIGSEGV)"),
    ],
)
def test_a_tool_that_ends_its_process(level, rude, tool, arguments, answer):
    tools = rude(level)
    assert tools.call(tool, arguments) == answer
    assert still_works(tools)


def test_a_tool_that_signals_its_group_or_closes_all_files_ends_only_itself(level, rude):
    tools = rude(level)
    assert tools.call("kill_group", {}) == "Error: the tool ended its process (SIGKILL)"
    assert still_works(tools)
    assert tools.call("close_files", {}).startswith("Error: the tool ended its process")
    assert still_works(tools)


def test_sys_exit_is_an_answer_and_the_process_lives_on(calm):
    assert still_works(calm)
    process = calm._process
    assert calm.call("leave", {"code": 3}) == "Error: SystemExit: 3"
    assert still_works(calm) and calm._process is process


# --- excess ---------------------------------------------------------------------------------------------------------


def test_what_tools_print_goes_nowhere(calm, capfd):
    assert calm.call("shout", {}) == '"said"'
    assert capfd.readouterr() == ("", "")


def test_a_long_answer_is_cut_and_says_so(calm):
    answer = calm.call("flood", {})
    assert answer == '"' + "x" * (199 - len("... [cut: 3,000,002 characters]")) + "... [cut: 3,000,002 characters]"
    assert len(answer) == LIMITS.output


@pytest.mark.parametrize(("length", "cut"), [(198, False), (199, True)])
def test_an_answer_of_just_the_length_allowed_is_whole(calm, length, cut):
    assert ("[cut:" in calm.call("echo", {"value": "x" * length})) is cut


def test_memory_is_limited(level, rude):
    tools = rude(level)
    assert tools.call("allocate", {}) == "Error: MemoryError"
    assert still_works(tools)


def test_the_size_of_files_is_limited(level, rude):
    tools = rude(level)
    assert tools.call("write_much", {"megabytes": 3}) == str(3 << 20)
    answer = tools.call("write_much", {"megabytes": 6})
    assert answer.startswith(("Error: [Errno 27]", "Error: [Errno 28]"))  # file too large, no space left


def test_deep_nesting_is_an_error(calm):
    assert calm.call("nest", {}).startswith("Error: RecursionError")
    assert still_works(calm)


# --- processes ------------------------------------------------------------------------------------------------------


def test_no_process_outlives_the_call_that_started_it(level, rude):
    tools = rude(level)
    assert tools.call("leave_child", {"seconds": f"31.{os.getpid()}1"}) == '"left"'
    assert gone(f"31.{os.getpid()}1")
    assert still_works(tools)


def test_no_process_outlives_a_call_that_hangs(level, rude):
    assert rude(level).call("hang_with_child", {"seconds": f"31.{os.getpid()}2"}) == (
        "Error: the tool took longer than 1 s"
    )
    assert gone(f"31.{os.getpid()}2")


def test_closing_leaves_nothing(level, rude, tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox_folders, "parent_folder", lambda: str(tmp_path))
    tools = rude(level)
    assert tools.call("write_file", {"path": "file"}) == "17"
    supervisor = tools._process.pid
    tools.close()
    assert not Path(f"/proc/{supervisor}").exists()
    assert list(tmp_path.iterdir()) == []


def test_the_number_of_processes_is_limited(level, rude):
    tools = rude(level, seconds=30)  # 150 processes take more than a second on a busy machine
    children = int(tools.call("breed", {"most": 150}))
    assert 0 < children < (LIMITS.processes if level == "namespaces" else 140)
    if level == "namespaces":
        assert int(tools.call("breed", {"most": 150})) == children  # no process of the first call is left


@best_only
def test_a_fork_bomb_does_not_get_away(rude):
    children = int(rude(seconds=30).call("breed", {"most": 40}))
    assert 0 < children < LIMITS.processes  # otherwise `bomb` would be dangerous
    tools = rude()
    assert still_works(tools)
    home = tools._folder.path
    assert tools.call("bomb", {}).startswith("Error: the tool")
    assert gone(home)
    assert still_works(tools)
    home = tools._folder.path
    assert running(home)
    tools.close()
    assert gone(home)


def test_a_thread_left_behind_does_not_disturb_the_next_call(rude):
    tools = rude()
    assert tools.call("leave_thread", {}) == '"left"'
    assert still_works(tools)


def test_everything_ends_with_our_process(tmp_path):
    """A killed process cannot clean up; the closed channel tells the supervisor, which does."""
    import signal
    import subprocess
    import sys

    seconds = f"32.{os.getpid()}"
    script = (
        "import threading\nfrom tests.support.rude_tools import *\n"
        "tools = Sandbox(LIBRARY, 'Hostile.Rude.tool', FUNCTIONS, Limits(seconds=20))\n"
        "threading.Thread(target=tools.call, args=('hang_with_child', {'seconds': '" + seconds + "'})).start()\n"
    )
    ours = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env={**os.environ})
    deadline = time.monotonic() + 30
    while not running(f"sleep {seconds}"):
        assert time.monotonic() < deadline and ours.poll() is None
        time.sleep(0.05)
    ours.send_signal(signal.SIGKILL)
    ours.wait()
    assert gone(f"sleep {seconds}")


# --- odd exceptions and values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("odd", "Error: Odd: of no known kind"),
        ("mute", "Error: Mute, whose message cannot be shown"),
        ("interrupt", "Error: KeyboardInterrupt"),
        ("exit", "Error: SystemExit: bye"),
        ("generator", "Error: GeneratorExit"),
        ("stop", "Error: over"),
        ("key", "Error: KeyError: 'key'"),
        ("empty", "Error: ValueError"),
        ("liar", "Error: a lie"),
        ("recursion", "Error: RecursionError: maximum recursion depth exceeded"),
        ("no such kind", "Error: KeyError: 'no such kind'"),
    ],
)
def test_every_exception_is_reported(calm, kind, answer):
    assert calm.call("fail", {"kind": kind}) == answer
    assert still_works(calm)


def test_a_long_message_is_cut(calm):
    answer = calm.call("fail", {"kind": "long"})
    assert answer.startswith("Error: yyy") and answer.endswith("[cut: 1,000,007 characters]")


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("object", "Error: Object of type object is not JSON serializable"),
        ("function", "Error: Object of type function is not JSON serializable"),
        ("bytes", "Error: Object of type bytes is not JSON serializable"),
        ("generator", "Error: Object of type generator is not JSON serializable"),
        ("cycle", "Error: Circular reference detected"),
        ("keys", "Error: keys must be str, int, float, bool or None, not tuple"),
    ],
)
def test_what_cannot_be_written_as_json_is_an_error(calm, kind, answer):
    assert calm.call("unwritable", {"kind": kind}) == answer


def test_half_a_surrogate_pair_is_replaced(calm):
    assert calm.call("surrogate", {}) == '"?"'


def test_numbers_outside_json_are_written_as_in_python(calm):
    assert calm.call("not_a_number", {}).startswith("[NaN, 1000")


# --- arguments and names --------------------------------------------------------------------------------------------

PLAIN = [
    "\"'`'''\"\"\"\\",
    "[{(<>)}]",
    "__import__('os').system('touch /tmp/pwned')",
    "{0.__class__.__mro__}",
    "../../../../etc/passwd",
    "$(reboot) ; rm -rf / #",
    "a\n\r\x00\x1b[2J\u2028",
    "\U0001f600é",
    None,
    [True, 1.5, {"__class__": {"": []}}],
]


@pytest.mark.parametrize("value", PLAIN, ids=range(len(PLAIN)))
def test_arguments_arrive_as_they_are(calm, value):
    assert json.loads(calm.call("echo", {"value": value})) == value


@pytest.mark.parametrize(
    "name",
    [
        "os",
        "os.system",
        "socket",
        "Odd",
        "__import__",
        "__builtins__",
        "echo.__globals__",
        "../tool",
        "",
        "echo\n",
        "\0",
    ],
)
def test_only_documented_functions_are_called(calm, name):
    assert calm.call(name, {"value": 1}) == f"Error: there is no tool named {name}"


def test_the_supervised_process_checks_names_too(calm):
    """If our own check were fooled, the child process would still look names up among the documented ones."""
    assert still_works(calm)
    line = json.dumps({"function": "Odd", "arguments": {}}).encode() + b"\n"
    assert calm._ask(line) == "Error: there is no tool named Odd in the library"


@pytest.mark.parametrize("key", ["__class__", "self", "value: str = 1", "code:", "../x", ""])
def test_unknown_parameters_are_the_tools_error(calm, key):
    assert calm.call("echo", {"value": 1, key: 2}) == (f"Error: echo() got an unexpected keyword argument '{key}'")


def test_arguments_that_are_no_json_are_an_error(calm):
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    assert calm.call("echo", {"value": object()}).startswith("Error: the arguments cannot be written as JSON")
    assert calm.call("echo", {"value": deep}).startswith("Error: the arguments cannot be written as JSON")


def test_long_arguments_arrive(calm):
    assert calm.call("echo", {"value": "x" * 1_000_000}).endswith("[cut: 1,000,002 characters]")
