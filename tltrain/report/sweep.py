"""The data of a report: the rows of a sweep, the jobs of each row, and their results. Loads from and saves to JSON.

A row is one combination of the sweep's axes (one line of the ablation table); a job is that combination with one seed.
Running and showing jobs is left to other modules: `tltrain.report.numbers` computes statistics, `tltrain.report.page`
renders them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from tltrain.errors import FieldError, TltrainError, shorten
from tltrain.evaluation.predictions import Prediction
from tltrain.runtime import json_files, runs

FILE = "sweep.json"
DIGEST = "[0-9a-f]{12}"
"""The beginning of a SHA-256 hash, which replaces golden calls that are not published."""


@dataclass(frozen=True, slots=True)
class StageCost:
    """The cost of building one stage of a job.

    Attributes:
        name: data, sft, pkt, irm, eval, ...
        seconds: wall-clock time of building it, even if the result was reused.
        tokens: tokens it processed; None if not applicable.
        peak_memory_bytes: peak memory; None if it was not measured.
        reused: whether this job took the result from the cache.
        fingerprint: digest of everything that determines the result; stages with equal fingerprints are the same.
    """

    name: str
    seconds: float
    tokens: int | None = None
    peak_memory_bytes: int | None = None
    reused: bool = False
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """One run: a row with one seed.

    Attributes:
        error: why it failed; None if it did not.
        metrics: flat, as in `metrics.json` of stage=eval: `rotbench_clean/ts` in percent, `rotbench_clean/n`.
        details: `details` of the same file: set -> scorings, and calls by kind of error (`rows`).
        predictions: from `predictions.jsonl`, or the conversations of `transcripts.jsonl` as predictions.
        curves: name (`train/loss`, `irm/reward`, ...) -> points [step, value].
        stages: in the order in which they ran.
    """

    seed: int
    folder: str = ""
    error: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    predictions: list[Prediction] = field(default_factory=list)
    curves: dict[str, list[list[float]]] = field(default_factory=dict)
    stages: list[StageCost] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Row:
    """One combination of the axes: `Row("MAE + PKT", {"mae": True, "pkt": True, "irm": False}, [Job(0), Job(1)])`."""

    label: str
    axes: dict[str, Any]
    seeds: list[Job] = field(default_factory=list)

    @property
    def finished(self) -> list[Job]:
        """The jobs that succeeded."""
        return [job for job in self.seeds if job.error is None]

    @property
    def failed(self) -> list[Job]:
        """The jobs that failed."""
        return [job for job in self.seeds if job.error is not None]


@dataclass(frozen=True, slots=True)
class Sweep:
    """All data of a report.

    Attributes:
        command: the command line, exactly as typed.
        config: the resolved configuration in YAML.
        created: time of creation, ISO 8601.
        baseline: label of the row that the others are compared with (standard SFT); None if there is none.
        axes: axis -> its values, in order.
        cache: `built`, `reused` (stages), `seconds_saved`.
        environment: machine, operating system, ...; shown verbatim.
    """

    name: str
    command: str
    commit: str
    versions: dict[str, str]
    config: str
    created: str
    baseline: str | None
    axes: dict[str, list[Any]]
    rows: list[Row]
    cache: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def baseline_row(self) -> int | None:
        """The position of the baseline row, or None."""
        return next((i for i, row in enumerate(self.rows) if row.label == self.baseline), None)


def save(sweep: Sweep, path: Path) -> None:
    """Write the sweep as JSON, atomically."""
    record = asdict(_with_predictions(sweep, lambda prediction: prediction.to_json()))
    runs.write_json(path, record)


def load(path: Path) -> Sweep:
    """Read a sweep that `save` wrote.

    Raises:
        TltrainError: the file does not exist or is not JSON, or a key is missing, unknown or of the wrong type.
    """
    try:
        record = json_files.read(path)
    except OSError as error:
        raise TltrainError(f"{path}: expected the {FILE} of a sweep ({error.strerror})") from None
    except ValueError as error:
        raise TltrainError(f"{path}: expected the {FILE} of a sweep, found invalid JSON: {error}") from None
    try:
        return _make(Sweep, record, "", rows=_rows)
    except _Unexpected as error:
        raise TltrainError(f"{path}: {error}") from None


class _Unexpected(Exception):
    """A key of the file is missing, unknown or of the wrong type."""


KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("name", "command", "commit", "config", "created", "label", "folder", "fingerprint"), (str,)),
    **dict.fromkeys(("baseline", "error"), (str, type(None))),
    **dict.fromkeys(("versions", "axes", "cache", "environment", "metrics", "details", "curves"), (dict,)),
    **dict.fromkeys(("rows", "seeds", "predictions", "stages"), (list,)),
    **dict.fromkeys(("tokens", "peak_memory_bytes"), (int, float, type(None))),
    "seed": (int,),
    "seconds": (int, float),
    "reused": (bool,),
}


def _make(cls: type, record: Any, where: str, **inner: Callable[[Any, str], Any]) -> Any:
    """Make a dataclass from its JSON; `inner` converts the members that are dataclasses themselves."""
    if not isinstance(record, dict):
        raise _Unexpected(f"{where or 'the file'}: expected an object, found {type(record).__name__}")
    known = {one.name: one for one in fields(cls)}
    for key in record.keys() - known.keys():
        raise _Unexpected(f"{where}{shorten(key)}: unknown; expected {', '.join(known)}")
    for name, one in known.items():
        if name in record and not isinstance(record[name], KINDS[name]):
            expected = " or ".join(kind.__name__ for kind in KINDS[name])
            raise _Unexpected(f"{where}{name}: expected {expected}, found {type(record[name]).__name__}")
        if name not in record and one.default is MISSING and one.default_factory is MISSING:
            raise _Unexpected(f"{where}{name}: missing")
    made = {name: inner[name](value, f"{where}{name}") if name in inner else value for name, value in record.items()}
    return cls(**made)


def costs(records: Any, file: Path) -> list[StageCost]:
    """Return the costs of a job's stages from a file's `stages`. Raises TltrainError."""
    try:
        if not isinstance(records, list):
            raise _Unexpected(f"stages: expected list, found {type(records).__name__}")
        return _stages(records, "stages")
    except _Unexpected as error:
        raise TltrainError(f"{file}: {error}") from None


def _rows(records: list[Any], where: str) -> list[Row]:
    return [_make(Row, record, f"{where}[{i}].", seeds=_jobs) for i, record in enumerate(records)]


def _jobs(records: list[Any], where: str) -> list[Job]:
    return [
        _make(Job, record, f"{where}[{i}].", stages=_stages, predictions=_predictions)
        for i, record in enumerate(records)
    ]


def _predictions(records: list[Any], where: str) -> list[Prediction]:
    predictions = []
    for i, record in enumerate(records):
        try:
            predictions.append(Prediction.from_json(record))
        except FieldError as error:
            raise _Unexpected(f"{where}[{i}].{error}") from None
    return predictions


def _stages(records: list[Any], where: str) -> list[StageCost]:
    return [_make(StageCost, record, f"{where}[{i}].") for i, record in enumerate(records)]


def without_texts(sweep: Sweep) -> Sweep:
    """Return the sweep without questions and answers.

    A sample keeps its id, grades, levels and a digest of its golden calls, which distinguishes it from other samples.
    """
    return _with_predictions(sweep, _textless)


def _with_predictions(sweep: Sweep, change: Callable[[Prediction], Any]) -> Sweep:
    """Return the sweep with `change` applied to each prediction."""
    rows = [
        replace(row, seeds=[replace(job, predictions=list(map(change, job.predictions))) for job in row.seeds])
        for row in sweep.rows
    ]
    return replace(sweep, rows=rows)


def is_textless(sweep: Sweep) -> bool:
    """Return whether the sweep's predictions come from `without_texts`."""
    predictions = [prediction for row in sweep.rows for job in row.seeds for prediction in job.predictions]
    return bool(predictions) and all(map(_is_textless, predictions))


def _is_textless(prediction: Prediction) -> bool:
    digests = [isinstance(golden, str) and re.fullmatch(DIGEST, golden) for golden in prediction.goldens]
    return not prediction.answer and not prediction.query and len(digests) == 1 and all(digests)


def _textless(prediction: Prediction) -> Prediction:
    *_, asked = prediction.identity
    return Prediction(
        set=prediction.set,
        id=prediction.id,
        goldens=[hashlib.sha256(asked.encode()).hexdigest()[:12]],
        grade=prediction.grade,
        scores=prediction.scores,
        reward=prediction.reward,
        meta={key: value for key, value in prediction.meta.items() if key == "seen"},
    )


def axis_value(value: Any) -> str:
    """Format an axis value as on the command line."""
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def switches(sweep: Sweep) -> list[str]:
    """Return the boolean axes, which tables show as tick marks."""
    return [axis for axis, values in sweep.axes.items() if values and all(isinstance(one, bool) for one in values)]


def other_axes(sweep: Sweep) -> list[str]:
    """Return the other axes, which tables show as words."""
    on_or_off = switches(sweep)
    return [axis for axis in sweep.axes if axis not in on_or_off]


def stage_table(rows: list[Row]) -> Mapping[str, list[StageCost]]:
    """Return all uses of each stage over all jobs, by fingerprint; a stage without one is listed separately."""
    uses: dict[str, list[StageCost]] = {}
    for r, row in enumerate(rows):
        for job in row.seeds:
            for s, stage in enumerate(job.stages):
                uses.setdefault(stage.fingerprint or f"{r}/{job.seed}/{s}", []).append(stage)
    return uses
