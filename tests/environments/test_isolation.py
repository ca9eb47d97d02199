"""The isolation of tools: determined with our own module, not influenced by the library, never weaker than required."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.composition import composed, mistake
from tests.support.rude_tools import AVAILABLE, BEST, LIBRARY, LIMITS, still_works
from tltrain.environments import sandbox, sandbox_library, sandbox_machine
from tltrain.environments.sandbox import ISOLATION_LEVELS, Isolation, Sandbox
from tltrain.errors import TltrainError

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root's tools run as another user")
NOBODY = 65534

# --- the level ------------------------------------------------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch):
    """`machine(*levels)` makes the machine support these levels and no others."""

    def offer(*levels: str) -> None:
        found = {level: Isolation(level, "refused by the kernel") for level in levels}
        monkeypatch.setattr(sandbox, "_probe", lambda level, network: found.get(level, "the kernel refuses"))
        sandbox._say_once.cache_clear()

    return offer


@pytest.mark.parametrize(
    ("minimum", "offered", "level"),
    [
        ("auto", ISOLATION_LEVELS, "namespaces"),
        ("auto", ("landlock", "process"), "landlock"),
        ("landlock", ISOLATION_LEVELS, "namespaces"),
        ("process", ISOLATION_LEVELS, "namespaces"),
        ("process", ("process",), "process"),
        ("namespaces", ISOLATION_LEVELS, "namespaces"),
    ],
)
def test_the_strongest_level_at_or_above_the_minimum_is_taken(machine, minimum, offered, level):
    machine(*offered)
    assert sandbox.isolation(minimum).level == level


@pytest.mark.parametrize(
    ("minimum", "offered"),
    [("auto", ("process",)), ("namespaces", ("landlock", "process")), ("landlock", ("process",)), ("process", ())],
)
def test_less_than_the_minimum_is_refused_in_one_line_that_says_what_to_do(machine, minimum, offered):
    machine(*offered)
    with pytest.raises(TltrainError) as refusal:
        sandbox.isolation(minimum)
    line = str(refusal.value)
    assert line.startswith(
        f"benchmark.isolation={minimum}: this machine has no such isolation (namespaces: the kernel "
    )
    assert "\n" not in line and "install bubblewrap" in line and "benchmark.isolation=process" in line


def test_a_run_is_refused_before_anything_is_loaded(machine):
    machine("landlock", "process")
    words = ["stage=eval", "model=tiny", "benchmark=tooleyes"]
    assert composed(*words).benchmark.isolation == "auto"
    line = mistake(*words, "benchmark.isolation=namespaces")
    assert line.startswith("benchmark.isolation=namespaces: this machine has no such isolation")
    machine("process")
    assert mistake(*words).startswith("benchmark.isolation=auto: this machine has no such isolation")
    assert composed(*words, "benchmark.isolation=process").benchmark.isolation == "process"


def test_an_unknown_level_is_refused():
    assert "isolation" in mistake("stage=eval", "benchmark=tooleyes", "benchmark.isolation=docker")


def test_the_level_is_said_once(machine, caplog):
    machine("landlock", "process")
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            sandbox.isolation()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert (
        "at isolation level landlock without the isolation of namespaces: the kernel refuses: they " in record.message
    )
    machine(*ISOLATION_LEVELS)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        sandbox.isolation()
    assert [entry.levelno for entry in caplog.records] == [logging.INFO]
    assert "at isolation level namespaces: " in caplog.text


@pytest.mark.skipif(not AVAILABLE["landlock"], reason="the kernel has no Landlock")
def test_a_machine_without_bubblewrap_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(sandbox, "bubblewraps", list)
    monkeypatch.setattr(sandbox, "_probe", sandbox._probe.__wrapped__)
    with pytest.raises(
        TltrainError, match=r"namespaces: bubblewrap is missing \(install .* pip install 'tltrain\[sand"
    ):
        sandbox.isolation("namespaces")
    assert sandbox.isolation().level == "landlock"


def test_a_bubblewrap_that_does_not_know_an_option_makes_way_for_the_next(monkeypatch, tmp_path):
    if not AVAILABLE["namespaces"]:
        pytest.skip("the machine offers no namespaces")
    old = tmp_path / "bwrap"
    old.write_text("#!/bin/sh\necho 'bwrap: Unknown option --size' >&2\nexit 1\n")
    old.chmod(0o755)
    others = sandbox.bubblewraps()
    monkeypatch.setattr(sandbox, "bubblewraps", lambda: [str(old), *others])
    assert sandbox._probe.__wrapped__("namespaces", False).level == "namespaces"
    monkeypatch.setattr(sandbox, "bubblewraps", lambda: [str(old)])
    assert sandbox._probe.__wrapped__("namespaces", False) == "bwrap: Unknown option --size"


# --- whom tools run as ----------------------------------------------------------------------------------------------


@as_root
def test_tools_of_root_are_nobody_without_groups(level, rude):
    """Also if Python is in a folder that `nobody` cannot enter."""
    assert json.loads(rude(level).call("groups", {})) == [NOBODY] * 6
    *capabilities, no_new_privileges, _ = json.loads(rude(level).call("rights", {}))
    assert set(capabilities) == {"0" * 16} and no_new_privileges == "1"


@as_root
def test_modules_that_are_imported_later_are_found_by_nobody(level, tmp_path):
    (tmp_path / "late.py").write_text(
        "def f():\n    import sqlite3, wave, xml.dom.minidom, encodings.idna, omegaconf\n    return wave.__name__\n"
    )
    with Sandbox(tmp_path, "late", {"f"}, replace(LIMITS, seconds=30), level=level) as tools:  # imports take a while
        assert tools.call("f", {}) == '"wave"'


@as_root
def test_root_that_cannot_change_its_user_runs_tools_by_process_alone(monkeypatch):
    monkeypatch.setattr(sandbox_machine, "may_change_user", lambda: False)
    assert [sandbox.tool_user(level) for level in ISOLATION_LEVELS] == [NOBODY, NOBODY, None]


# --- the content of a library does not influence the isolation ------------------------------------------------------


@pytest.fixture
def library(tmp_path):
    """A library in a folder that only our user can enter, so that it is copied if we are root."""
    folder = tmp_path / "library"
    shutil.copytree(LIBRARY / "Text", folder / "Text")
    return folder


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # socket names must be short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


def device(path: Path) -> None:
    os.mknod(path, 0o20666, os.makedev(1, 5))  # /dev/zero


@as_root
@pytest.mark.parametrize("make", [fifo, unix_socket, device])
def test_what_cannot_be_copied_is_an_error_that_names_it_and_no_weaker_wall(level, library, make):
    make(library / "Text" / "odd")
    with Sandbox(library, "Text.Words.tool", {"echo"}, LIMITS, level=level) as tools:
        with pytest.raises(TltrainError, match=r"library/Text/odd: the tool library cannot be copied .*pipe, socket"):
            tools.start()
        assert tools.call("echo", {"value": 1}).startswith(f"Error: {library}/Text/odd: the tool library cannot be ")
    assert sandbox.isolation().level == BEST


@as_root
def test_a_file_that_grows_or_is_huge_is_an_error(library, monkeypatch):
    with open(library / "Text" / "huge", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(TltrainError, match=r"Text/huge: .*: the library is larger than 256 MB; remove it"):
        sandbox_library.readable(library, NOBODY)
    (library / "Text" / "huge").unlink()
    monkeypatch.setattr(sandbox_library, "MOST_FILES", 3)
    with pytest.raises(TltrainError, match=r"the library has more than 3 files; remove it"):
        sandbox_library.readable(library, NOBODY)


def test_a_file_that_our_user_cannot_read_is_an_error(library, tmp_path):
    (library / "Text" / "secret").write_text("secret")
    (library / "Text" / "secret").chmod(0)
    (tmp_path / "copy").mkdir()
    for path in (tmp_path, tmp_path / "copy"):
        path.chmod(0o777)
    child = os.fork()
    if child == 0:  # root can read everything, so the test runs as another user
        status = 1
        try:
            os.chdir(tmp_path)
            if os.getuid() == 0:
                os.setgroups([])
                os.setresuid(1000, 1000, 1000)
            sandbox_library.copy(Path("library"), Path("copy"))
        except TltrainError as error:
            status = 0 if str(error).startswith("library/Text/secret: the tool library cannot be copied") else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@as_root
def test_links_in_a_library_are_not_followed_by_who_copies_it(level, library, tmp_path):
    (tmp_path / "secret").write_text("a-secret-of-ours")
    (library / "outside").symlink_to(tmp_path / "secret")
    (library / "around").symlink_to(library)
    (library / "itself").symlink_to("itself")
    (library / "Text" / "Words" / "more.py").symlink_to("tool.py")
    (library / "reader.py").write_text(
        "import os\nfrom Text.Words import more\n\ndef read(name):\n"
        "    return open(os.path.join(os.path.dirname(__file__), name)).read()\n"
    )
    with Sandbox(library, "reader", {"read"}, LIMITS, level=level) as tools:
        for name in ("outside", "itself"):
            answer = tools.call("read", {"name": name})
            assert answer.startswith("Error: [Errno") and "a-secret" not in answer
        assert "import os" in tools.call("read", {"name": "reader.py"})


@as_root
def test_an_unreadable_library_of_another_user_is_copied_and_the_wall_stays(level, library):
    """Inside a user namespace, root has no power over the owner's files, and the copy used to fail."""
    for path in [library, *library.rglob("*")]:
        os.chown(path, 1000, 1000)
        path.chmod(0o700 if path.is_dir() else 0o600)
    with Sandbox(library, "Text.Words.tool", {"echo"}, LIMITS, level=level) as tools:
        assert tools.start().level == level
        assert tools.call("echo", {"value": 1}) == "1"


@as_root
def test_a_library_is_copied_once_and_again_when_it_has_changed(library):
    first = sandbox_library.readable(library, NOBODY)
    assert sandbox_library.readable(library, NOBODY) == first != library
    (library / "Text" / "new").write_text("new")
    second = sandbox_library.readable(library, NOBODY)
    assert second != first and (second / "Text" / "new").read_text() == "new"
    os.mkfifo(library / "pipe")
    with pytest.raises(TltrainError, match="library/pipe: the tool library cannot be copied"):
        sandbox_library.readable(library, NOBODY)


@as_root
def test_tools_cannot_write_the_copy_that_others_load(level, library):
    (library / "writer.py").write_text(
        "def write():\n    with open(__file__, 'a') as file:\n        return file.write('changed = True')\n"
    )
    with Sandbox(library, "writer", {"write"}, LIMITS, level=level) as tools:
        assert tools.call("write", {}).startswith("Error: [Errno")


def test_a_library_that_everybody_can_read_is_used_where_it_is():
    if not sandbox_library.others_may_enter(str(LIBRARY)):
        pytest.skip("this checkout lies in a folder that others cannot enter")
    assert sandbox_library.readable(LIBRARY, NOBODY) == LIBRARY.resolve()


def test_a_session_is_started_called_and_closed(level):
    """A long-lived tool server will be used through the same methods."""
    tools: sandbox.ToolSession = Sandbox(LIBRARY, "Hostile.Rude.tool", {"echo"}, LIMITS, level=level)
    assert tools.start().level == level
    assert still_works(tools)
    tools.close()
