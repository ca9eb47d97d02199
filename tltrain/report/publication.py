"""A sweep as `report.texts=false` publishes it: without texts of a benchmark and without places of the machine."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from tltrain.evaluation.predictions import Prediction
from tltrain.report.sweep import Job, Row, Sweep, with_predictions
from tltrain.runtime import redact, yaml_files
from tltrain.views import places

LEGEND = f"{places.LEGEND} that ran it."


def published(sweep: Sweep) -> Sweep:
    """Return the sweep without texts and without places."""
    return without_places(without_texts(sweep))


def without_texts(sweep: Sweep) -> Sweep:
    """Return the sweep without questions and answers.

    A sample keeps its id, grades, levels and a digest of its golden calls, which distinguishes it from other samples.
    """
    return with_predictions(sweep, _textless)


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


def without_places(sweep: Sweep) -> Sweep:
    """Return the sweep with `FILE`, `FOLDER` and `URL` in place of the machine's paths and addresses.

    A row that is named after a path keeps the last name of the path, with a number if rows would become alike.
    """
    labels = _distinct([places.last_names(row.label) for row in sweep.rows])
    rows = [_row(row, label) for row, label in zip(sweep.rows, labels, strict=True)]
    renamed = dict(zip([row.label for row in sweep.rows], labels, strict=True))
    return replace(
        sweep,
        command=places.without_in_command(sweep.command),
        config=_config(sweep.config),
        baseline=sweep.baseline and renamed.get(sweep.baseline, sweep.baseline),
        axes={axis: list(map(_axis, values)) for axis, values in sweep.axes.items()},
        rows=rows,
    )


def _row(row: Row, label: str) -> Row:
    return Row(label, {axis: _axis(value) for axis, value in row.axes.items()}, list(map(_job, row.seeds)))


def _axis(value: object) -> object:
    return places.last_names(value) if isinstance(value, str) else value


def _job(job: Job) -> Job:
    error = job.error and places.without_in_text(job.error)
    return replace(job, folder=Path(job.folder).name, error=error)


def _distinct(names: list[str]) -> list[str]:
    """Number the names that occur more than once."""
    return [
        f"{name} ({names[:number].count(name) + 1})" if names.count(name) > 1 else name
        for number, name in enumerate(names)
    ]


def _config(text: str) -> str:
    try:
        found = yaml_files.parse(text)
    except ValueError:
        return places.without_in_text(text)
    return redact.as_yaml(places.without_in_config(found)) if isinstance(found, dict) else text
