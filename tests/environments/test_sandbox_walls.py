"""A tool can neither see nor reach our environment, our files, the network, or the channel of its answers."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading

import pytest

from tests.support.paths import ROOT
from tests.support.rude_tools import AVAILABLE, LIMITS, RUDE, best_only, still_works
from tltrain.environments import sandbox
from tltrain.environments.sandbox import Sandbox

# --- the protocol ---------------------------------------------------------------------------------------------------


def test_forged_answers_are_refused(level, rude):
    tools = rude(level)
    assert tools.call("forge", {}) == "Error: what came back from the tool is no answer"
    assert still_works(tools)


def test_what_is_written_between_calls_answers_nothing(rude):
    tools = rude()
    first = tools.call("forge_later", {})
    second = tools.call("hang", {})
    assert first == '"true"'
    assert second == "Error: what came back from the tool is no answer"
    assert still_works(tools)


def test_a_tool_may_spoil_the_json_module_for_itself_only(level, rude):
    tools = rude(level)
    assert tools.call("patch_json", {}) == '{"a": [1, null]}'
    assert still_works(tools)


def test_a_module_that_cannot_be_loaded_is_reported_at_each_call(tmp_path):
    folder = tmp_path / "Some" / "Broken"
    folder.mkdir(parents=True)
    (folder / "tool.py").write_text("import no_such_package\n\ndef f():\n    return 1\n")
    with Sandbox(tmp_path, "Some.Broken.tool", {"f"}, LIMITS) as tools:
        assert tools.call("f", {}) == tools.call("f", {}) == "Error: No module named 'no_such_package'"
        assert tools.load_error == "Error: No module named 'no_such_package'"


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("import time; time.sleep(30)", "Error: the tool took longer than 1 s"),
        ("import os; os._exit(4)", "Error: the tool ended its process (status 4)"),
        ("raise SystemExit('no')", "Error: SystemExit: no"),
        ("syntax error", "Error: invalid syntax (tool.py, line 1)"),
    ],
)
def test_a_module_that_harms_while_it_is_loaded(tmp_path, line, answer):
    folder = tmp_path / "Some" / "Broken"
    folder.mkdir(parents=True)
    (folder / "tool.py").write_text(f"{line}\n")
    with Sandbox(tmp_path, "Some.Broken.tool", {"f"}, LIMITS) as tools:
        assert tools.call("f", {}) == answer


# --- secrets and files ----------------------------------------------------------------------------------------------


def test_the_environment_of_our_process_is_hidden(level, rude, monkeypatch):
    """Neither the tool's own environment nor (except at the weakest level) that of the processes above it has it."""
    monkeypatch.setenv("SECRET_TOKEN", "a-secret-of-ours")
    if level == "process":
        assert "SECRET_TOKEN" not in sandbox.environment(network=True)
        pytest.skip("without help of the kernel, /proc shows a user's own processes")
    with open(f"/proc/{os.getpid()}/cmdline") as file:
        assert "a-secret-of-ours" not in file.read()
    assert rude(level).call("look_around", {}) == '"nothing"'


def test_the_secret_is_found_without_the_sandbox(rude, monkeypatch):
    """Control: shows that the test above can fail."""
    monkeypatch.setattr(sandbox, "environment", lambda network: {"SECRET_TOKEN": "a-secret-of-ours"})
    assert rude().call("look_around", {}) == '"secret in sight"'


def test_files_of_ours_are_not_read(level, rude, tmp_path):
    if level == "process":
        pytest.skip("a process of our user reads what we read")
    (tmp_path / "secret").write_text("a-secret-of-ours")
    tools = rude(level)
    assert tools.call("read_file", {"path": str(tmp_path / "secret")}).startswith("Error: [Errno")
    assert tools.call("read_file", {"path": __file__}).startswith("Error: [Errno")
    assert tools.call("read_file", {"path": "/etc/shadow"}).startswith("Error: [Errno")
    assert "Tools that misbehave" in tools.call("read_file", {"path": str(RUDE / "tool.py")})


def test_a_library_that_root_alone_may_read_is_read(level, tmp_path):
    folder = tmp_path / "library" / "Some" / "Private"
    folder.mkdir(parents=True)
    for file, text in (("tool.py", "from .other import f\n"), ("other.py", "def f():\n    return 'read'\n")):
        (folder / file).write_text(text)
        (folder / file).chmod(0o600)
    folder.chmod(0o700)
    with Sandbox(tmp_path / "library", "Some.Private.tool", {"f"}, LIMITS, level=level) as tools:
        assert tools.call("f", {}) == '"read"'


def test_nothing_is_written_outside_its_folder(level, rude, tmp_path):
    if level == "process":
        pytest.skip("a process of our user writes what we write")
    (tmp_path / "ours").write_text("ours")
    tools = rude(level)
    for place in (str(tmp_path / "ours"), str(tmp_path / "new"), str(RUDE / "new"), "/etc/new", "/new", "/usr/new"):
        for tool in ("write_file", "link_and_write"):
            tools.call("write_file", {"path": "here"})
            assert tools.call(tool, {"path": place}).startswith("Error: [Errno"), place
    tools.close()
    assert (tmp_path / "ours").read_text() == "ours" and [path.name for path in tmp_path.iterdir()] == ["ours"]
    assert sorted(path.name for path in RUDE.iterdir()) == ["config_gpt4.json", "tool.py"]


def test_its_own_folder_is_new_with_each_process(level, rude):
    tools = rude(level)
    assert tools.call("write_file", {"path": "note"}) == "17"
    assert tools.call("read_file", {"path": "note"}) == '"written by a tool"'
    tools.close()
    assert tools.call("read_file", {"path": "note"}).startswith("Error: [Errno 2]")


@best_only
def test_the_tool_has_no_rights(calm):
    *capabilities, no_new_privileges, user = json.loads(calm.call("rights", {}))
    assert capabilities == ["0" * 16] * 5
    assert no_new_privileges == "1"
    assert user.split() == [str(os.getuid() or 65534)] * 4


def test_the_tool_makes_no_namespaces(level, rude):
    assert rude(level).call("new_namespace", {}) == "[-1, 1]"  # EPERM


# --- the network ----------------------------------------------------------------------------------------------------


@pytest.fixture
def port():
    """The port of a server on loopback that says hello."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_greet, args=(server,), daemon=True).start()
        yield server.getsockname()[1]


@pytest.fixture
def unix(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        threading.Thread(target=_greet, args=(server,), daemon=True).start()
        yield str(tmp_path / "s")


def _greet(server):
    with contextlib.suppress(OSError):
        while True:
            with server.accept()[0] as connection:
                connection.sendall(b"hello")


def test_the_network_is_off(level, rude, port, unix):
    tools = rude(level)
    assert tools.call("connect", {"port": port}).startswith("Error: [Errno")
    assert tools.call("connect_by_program", {"port": port}) == '"refused"'
    assert tools.call("connect_unix", {"path": unix}).startswith("Error: [Errno")
    assert tools.call("other_socket", {}).startswith("Error: [Errno")


def test_the_network_is_on_where_it_is_asked_for(level, rude, port):
    tools = rude(level, network=True)
    assert tools.call("connect", {"port": port}) == '"hello"'
    assert tools.call("connect_by_program", {"port": port}) == '"hello"'
    assert tools.call("other_socket", {}).startswith("Error: [Errno")


# --- effective isolation --------------------------------------------------------------------------------------------


@pytest.mark.skipif(not AVAILABLE["landlock"], reason="the kernel has no Landlock")
def test_landlock_replaces_namespaces_where_these_are_forbidden(tmp_path):
    """A process that may not call `unshare` detects that, reports it, and isolates its tools without namespaces."""
    (tmp_path / "secret").write_text("a-secret-of-ours")
    script = f"""
import logging
from tests.support.rude_tools import *
from tltrain.environments import sandbox_seccomp
logging.basicConfig(format="%(message)s")
sandbox_seccomp.seccomp(list(sandbox_seccomp.FAMILIES.values()))
print(sandbox.isolation())
with Sandbox(LIBRARY, "Hostile.Rude.tool", FUNCTIONS, LIMITS) as tools:
    print(tools.call("read_file", {{"path": "{tmp_path}/secret"}}))
    print(tools.call("echo", {{"value": 1}}))
"""
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout.splitlines() == [
        "Isolation(level='landlock', network='refused by the kernel')",
        f"Error: [Errno 13] Permission denied: '{tmp_path}/secret'",
        "1",
    ]
    (warning,) = ran.stderr.splitlines()
    assert "at isolation level landlock without the isolation of namespaces: " in warning
    assert "namespace" in warning.partition("of namespaces: ")[2]  # bubblewrap's own message


def test_a_proxy_with_a_password_is_not_passed_on(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://user:password@proxy:1")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:1")
    assert "HTTPS_PROXY" not in sandbox.environment(network=True)
    assert sandbox.environment(network=True)["HTTP_PROXY"] == "http://proxy:1"
    assert "HTTP_PROXY" not in sandbox.environment(network=False)
