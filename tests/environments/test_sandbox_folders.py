"""The next run removes temporary folders of killed runs; those of running ones, and of other programs, stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tltrain.environments import sandbox_folders
from tltrain.environments.sandbox_folders import ToolFolder

PREFIX = "tltrain-tool-"


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder for temporary files."""
    monkeypatch.setattr(sandbox_folders, "parent_folder", lambda: str(tmp_path))
    sandbox_folders.remove_stale.cache_clear()
    yield tmp_path
    sandbox_folders.remove_stale.cache_clear()


def next_run() -> None:
    """Do what the first folder of a process does."""
    sandbox_folders.remove_stale.cache_clear()
    ToolFolder().close()


def of_a_killed_process(parent: Path) -> Path:
    """A folder whose owner was killed before it could remove it."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, ToolFolder().path.encode())
        time.sleep(30)
        os._exit(0)
    path = Path(os.read(read, 4096).decode())
    next_run()
    assert (path / "owner").is_file()  # its process lives
    (path / "home").mkdir()
    (path / "home" / "file").write_text("written by a tool")
    (path / "home" / "link").symlink_to(parent)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return path


def test_the_folder_of_a_killed_process_goes_with_the_next_run(temporary):
    (temporary / "precious").write_text("ours")
    path = of_a_killed_process(temporary)
    assert path.parent == temporary and path.name.startswith(PREFIX)
    next_run()
    assert [entry.name for entry in temporary.iterdir()] == ["precious"]


def test_the_folder_of_a_living_process_stays(temporary):
    mine = ToolFolder()
    next_run()
    assert Path(mine.path, "owner").is_file()
    mine.close()
    assert list(temporary.iterdir()) == []


def test_links_and_strange_names_stay(temporary, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "owner").write_text("")
    (temporary / f"{PREFIX}link").symlink_to(elsewhere)
    (temporary / "other").mkdir()
    (temporary / "other" / "owner").write_text("")
    os.mkfifo(temporary / f"{PREFIX}fifo")
    next_run()
    assert (elsewhere / "owner").is_file() and len(list(temporary.iterdir())) == 3


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes folders of others")
def test_folders_of_another_user_stay(temporary):
    path = of_a_killed_process(temporary)
    os.chown(path, 1000, 1000)
    next_run()
    assert path.is_dir()


@pytest.mark.parametrize("owner", ["link", "fifo"])
def test_an_owner_that_is_no_file_is_not_waited_for(temporary, tmp_path_factory, owner):
    folder = temporary / f"{PREFIX}odd"
    folder.mkdir()
    victim = tmp_path_factory.mktemp("victim") / "file"
    victim.write_text("ours")
    (folder / "owner").symlink_to(victim) if owner == "link" else os.mkfifo(folder / "owner")
    next_run()
    assert victim.read_text() == "ours"
    assert folder.is_dir() == (owner == "link")


def test_a_folder_of_an_earlier_version_stays_a_day_and_while_a_process_names_it(temporary):
    """Such folders have no owner, and neither has a folder that is just being made."""
    folder = temporary / f"{PREFIX}before"
    folder.mkdir()
    next_run()
    assert folder.is_dir()
    os.utime(folder, (0, 0))
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)", str(folder)])
    while str(folder).encode() not in Path(f"/proc/{child.pid}/cmdline").read_bytes():
        time.sleep(0.01)
    next_run()
    assert folder.is_dir()
    child.kill()
    child.wait()
    next_run()
    assert not folder.exists()


def test_a_run_that_is_killed_with_its_supervisor_leaves_nothing_to_the_run_after(tmp_path):
    """As if the machine ran out of memory: nobody is left to clean up."""
    tmp_path.chmod(0o755)
    script = (
        "import sys, time\nfrom tltrain.environments import sandbox_folders\n"
        f"sandbox_folders.parent_folder = lambda: {str(tmp_path)!r}\n"
        "from tests.support.rude_tools import LIBRARY, LIMITS, Sandbox\n"
        "with Sandbox(LIBRARY, 'Hostile.Rude.tool', {'echo'}, LIMITS) as tools:\n"
        "    assert tools.call('echo', {'value': 1}) == '1'\n"
        "    print(tools._process.pid, flush=True)\n"
        "    sys.stdin.read(1)\n"
    )

    def run() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    with run() as first:
        supervisor = int(first.stdout.readline())
        for pid in (first.pid, supervisor):
            os.kill(pid, signal.SIGSTOP)
        for pid in (supervisor, first.pid):
            os.kill(pid, signal.SIGKILL)
    left = [path.name for path in tmp_path.iterdir()]
    assert left and all(name.startswith(PREFIX) for name in left)
    with run() as second:
        second.communicate("x", timeout=30)
    assert second.returncode == 0 and list(tmp_path.iterdir()) == []
