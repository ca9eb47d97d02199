"""stage=eval stage.compare=[A,B]: whether two result folders of stage=eval differ by more than chance.

    python -m tltrain stage=eval stage.compare=[outputs/eval/TIME_A,outputs/eval/TIME_B]

Reads the folders' `predictions.jsonl`, which must be answers to the same samples in the same order, and prints for each
set B - A in TS, PI, CF (percent; on RoTBench the `fixed` scoring) and reward, with a 95 % interval by paired bootstrap
and a p-value by paired randomization (`scoring.paired`), and both folders' calls by kind of error. Of whole
conversations (`transcripts.jsonl`) it is DE, CE, VA and success (`tltrain.evaluation.conversation_lines`). Writes
`metrics.json`: `SET/LEVEL/difference` and `SET/LEVEL/p`, under `details` all numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig

from tltrain.data.reading import expect, member, records, shown
from tltrain.errors import FieldError, RecordError, TltrainError
from tltrain.evaluation import conversation_lines, scoring
from tltrain.evaluation.metrics import CONVERSATION, SINGLE_TURN
from tltrain.grading import RewardTable
from tltrain.runtime import runs, terminal
from tltrain.views import tables

T = TypeVar("T")
ROWS = [row.name for row in fields(RewardTable)]


@dataclass(frozen=True, slots=True)
class Line:
    """What is compared of an answer, or of a conversation; what is true or false as 0 or 100."""

    sample: tuple[str, str, str]  # set, id, golden calls
    row: str | None  # of a call
    numbers: dict[str, float]  # ts, pi, cf, reward; de, ce, va, success


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the comparison into `folder`; returns what it wrote to `metrics.json`."""
    if len(cfg.stage.compare) != 2:
        raise TltrainError(f"stage.compare: expected two result folders, [A,B], found {len(cfg.stage.compare)}")
    paths = [Path(path) for path in cfg.stage.compare]
    a, b = map(conversations_or_answers, paths)
    check_levels(paths, a, b)
    check_same(paths, a, b)

    metrics: dict[str, Any] = {"compare": [str(path) for path in paths], "details": {}}
    for name in dict.fromkeys(line.sample[0] for line in a):
        ours = [[line for line in lines if line.sample[0] == name] for lines in (a, b)]
        differences = {
            level: scoring.paired(*([line.numbers[level] for line in lines] for lines in ours), seed=cfg.seed)
            for level in ours[0][0].numbers
        }
        metrics["details"][name] = {
            "levels": {
                level: {key: round(value, 4) for key, value in asdict(difference).items()}
                for level, difference in differences.items()
            },
            "rows": dict(zip("ab", map(count, ours), strict=True)) if ours[0][0].row else {},
        }
        for level, found in metrics["details"][name]["levels"].items():
            metrics |= {f"{name}/{level}/difference": found["difference"], f"{name}/{level}/p": found["p"]}
    runs.finish(folder, cfg, metrics)
    show(metrics)
    terminal.console.print(f"Written to {folder}", markup=False)
    return metrics


def conversations_or_answers(path: Path) -> list[Line]:
    """What a result folder holds.

    Raises:
        TltrainError: it has neither `transcripts.jsonl` nor `predictions.jsonl`, or a line is not one of stage=eval.
    """
    file = path / "transcripts.jsonl"
    return _conversations(file) if file.is_file() else read(path)


def read(path: Path, key: str = "stage.compare") -> list[Line]:
    """The lines of a result folder that `key` gives.

    Raises:
        TltrainError: it has no `predictions.jsonl`, or a line is not one of stage=eval.
    """
    file = path / "predictions.jsonl"
    if not file.is_file():
        raise TltrainError(f"{key}: {path} has no predictions.jsonl; expected a result folder of stage=eval")
    return _each(file, _line, "predictions")


def _each(file: Path, made_of: Callable[[dict[str, Any]], T], what: str) -> list[T]:
    """What `made_of` makes of each line, which may raise a FieldError; there has to be one."""
    found = []
    for number, record in records(file):
        try:
            found.append(made_of(expect(record, dict, "line")))
        except FieldError as error:
            raise RecordError(file, number, error) from None
    if not found:
        raise TltrainError(f"{file}: expected {what}, found none")
    return found


def _conversations(file: Path) -> list[Line]:
    """The conversations of a result folder, which are of one set."""
    found = _each(file, _checked, "conversations")
    return [
        Line(
            ("conversations", line["id"], line["meta"]["query"]),
            None,
            {level: 100.0 * line[level] for level in CONVERSATION if level in line},
        )
        for line in conversation_lines.lines(found, "conversations")
    ]


def _checked(record: dict[str, Any]) -> dict[str, Any]:
    """The record, if it has what `tltrain.evaluation.conversation_lines` reads."""
    for key, kind in (("id", str), ("ended", str), ("valid", bool), ("outcome", dict)):
        member(record, key, kind)
    for message in member(record, "messages", list):
        member(expect(message, dict, "message"), "role", str)
        member(message, "content", str)
    for call in member(record, "calls", list):
        for key in ("de", "ce"):
            member(expect(call, dict, "call"), key, bool)
    if not isinstance(record.get("answer"), str | None):
        raise FieldError("answer", "text or null", shown(record.get("answer")))
    return record


def _line(record: dict[str, Any]) -> Line:
    row = member(record, "grade", str)
    if row not in ROWS:
        raise FieldError("grade", f"one of {', '.join(ROWS)}", row)
    reward = record.get("reward")
    if isinstance(reward, bool) or not isinstance(reward, int | float):
        raise FieldError("reward", "a number", shown(reward))
    levels = {level: 100.0 * member(record, level, bool) for level in SINGLE_TURN}
    sample = (member(record, "set", str), member(record, "id", str), shown(member(record, "goldens", list)))
    return Line(sample, row, {**levels, "reward": float(reward)})


def check_same(paths: Sequence[Path], a: Sequence[Line], b: Sequence[Line]) -> None:
    """Raise a TltrainError unless both folders answer the same samples in the same order."""
    needed = "stage.compare needs answers to the same samples in the same order"
    if len(a) != len(b):
        raise TltrainError(f"{needed}: {paths[0]} has {len(a)} ({_sets(a)}), {paths[1]} has {len(b)} ({_sets(b)})")
    for number, (left, right) in enumerate(zip(a, b, strict=True), 1):
        left_id, right_id = (" ".join(line.sample[:2]) for line in (left, right))
        if left_id != right_id:
            raise TltrainError(f"{needed}: line {number} is {left_id} in {paths[0]}, {right_id} in {paths[1]}")
        if left.sample != right.sample:
            raise TltrainError(f"{needed}: {paths[0]} and {paths[1]} have different golden calls for {left_id}")


def _sets(lines: Sequence[Line]) -> str:
    return ", ".join(dict.fromkeys(line.sample[0] for line in lines))


def check_levels(paths: Sequence[Path], a: Sequence[Line], b: Sequence[Line]) -> None:
    """Raise a TltrainError unless both folders measured the same."""
    measured = [set().union(*(line.numbers for line in lines)) for lines in (a, b)]
    if measured[0] != measured[1]:
        said = "; ".join(f"{path}: {', '.join(sorted(found))}" for path, found in zip(paths, measured, strict=True))
        raise TltrainError(f"stage.compare needs results that measured the same: {said}")


def count(lines: Sequence[Line]) -> dict[str, int]:
    return {row: sum(line.row == row for line in lines) for row in ROWS}


def show(metrics: dict[str, Any]) -> None:
    """The tables on the terminal."""
    for letter, path in zip("AB", metrics["compare"], strict=True):
        terminal.console.print(f"{letter}: {path}", markup=False)
    rows = [
        [
            f"{name} {level.upper() if len(level) == 2 else level}",
            found["n"],
            *(f"{found[side]:.2f}" for side in "ab"),
            f"{found['difference']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]",
            f"{found['p']:.4f}",
        ]
        for name, both in metrics["details"].items()
        for level, found in both["levels"].items()
    ]
    terminal.table("B - A on the same samples [95 % interval]", ["", "n", "A", "B", "B - A", "p"], rows)
    kinds = {
        f"{name} {letter.upper()}": counts
        for name, both in metrics["details"].items()
        for letter, counts in both["rows"].items()
    }
    if kinds:
        tables.show_kinds(kinds)
