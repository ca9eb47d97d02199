"""stage=eval stage.compare=[A,B]: whether two result folders of stage=eval differ by more than chance.

    python -m tltrain stage=eval stage.compare=[outputs/eval/TIME_A,outputs/eval/TIME_B]

Reads the folders' `predictions.jsonl`, which must be answers to the same samples in the same order, and prints for each
set B - A in TS, PI, CF (percent; on RoTBench the `fixed` scoring) and reward, with a 95 % interval by paired bootstrap
and a p-value by paired randomization (`tltrain.scoring.paired`), and both folders' calls by kind of error. Writes
`metrics.json`: `SET/LEVEL/difference` and `SET/LEVEL/p`, under `details` all numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tltrain import runs, scoring, terminal
from tltrain.data.reading import expect, member, records, shown
from tltrain.errors import FieldError, RecordError, TltrainError
from tltrain.grading import RewardTable
from tltrain.report import tables

ROWS = [row.name for row in fields(RewardTable)]


@dataclass(frozen=True, slots=True)
class Line:
    """What is compared of a line of `predictions.jsonl`; TS, PI and CF as 0 or 100."""

    sample: tuple[str, str, str]  # set, id, golden calls
    row: str
    numbers: dict[str, float]  # ts, pi, cf, reward


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the comparison into `folder`; returns what it wrote to `metrics.json`."""
    if len(cfg.stage.compare) != 2:
        raise TltrainError(f"stage.compare: expected two result folders, [A,B], found {len(cfg.stage.compare)}")
    paths = [Path(path) for path in cfg.stage.compare]
    a, b = map(read, paths)
    check_same(paths, a, b)

    metrics: dict[str, Any] = {"compare": [str(path) for path in paths], "details": {}}
    for name in dict.fromkeys(line.sample[0] for line in a):
        ours = [[line for line in lines if line.sample[0] == name] for lines in (a, b)]
        differences = {
            level: scoring.paired(*([line.numbers[level] for line in lines] for lines in ours), seed=cfg.seed)
            for level in (*scoring.LEVELS, "reward")
        }
        metrics["details"][name] = {
            "levels": {
                level: {key: round(value, 4) for key, value in asdict(difference).items()}
                for level, difference in differences.items()
            },
            "rows": dict(zip("ab", map(count, ours), strict=True)),
        }
        for level, found in metrics["details"][name]["levels"].items():
            metrics |= {f"{name}/{level}/difference": found["difference"], f"{name}/{level}/p": found["p"]}
    runs.finish(folder, cfg, metrics)
    show(metrics)
    terminal.console.print(f"Written to {folder}", markup=False)
    return metrics


def read(path: Path, key: str = "stage.compare") -> list[Line]:
    """The lines of a result folder that `key` gives.

    Raises:
        TltrainError: it has no `predictions.jsonl`, or a line is not one of stage=eval.
    """
    file = path / "predictions.jsonl"
    if not file.is_file():
        raise TltrainError(f"{key}: {path} has no predictions.jsonl; expected a result folder of stage=eval")
    lines = []
    for number, record in records(file):
        try:
            lines.append(_line(expect(record, dict, "line")))
        except FieldError as error:
            raise RecordError(file, number, error) from None
    if not lines:
        raise TltrainError(f"{file}: expected predictions, found none")
    return lines


def _line(record: dict[str, Any]) -> Line:
    row = member(record, "grade", str)
    if row not in ROWS:
        raise FieldError("grade", f"one of {', '.join(ROWS)}", row)
    reward = record.get("reward")
    if isinstance(reward, bool) or not isinstance(reward, int | float):
        raise FieldError("reward", "a number", shown(reward))
    levels = {level: 100.0 * member(record, level, bool) for level in scoring.LEVELS}
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


def count(lines: Sequence[Line]) -> dict[str, int]:
    return {row: sum(line.row == row for line in lines) for row in ROWS}


def show(metrics: dict[str, Any]) -> None:
    """The tables on the terminal."""
    for letter, path in zip("AB", metrics["compare"], strict=True):
        terminal.console.print(f"{letter}: {path}", markup=False)
    rows = [
        [
            f"{name} {level.upper() if level in scoring.LEVELS else level}",
            found["n"],
            *(f"{found[side]:.2f}" for side in "ab"),
            f"{found['difference']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]",
            f"{found['p']:.4f}",
        ]
        for name, both in metrics["details"].items()
        for level, found in both["levels"].items()
    ]
    terminal.table("B - A on the same samples [95 % interval]", ["", "n", "A", "B", "B - A", "p"], rows)
    tables.show_kinds(
        {
            f"{name} {letter.upper()}": counts
            for name, both in metrics["details"].items()
            for letter, counts in both["rows"].items()
        }
    )
