"""examples/: every documented command composes, and the support desk's logs have the documented properties."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from itertools import pairwise

import pytest
import yaml

from tests.support.paths import ROOT

EXAMPLES = ROOT / "examples"
DESK = EXAMPLES / "support_desk"


def commands() -> list[str]:
    """Return the lines of examples/ that run tltrain, from Markdown files and from the heads of YAML files."""
    files = [*EXAMPLES.rglob("*.md"), *EXAMPLES.rglob("*.yaml")]
    lines = [line for file in sorted(files) for line in file.read_text(encoding="utf-8").splitlines()]
    found = [re.match(r"(?:# |    )python -m tltrain (.*)", line) for line in lines]
    return sorted({match[1] for match in found if match})


@pytest.fixture
def script():
    """Return the namespace of make_conversations.py."""
    return runpy.run_path(str(DESK / "make_conversations.py"))


@pytest.mark.parametrize("command", commands())
def test_the_commands_of_the_examples_compose(tltrain, command, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = [word for word in shlex.split(command, comments=True) if word not in ("--cfg", "job")]
    composed = yaml.safe_load(tltrain("--cfg", "job", *words).out)
    for key in ("data", "benchmark"):
        path = composed[key].get("path")
        assert path is None or path.startswith("outputs/") or (ROOT / path).is_file()


def test_the_examples_show_each_way_from_the_file_to_the_asked_model():
    stages = {word.partition("=")[2] for command in commands() for word in command.split() if word.startswith("stage=")}
    assert stages >= {"inspect", "mae", "pkt", "predict", "eval"}


def test_the_generator_writes_the_files_that_are_committed(script, monkeypatch, tmp_path):
    main = script["main"]
    monkeypatch.setitem(main.__globals__, "FOLDER", tmp_path)
    main()
    for name in ("conversations.jsonl", "held_out.jsonl", "request.json"):
        assert (tmp_path / name).read_bytes() == (DESK / name).read_bytes(), name


def test_the_conversations_are_varied_and_no_file_says_which_calls_failed(script):
    records = [json.loads(line) for line in (DESK / "conversations.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(records) == 40
    queries = {record["messages"][1]["content"] for record in records}
    shapes = {tuple(message["role"] for message in record["messages"]) for record in records}
    assert len(queries) == 40 and len(shapes) >= 5
    assert all(set(record) == {"id", "messages", "tools"} for record in records)
    assert all(record["messages"][-1]["role"] == "assistant" for record in records)
    assert any(len(message.get("tool_calls") or ()) == 2 for record in records for message in record["messages"])
    errors = "".join(
        message["content"] for record in records for message in record["messages"] if message["role"] == "tool"
    )
    for style in (
        "Traceback (most",
        '"status": 4',
        '"error": {"code"',
        '"success": false',
        "unknown tool",
        "timed out",
    ):
        assert style in errors, style


def test_mae_finds_the_failed_calls_that_the_generator_put_in(tltrain, script):
    path = DESK / "conversations.jsonl"
    cases = script["cases"](*script["TRAINING"])
    ran = tltrain("stage=mae", "data=openai", f"data.path={path}", "stage.rule=strict")
    found = [_failed(line["messages"]) for line in ran.lines("train.jsonl")]
    assert found == [case.failed for case in cases]
    assert ran.metrics["dropped_error"] == sum(found) == 18
    assert (ran.metrics["trajectories"], ran.metrics["calls"], ran.metrics["dropped_no_answer"]) == (40, 120, 3)
    paper = tltrain("stage=mae", "data=openai", f"data.path={path}").metrics
    assert paper["dropped_error"] == 13  # also counts calls whose answers merely contain the word error


def _failed(messages: list[dict]) -> int:
    """Count the calls that are not learned although a tool answers them."""
    return sum(
        call.get("learn") is False and following["role"] == "tool"
        for message, following in pairwise(messages)
        for call in message.get("calls", [message])
    )


def test_held_out_conversations_share_no_question_and_no_number_with_those_trained_on(script):
    trained, held_out = (script["cases"](*script[name]) for name in ("TRAINING", "HELD_OUT"))
    for facts in (
        lambda cases: {case.messages[1]["content"] for case in cases},
        lambda cases: {number for case in cases for number in re.findall(r"FH-\d+|C-\d{4}|TN\d+", str(case.messages))},
    ):
        assert facts(trained) and not facts(trained) & facts(held_out)


def test_paths_in_the_documentation_exist():
    for file in EXAMPLES.rglob("*.md"):
        for link in re.findall(r"\]\(([^)#:]+)\)", file.read_text(encoding="utf-8")):
            assert (file.parent / link).exists(), f"{file}: {link}"
