"""stage=eval stage.compare=[A,B]: test whether two result folders of stage=eval differ significantly.

    python -m tltrain stage=eval stage.compare=[outputs/eval/TIME_A,outputs/eval/TIME_B]

Reads the folders' `predictions.jsonl`, which must answer the same samples in the same order, and prints for each set
B - A in TS, PI, CF (percent; on RoTBench the `fixed` scoring) and reward, with a 95 % interval by paired bootstrap and
a p-value by paired randomization (`intervals.paired_difference`), and both folders' calls by kind of error. For whole
conversations (`transcripts.jsonl`) it compares DE, CE, VA and success (`evaluation.conversation_lines`). Writes
`metrics.json`: `SET/LEVEL/difference` and `SET/LEVEL/p`, and all numbers under `details`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from omegaconf import DictConfig

from tltrain.errors import TltrainError, shorten
from tltrain.evaluation import conversation_lines
from tltrain.evaluation.intervals import paired_difference
from tltrain.evaluation.predictions import Prediction, count_grades, read_graded
from tltrain.evaluation.transcripts import TRANSCRIPTS, read_transcripts
from tltrain.runtime import runs, terminal
from tltrain.views import evaluation_tables


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the comparison in `folder` and return what it wrote to `metrics.json`."""
    metrics = compare(list(cfg.stage.compare), cfg.seed)
    runs.finish(folder, cfg, metrics)
    evaluation_tables.show_comparison(metrics)
    terminal.console.print(f"Written to {folder}", markup=False)
    return metrics


def compare(folders: Sequence[str], seed: int) -> dict[str, Any]:
    """Compare two result folders and return the metrics."""
    if len(folders) != 2:
        raise TltrainError(f"stage.compare: expected two result folders, [A,B], found {len(folders)}")
    paths = [Path(path) for path in folders]
    a, b = map(read, paths)
    check_metrics(paths, a, b)
    check_same(paths, a, b)
    metrics: dict[str, Any] = {"compare": [str(path) for path in paths], "details": {}}
    for name in dict.fromkeys(prediction.set for prediction in a):
        members_a, members_b = ([prediction for prediction in side if prediction.set == name] for side in (a, b))
        known = {level for one in members_b for level in numbers(one)}
        measured = dict.fromkeys(level for one in members_a for level in numbers(one) if level in known)
        levels = {level: difference(members_a, members_b, level, seed) for level in measured}
        rows = {"a": count_grades(members_a), "b": count_grades(members_b)} if members_a[0].is_call else {}
        metrics["details"][name] = {"levels": levels, "rows": rows}
        for level, compared in levels.items():
            metrics |= {f"{name}/{level}/difference": compared["difference"], f"{name}/{level}/p": compared["p"]}
    return metrics


def read(folder: Path) -> list[Prediction]:
    """Read the answers in a result folder, or its conversations as predictions.

    Raises:
        TltrainError: it has neither `transcripts.jsonl` nor `predictions.jsonl`, or a line is not one of stage=eval.
    """
    file = folder / TRANSCRIPTS
    if file.is_file():
        return conversation_lines.predictions(read_transcripts(file), "conversations")
    return read_graded(folder, "stage.compare")


def numbers(prediction: Prediction) -> dict[str, float]:
    """Return the numbers to compare: the metrics in percent and the raw reward."""
    percents = {metric: 100.0 * score for metric, score in prediction.scores.items()}
    return percents if prediction.reward is None else percents | {"reward": float(prediction.reward)}


def difference(a: Sequence[Prediction], b: Sequence[Prediction], level: str, seed: int) -> dict[str, float]:
    """Compute B - A in one number, with interval and p-value, as plain values, over the samples that have it."""
    pairs = [
        (ours[level], theirs[level])
        for ours, theirs in zip(map(numbers, a), map(numbers, b), strict=True)
        if level in ours and level in theirs
    ]
    ours, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    found = paired_difference(ours, theirs, seed)
    values = {
        "a": fmean(ours),
        "b": fmean(theirs),
        "difference": found.value,
        "low": found.low,
        "high": found.high,
        "p": found.p,
    }
    return {key: round(value, 4) for key, value in values.items()} | {"n": found.n}


def check_same(paths: Sequence[Path], a: Sequence[Prediction], b: Sequence[Prediction]) -> None:
    """Raise a TltrainError unless both folders answer the same samples in the same order."""
    needed = "stage.compare needs answers to the same samples in the same order"
    if len(a) != len(b):
        raise TltrainError(f"{needed}: {paths[0]} has {len(a)} ({_sets(a)}), {paths[1]} has {len(b)} ({_sets(b)})")
    for number, (ours, theirs) in enumerate(zip(a, b, strict=True), 1):
        our_id, their_id = (f"{prediction.set} {prediction.id}" for prediction in (ours, theirs))
        if our_id != their_id:
            ours_shown, theirs_shown = shorten(our_id), shorten(their_id)
            raise TltrainError(f"{needed}: line {number} is {ours_shown} in {paths[0]}, {theirs_shown} in {paths[1]}")
        if ours.identity != theirs.identity:
            what = "golden calls" if ours.goldens or theirs.goldens else "questions"
            raise TltrainError(f"{needed}: {paths[0]} and {paths[1]} have different {what} for {shorten(our_id)}")


def _sets(predictions: Sequence[Prediction]) -> str:
    return ", ".join(dict.fromkeys(prediction.set for prediction in predictions))


def check_metrics(paths: Sequence[Path], a: Sequence[Prediction], b: Sequence[Prediction]) -> None:
    """Raise a TltrainError unless both folders have the same metrics."""
    measured = [set().union(*map(numbers, side)) for side in (a, b)]
    if measured[0] != measured[1]:
        said = "; ".join(f"{path}: {', '.join(sorted(names))}" for path, names in zip(paths, measured, strict=True))
        raise TltrainError(f"stage.compare needs results with the same metrics: {said}")
