"""Data files that nobody should be given: each is read, or refused in one line, quickly, nothing evaluated."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tests.support import irm_records, rotbench_records, toolalpaca_records
from tests.support.hostile_inputs import file_of, watch
from tests.support.mae_rules import PAPER, STRICT
from tests.support.reader_samples import CHAT, LOVE, RAW, STUBS
from tltrain import mae
from tltrain.data import bfcl, chat, irm, native, openai, rotbench, tl_training, toolalpaca, turns
from tltrain.data.reading import ReadReport, read_file
from tltrain.errors import TltrainError
from tltrain.formats import joined, tool_errors
from tltrain.formats.tl import TL
from tltrain.stages.evaluations.single_turn import read_predictions
from tltrain.trajectory import Sample, Trajectory

SAID = [
    {"role": "System", "content": STUBS},
    {"role": "User", "content": "Advice on love?"},
    {"role": "Assistant", "content": 'search(query="löve", limit=2)'},
    {"role": "Output", "content": "Listen."},
]
QUESTION = {
    "id": "simple_0",
    "question": [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Advice?"}]],
    "function": [
        {
            "name": "math.search",
            "description": "Finds.",
            "parameters": {
                "type": "dict",
                "properties": {"query": {"type": "string"}, "sizes": {"type": "array", "items": {"type": "integer"}}},
                "required": ["query"],
            },
        }
    ],
}
ANSWER = {"id": "simple_0", "ground_truth": [{"math.search": {"query": ["love", "Love"], "sizes": [[1, 2], ""]}}]}
PYTHON = {"id": "simple_0", "ground_truth": ["math.search(query='love', sizes=[1, -2])"]}


def _parsed(parse: Callable) -> Callable[[Path, str, ReadReport], Any]:
    return lambda path, on_error, report: read_file(path, parse, on_error, report)


def _rotbench(turn: str, read: Callable) -> Callable[[Path, str, ReadReport], Any]:
    def read_level(path: Path, on_error: str, report: ReadReport) -> Any:
        folder = path.parent / "rotbench"
        file = folder / f"{turn}_turn" / "clean.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(path.read_bytes())
        return read(folder, on_error=on_error, report=report, check_counts=False)

    return read_level


def _bfcl(questions: list[Any] | None, answers: list[Any] | None) -> Callable[[Path, str, ReadReport], Any]:
    """Reads a damaged file of questions, or of answers, beside a good one of the other."""

    def read(path: Path, on_error: str, report: ReadReport) -> Any:
        data = path.parent / "bfcl"
        (data / "possible_answer").mkdir(parents=True, exist_ok=True)
        for folder, good in ((data, questions), (data / "possible_answer", answers)):
            content = path.read_bytes() if good is None else json.dumps(good[0]).encode()
            (folder / "BFCL_v4_simple_python.json").write_bytes(content)
        return bfcl.read_samples(data, "simple_python", report, check_counts=False)

    return read


FORMATS: dict[str, tuple[list[Any], Callable[[Path, str, ReadReport], Any]]] = {
    "tl_training": ([RAW], _parsed(tl_training.parse)),
    "openai": ([CHAT], _parsed(openai.parse)),
    "openai benchmark": ([CHAT], _parsed(openai.parse_sample)),
    "tltrain": ([json.loads(native.dumps(LOVE))], _parsed(native.parse)),
    "irm": ([irm_records.RECORD], _parsed(irm.parse)),
    "turns": (turns.turn_records(LOVE), lambda path, on_error, report: turns.read(path, on_error, report)),
    "rotbench": ([rotbench_records.THIRD], _rotbench("third", rotbench.read_training)),
    "rotbench benchmark": (
        [rotbench_records.FIRST],
        _rotbench("first", lambda folder, **how: rotbench.read_samples(folder, turns=("first",), **how)),
    ),
    "toolalpaca": (
        [toolalpaca_records.API],
        lambda path, on_error, report: toolalpaca.read_samples(path, "real", report, False),
    ),
    "bfcl questions": ([QUESTION], _bfcl(None, [ANSWER])),
    "bfcl answers": ([ANSWER], _bfcl([QUESTION], None)),
    "bfcl answers in Python": ([PYTHON], _bfcl([QUESTION], None)),
    "history": (
        [{**CHAT, "messages": CHAT["messages"][:-1]}],
        lambda path, on_error, report: [chat.read_history(path)],
    ),
    "history in text": (SAID, lambda path, on_error, report: [chat.read_history(path)]),
    "predictions": ([{"prediction": "f()"}], lambda path, on_error, report: read_predictions(path, 1)),
}


def read_and_use(name: str, path: Path, on_error: str, kinds: list[tool_errors.Rule]) -> bool:
    """Whether the file was read; what was read can be judged, shown to a model and written."""
    report = ReadReport()
    try:
        for item in FORMATS[name][1](path, on_error, report):
            if isinstance(item, Trajectory):
                json.loads(native.dumps(item).encode())
                for rule in (None, *kinds):
                    mae.verdicts(item, rule)
                joined(TL.segments(item)).encode()
            elif isinstance(item, Sample):
                joined(TL.prompt_segments(item)).encode()
    except TltrainError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000, str(error)[:2000]
        return False
    assert all("\n" not in line for line in report.skipped)
    return not report.skipped


def fuzz(count: int, seed: int, where: Path) -> tuple[int, float, int, Counter[str]]:
    """(files, slowest in ms, MiB grown, files read of each format)."""
    rng, kinds, read = random.Random(seed), (PAPER, STRICT), Counter()
    path = where / "data.json"
    for name, (records, _) in FORMATS.items():  # whatever is imported late is imported now
        path.write_text(json.dumps(records if name == "history in text" else records[0]))
        assert read_and_use(name, path, "stop", kinds), name
    with watch() as found:
        for number, name in zip(range(count), chain.from_iterable([list(FORMATS)] * count), strict=False):
            data = file_of(FORMATS[name][0], rng)
            path.write_bytes(data)
            with found.reading((name, data)):
                read[name] += read_and_use(name, path, "skip" if number % 3 == 0 else "stop", kinds)
    found.check()
    return found.count, 1000 * found.slowest, found.grown, read


def test_hostile_files(tmp_path):
    *_, read = fuzz(300, 1, tmp_path)
    assert sum(read.values()) > 20  # some damage does no harm


@pytest.mark.faults
def test_twenty_thousand_hostile_files(tmp_path, figures):
    count, slowest, grown, _ = fuzz(20_000, 2, tmp_path)
    figures(
        "Hostile inputs", what="files", inputs=count, crashes=0, slowest=f"{slowest:.0f} ms", memory=f"+{grown} MiB"
    )


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_meets_damage_that_it_refuses(name, tmp_path):
    rng, kinds, path = random.Random(5), (PAPER, STRICT), tmp_path / "data.json"
    answers = set()
    for _ in range(40):
        path.write_bytes(file_of(FORMATS[name][0], rng))
        answers.add(read_and_use(name, path, "stop", kinds))
        if False in answers:
            break
    assert False in answers
