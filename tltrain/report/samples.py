"""Select the samples that flip between rows and make them small enough to embed in the page.

A reader can choose any two rows, so the page includes every sample on which any two rows differ at any level. Each text
is stored once and cut to a length that still shows a whole call. If the page would become too large, samples are left
out evenly over the sets, and the page states how many.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tltrain.evaluation.metrics import METRICS
from tltrain.evaluation.predictions import RATES, Prediction, by_sample
from tltrain.formats.calls import render_call
from tltrain.report.numbers import Sample
from tltrain.report.sweep import Sweep
from tltrain.trajectory import Call

TEXT = 800  # maximum characters of an answer, a question or a golden call
GOLDENS = 4  # maximum number of accepted calls shown for a sample
BUDGET = 900_000  # maximum characters of all samples together


@dataclass
class Texts:
    """Numbered texts, each stored once."""

    known: dict[str, int] = field(default_factory=dict)
    size: int = 0

    def number(self, text: str) -> int:
        text = cut(text)
        if text not in self.known:
            self.known[text] = len(self.known)
            self.size += len(json.dumps(text)) + 1
        return self.known[text]


def cut(text: str, limit: int = TEXT) -> str:
    """Return `text`; if it is too long, its first `limit` characters and the number of missing ones."""
    return text if len(text) <= limit else f"{text[:limit]} … [{len(text) - limit:,} characters more]"


def render_golden(call: Any) -> str:
    """Render a prediction's golden call in call syntax, or as JSON if it is not a call."""
    if isinstance(call, Mapping) and isinstance(call.get("name"), str) and isinstance(call.get("arguments"), Mapping):
        return render_call(Call(call["name"], dict(call["arguments"])))
    return json.dumps(call, ensure_ascii=False)


Answers = dict[tuple[int, int], dict[Sample, Prediction]]  # (row, seed) -> sample -> prediction


def flipping_samples(sweep: Sweep) -> dict[str, Any]:
    """Return the data of the page's script: `texts`, `samples` and, for each row and seed, `answers`.

    A sample is [set, id, question, golden calls]; an answer is [text, grade, reason, levels reached as bits]. Numbers
    refer to the entries of `sets`, `texts` and `grades`; a missing answer is 0. `left_out` counts the flipping samples
    that are not included.
    """
    answers: Answers = {
        (i, job.seed): by_sample(job.predictions) for i, row in enumerate(sweep.rows) for job in row.finished
    }
    measured = [prediction.scores for predictions in answers.values() for prediction in predictions.values()]
    levels = [key for key in METRICS if key not in RATES and any(key in scores for scores in measured)]
    ordered = _in_turn(sample for sample in _all(answers) if _flips(sample, answers, levels))
    texts, samples, left_out = Texts(), [], 0
    sets: dict[str, int] = {}
    grades: dict[str, int] = {}
    found: dict[tuple[int, int], list[Any]] = {key: [] for key in answers}
    size = 0
    for sample in ordered:
        if size + texts.size > BUDGET:
            left_out += 1
            continue
        predictions = {key: known[sample] for key, known in answers.items() if sample in known}
        first = next(iter(predictions.values()))
        samples.append(
            [
                sets.setdefault(first.set, len(sets)),
                cut(first.id, 120),
                texts.number(first.query),
                texts.number(goldens(first)),
            ]
        )
        for key in answers:
            found[key].append(_answer(predictions[key], texts, grades, levels) if key in predictions else 0)
        size += 60 + 22 * len(answers)
    return {
        "rows": [row.label for row in sweep.rows],
        "answers": [{"row": row, "seed": seed, "lines": lines} for (row, seed), lines in found.items()],
        "sets": list(sets),
        "grades": list(grades),
        "levels": levels,
        "texts": list(texts.known),
        "samples": samples,
        "left_out": left_out,
    }


def goldens(prediction: Prediction) -> str:
    """Render the accepted calls, one per line."""
    calls = prediction.goldens
    more = [f"… and {len(calls) - GOLDENS} more"] if len(calls) > GOLDENS else []
    return "\n".join([*map(render_golden, calls[:GOLDENS]), *more])


def _all(answers: Answers) -> Iterator[Sample]:
    yield from dict.fromkeys(sample for predictions in answers.values() for sample in predictions)


def _flips(sample: Sample, answers: Answers, levels: list[str]) -> bool:
    """Return whether two rows with the same seed differ at any level."""
    by_seed: dict[int, set[int]] = {}
    for (_, seed), predictions in answers.items():
        if sample in predictions:
            by_seed.setdefault(seed, set()).add(_bits(predictions[sample], levels))
    return any(len(found) > 1 for found in by_seed.values())


def _bits(prediction: Prediction, levels: list[str]) -> int:
    return sum(prediction.reaches(level) << position for position, level in enumerate(levels))


def _in_turn(samples: Iterator[Sample]) -> Iterator[Sample]:
    """Interleave the samples of all sets: the first of each set, then the second of each, and so on."""
    by_set: dict[str, list[Sample]] = {}
    for sample in samples:
        (name, *_), _ = sample
        by_set.setdefault(name, []).append(sample)
    for group in itertools.zip_longest(*by_set.values()):
        yield from (sample for sample in group if sample is not None)


def _answer(prediction: Prediction, texts: Texts, grades: dict[str, int], levels: list[str]) -> list[int]:
    return [
        texts.number(prediction.answer),
        grades.setdefault(prediction.grade, len(grades)),
        texts.number(prediction.reason),
        _bits(prediction, levels),
    ]
