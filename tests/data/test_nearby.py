"""A path that is one folder off, or misspelt: the message suggests the intended one."""

from __future__ import annotations

import json
import os

import pytest

from tests.support.composition import mistake
from tests.support.rotbench_records import FIRST
from tltrain.config import OnError
from tltrain.data import bfcl, reading, rotbench, toolalpaca
from tltrain.environments import tooleyes
from tltrain.errors import TltrainError

FILES = {
    "rotbench": "Data/First_Turn/clean.json",
    "toolalpaca": "data/inner/eval_real.json",
    "bfcl": "bfcl_eval/data/BFCL_v4_exec_simple.json",
    "tooleyes": "ToolEyes/Test_Data/Query_data.json",
}
READ = {
    "rotbench": lambda path: list(rotbench.read_samples(path, ["clean"], ["first"])),
    "toolalpaca": toolalpaca.files,
    "bfcl": lambda path: bfcl.read_samples(path, "exec_simple"),
    "tooleyes": tooleyes._queries,
}


@pytest.mark.parametrize(
    ("name", "given", "meant"),
    [
        ("rotbench", "", "Data"),
        ("rotbench", "Data/First_Turn", "Data"),
        ("toolalpaca", "", "data/inner"),
        ("bfcl", "", "bfcl_eval/data"),
        ("tooleyes", "", "ToolEyes"),
        ("tooleyes", "ToolEyes/Tool_Library", "ToolEyes"),
    ],
)
def test_the_folder_that_was_meant_is_named(tmp_path, name, given, meant):
    root = tmp_path / "release"
    file = root / FILES[name]
    file.parent.mkdir(parents=True)
    file.with_name(tooleyes.QUERIES if name == "tooleyes" else file.name).write_text(json.dumps([FIRST]))
    (root / given).mkdir(parents=True, exist_ok=True)
    with pytest.raises(TltrainError) as error:
        READ[name](root / given)
    assert str(error.value).endswith(f"; did you mean {root / meant}?")


def test_nothing_is_named_where_nothing_is_near(tmp_path):
    with pytest.raises(TltrainError) as error:
        rotbench.read_samples(tmp_path / "no" / "such", ["clean"], ["first"]).__next__()
    assert "did you mean" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "Is a directory; did you mean {folder}/chats.jsonl?"),
        ("chat.jsonl", "No such file or directory; did you mean {folder}/chats.jsonl?"),
        ("nothing_like_it", "No such file or directory"),
    ],
)
@pytest.mark.parametrize("read", [reading.check_file, lambda path: list(reading.records(path, OnError.stop))])
def test_the_file_that_was_meant_is_named(tmp_path, given, said, read):
    (tmp_path / "chats.jsonl").write_text("{}\n")
    with pytest.raises(TltrainError) as error:
        read(tmp_path / given)
    assert str(error.value) == f"{tmp_path / given}: expected a file of JSON, found: {said.format(folder=tmp_path)}"


@pytest.mark.skipif(os.name == "nt", reason="there it is a path")
@pytest.mark.parametrize("given", ["C:\\\\chats\\\\a.json", "c:/chats/a.json"])
def test_a_path_of_windows_is_said_elsewhere(given):
    said = "; that is a path of Windows, under WSL /mnt/c/chats/a.json"
    with pytest.raises(TltrainError) as error:
        reading.check_file(given)
    assert str(error.value).endswith(said)
    assert mistake("stage=eval", f"model.path='{given}'") == f"model.path={given}: there is no such folder{said}"


def test_a_pipe_is_not_opened_to_see_that_it_is_there(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reading.check_file(tmp_path / "pipe")  # opening it would wait for a writer
