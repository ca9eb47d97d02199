"""The documented commands run to their end, on a small model and small data."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.composition import mistake
from tests.support.documentation import code_blocks, documented_commands, filled_in
from tests.support.paths import ROOT, ROTBENCH, SHARED
from tests.support.small_runs import SMALL
from tests.support.typed import settled

pytestmark = pytest.mark.slow

TOOLALPACA = SHARED / "data" / "toolalpaca" / "eval_real.json"
SUPPORT_DESK = ROOT / "examples" / "support_desk"

ELSEWHERE = {
    "+experiment=": "tests/sweeps and tests/examples run the experiments",
    "stage=report": "tests/report runs it",
    "model=tiny tracking=none": "tests/stages/test_demo.py runs it",
    "source=endpoint": "needs a server: tests/sources",
    "stage.hub=": "needs a hub: tests/stages/test_export.py",
    "stage.gguf=": "needs llama.cpp's converter: tests/serving/test_llama_cpp.py",
    "stage=pkt model=qwen3_4b": "needs the hub: tests/models/test_published_models.py trains small ones",
    "benchmark=general": "needs data sets of the hub",
    "tracking.mode=online": "needs a network",
    "hardware=gpu": "needs a GPU",
    "hardware.nodes=": "needs two machines",
    "model=smollm2_135m,qwen3_0_6b": "needs the hub",
    "my_conf": "tests/test_documentation.py composes it",
    "benchmark.network=true": "needs a network",
    ",medium,": "the public files here have no level `medium`",
    "benchmark=tooleyes": "needs the benchmark's tools: tests/environments",
}
"""Substrings of commands that do not run here -> why not, or where they run."""


def why_not(command: str) -> str | None:
    """Return why a command is not run here, or None."""
    if "bfcl" in command and find_spec("bfcl_eval") is None:
        return "needs the package bfcl-eval"
    if "tracking=tensorboard" in command and find_spec("tensorboard") is None:
        return "needs tensorboard"
    if re.search(r"rotbench|toolalpaca", command) and not (ROTBENCH.is_dir() and TOOLALPACA.is_file()):
        return f"the public data files are not at {SHARED}"
    return next((reason for mark, reason in ELSEWHERE.items() if mark in command), None)


OURS = ("hydra.run.dir", "model", "tracking", "data.size", "hardware.processes", "stage.max_new_tokens")
"""Keys that a run here sets itself."""
RUN = [command for command in documented_commands() if why_not(command) is None]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """Data files by the name of their choice: one record each of docs/data.md, or more if the repository has more."""
    folder = tmp_path_factory.mktemp("files")
    found = {"openai": SUPPORT_DESK / "conversations.jsonl", "rotbench": ROTBENCH}
    for section in re.split(r"^## ", (ROOT / "docs" / "data.md").read_text(encoding="utf-8"), flags=re.MULTILINE):
        name = re.match(r"`data=(\w+)`", section)
        if name and name[1] not in found and (blocks := code_blocks(section, "json")):
            record = json.loads(blocks[0])
            found[name[1]] = folder / f"{name[1]}.json"
            found[name[1]].write_text(json.dumps(record if isinstance(record, list) else [record] * 4))
    return found


@pytest.fixture(scope="module")
def model(run_once) -> Path:
    """A model trained for one step."""
    return run_once("stage=pkt", *SMALL, "data.size=6", "stage.args.max_steps=1").folder / "model"


@pytest.fixture(scope="module")
def results(run_once) -> list[Path]:
    """Two evaluations of the same questions."""
    words = ("stage=eval", "benchmark=toolworld", "benchmark.size=3")
    return [run_once(*words, f"source={source}").folder for source in ("golden", "random")]


def small(command: str, files: dict[str, Path], model: Path, results: list[Path]) -> list[str]:
    """Return a command's words with files that exist here, a small model and little data."""
    two = ",".join(f"'{folder}'" for folder in results)
    words, given = [], filled_in(command)
    chosen = dict(word.split("=", 1) for word in given if "=" in word)
    stage, data = chosen.get("stage"), chosen.get("data")
    for word in given:
        word = re.sub(r"(?<![\w/])(my_tools\.py|tasks\.jsonl)", r"examples/python_tools/\1", word)
        key, _, value = word.partition("=")
        if key == "data.path" and data in files and not value.startswith("examples"):
            word = f"data.path={files[data]}"
        elif key == "data.path" and stage == "predict":
            word = f"data.path={SUPPORT_DESK / 'request.json'}"
        elif key == "certify":
            word = "certify=1"
        elif key in ("benchmark.path", "paths.rotbench", "paths.toolalpaca") and "python_tools" not in word:
            toolalpaca = "toolalpaca" in key or "benchmark=toolalpaca" in command
            own = SUPPORT_DESK / "held_out.jsonl" if "benchmark=openai" in command else ROTBENCH
            word = f"{key}={TOOLALPACA if toolalpaca else own}"
        elif key == "model.path":
            word = f"model.path={model}"
        elif key == "stage.models":
            word = f"stage.models=[base,{model}]"
        elif key in ("stage.compare", "stage.results"):
            word = f"{key}=[{two}]"
        elif key == "stage.predictions" or key in OURS:
            continue
        words.append(word)
    return [*words, *read(words, sizes(command, stage, data))]


def read(words: list[str], added: list[str]) -> list[str]:
    """Return those of the added overrides that the command reads; the others would be refused."""
    while found := re.match(r"([\w.]+): ", mistake(*settled([*words, *added]))):
        rest = [word for word in added if not word.startswith(f"{found[1]}=")]
        if rest == added:  # a mistake of the command itself
            break
        added = rest
    return added


def sizes(command: str, stage: str | None, data: str | None) -> list[str]:
    """Return overrides that make a run small."""
    found = [] if "--config-dir" in command or stage in ("report", "cache", "plan", "mae", "check") else list(SMALL)
    found = [word for word in found if stage != "inspect" or not word.startswith("hardware.")]
    found = [word for word in found if "stage.compare" not in command or not word.startswith("model")]
    if (
        stage in ("pkt", "sft", "irm", "mae", "check", "inspect", "pipeline", "analyze")
        and "stage.results" not in command
    ):
        found += ["data.size=6"] if data in (None, "toolworld") else ["data.limit=4"]
    if stage in ("pkt", "sft", "irm", "irm_released"):
        found.append("stage.args.max_steps=1")
    if stage in ("irm", "irm_released", "eval", "predict", "chat") and "stage.compare" not in command:
        found.append("stage.max_new_tokens=4")
    if stage in ("irm", "irm_released"):
        found += ["stage.eval_size=1", "stage.too_long_answer=keep"]
    if stage == "certify":
        found += ["certify=1", "data.size=6"]
    if stage == "eval" and "stage.compare" not in command:
        found.append("benchmark.limit=2")
    if stage == "pipeline":
        found += ["stage.supervised.args.max_steps=1", "stage.eval.max_new_tokens=4"]
        found.append("stage.benchmarks=[{name: toolworld, size: 2}]")
    if "hardware=zero" in command:
        found += ["hardware.device=cpu", "hardware.processes=2"]
    return found


@pytest.mark.parametrize("command", RUN)
def test_documented_commands_run(command, tltrain, files, model, results, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)  # paths in examples/ are relative to the root
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\n"))  # of stage=chat
    words = small(command, files, model, results)
    if {"--help", "--version"} & set(words):
        words = [word for word in words if word.startswith("-") or word.startswith("stage=")]
    if "-m" in command.split():
        words = ["-m", *words, f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    folder = tmp_path / "run"
    ran = tltrain(*words, folder=folder)
    assert "Traceback" not in ran.err
    if not {"--help", "--version", "-m"} & set(words):
        assert (folder / "metrics.json").is_file()


def test_what_is_not_run_is_named():
    """Every mark of `ELSEWHERE` occurs in a command, so that the list has no stale entries."""
    unused = [mark for mark in ELSEWHERE if not any(mark in command for command in documented_commands())]
    assert unused == []
    assert len(RUN) > 35
    assert os.path.isdir(SUPPORT_DESK)
