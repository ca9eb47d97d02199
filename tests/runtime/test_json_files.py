"""Files that runs leave: whatever they contain, reading ends in a value or in one kind of error."""

from __future__ import annotations

import ast

import pytest

from tests.support.paths import ROOT
from tltrain.runtime import json_files

ELSEWHERE = {
    "evaluation/records.py": "lines of answers: a model's call may nest deeper, and is written there",
    "formats/answers.py": "text of a tool, repaired where it is no JSON",
    "formats/chat_completions.py": "text of a model, compared with what is read back from it",
    "inference/token_bytes.py": "a value of this process, as plain JSON",
    "serving/recorder.py": "what the process wrote that started it, as plain JSON",
    "serving/llama_cpp.py": "what its server answers, on this machine",
    "runtime/messages.py": "signed by a process of the run",
    "sources/endpoint.py": "the request that was just made, as plain JSON",
    "evaluation/transcription.py": "a value of this process, as plain JSON",
    "toolworld/world.py": "a value of this process, as plain JSON",
}
"""Modules that parse JSON themselves, and what; those that talk to a sandbox's processes limit what they read."""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 100_000, "nested deeper than 100"),
        (b"[" * 102 + b"]" * 102, "nested deeper than 100"),
        (b'{"a": 1', "delimiter"),
        (b"\xff", "utf-8"),
        (b"", "Expecting value"),
    ],
)
def test_what_is_no_json_is_a_value_error(tmp_path, content, said):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        json_files.read(tmp_path / "file")


def test_values_are_read(tmp_path):
    (tmp_path / "file").write_text("[" * 100 + "1" + "]" * 100)
    value = json_files.read(tmp_path / "file")
    while isinstance(value, list):
        (value,) = value
    assert value == 1
    with pytest.raises(ValueError, match="expected a JSON object, found list"):
        json_files.read_object(tmp_path / "file")
    (tmp_path / "file").write_text('{"a": [null, 1e3]}')
    assert json_files.read_object(tmp_path / "file") == {"a": [None, 1000.0]}


def test_a_large_file_is_a_value_error_before_it_is_parsed(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("[1, 2]")
    monkeypatch.setattr(json_files, "MAX_BYTES", 6)
    assert json_files.read(tmp_path / "file") == [1, 2]
    monkeypatch.setattr(json_files, "MAX_BYTES", 5)
    with pytest.raises(ValueError, match="larger than 0 MiB"):
        json_files.read(tmp_path / "file")


def test_no_other_module_parses_the_json_of_a_file():
    found = {
        file.relative_to(ROOT / "tltrain").as_posix()
        for file in (ROOT / "tltrain").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("json.load", "json.loads")
    }
    environments = {name for name in found if name.startswith("environments/")}
    assert found - environments - {"runtime/json_files.py"} == set(ELSEWHERE)
