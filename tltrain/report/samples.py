"""The samples that flip between rows, small enough to stand in the page.

A reader chooses any two rows; the page therefore carries every sample on which any two rows differ at any level. Texts
are kept once however often they occur, cut to a length at which a call is still whole, and samples are left out, evenly
over the sets, when they would make the page too large; the page says how many.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tltrain.evaluation.metrics import METRICS
from tltrain.evaluation.records import Prediction, by_sample
from tltrain.formats.calls import render_call
from tltrain.report.numbers import Sample
from tltrain.report.sweep import Sweep
from tltrain.trajectory import Call

TEXT = 800  # characters of an answer, a question, a golden call
GOLDENS = 4  # accepted calls of a sample that are shown
BUDGET = 900_000  # characters of all samples together


@dataclass
class Texts:
    """Texts by number, each kept once."""

    known: dict[str, int] = field(default_factory=dict)
    size: int = 0

    def number(self, text: str) -> int:
        text = cut(text)
        if text not in self.known:
            self.known[text] = len(self.known)
            self.size += len(json.dumps(text)) + 1
        return self.known[text]


def cut(text: str, limit: int = TEXT) -> str:
    """`text`, or its beginning and how much is missing."""
    return text if len(text) <= limit else f"{text[:limit]} … [{len(text) - limit:,} characters more]"


def show_call(call: Any) -> str:
    """A golden call of a prediction as it is written; whatever else stands there as JSON."""
    if isinstance(call, Mapping) and isinstance(call.get("name"), str) and isinstance(call.get("arguments"), Mapping):
        return render_call(Call(call["name"], dict(call["arguments"])))
    return json.dumps(call, ensure_ascii=False)


Answers = dict[tuple[int, int], dict[Sample, Prediction]]  # (row, seed) -> sample -> prediction


def flipping(sweep: Sweep) -> dict[str, Any]:
    """What the page's script needs: `texts`, `samples` and, for each row and seed, the `answers`.

    A sample is [set, id, question, golden calls] and an answer [text, grade, reason, levels reached as bits], numbers
    standing for entries of `sets`, `texts` and `grades`; an answer that is not there is 0. `left_out` counts the
    samples that flip but are not here.
    """
    answers: Answers = {
        (i, job.seed): by_sample(job.predictions) for i, row in enumerate(sweep.rows) for job in row.finished
    }
    measured = [prediction.scores for predictions in answers.values() for prediction in predictions.values()]
    levels = [key for key in METRICS if any(isinstance(scores.get(key), bool) for scores in measured)]
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
    """The accepted calls, one a line."""
    calls = prediction.goldens
    more = [f"… and {len(calls) - GOLDENS} more"] if len(calls) > GOLDENS else []
    return "\n".join([*map(show_call, calls[:GOLDENS]), *more])


def _all(answers: Answers) -> Iterator[Sample]:
    yield from dict.fromkeys(sample for predictions in answers.values() for sample in predictions)


def _flips(sample: Sample, answers: Answers, levels: list[str]) -> bool:
    """Whether two rows with the same seed differ at any level."""
    by_seed: dict[int, set[int]] = {}
    for (_, seed), predictions in answers.items():
        if sample in predictions:
            by_seed.setdefault(seed, set()).add(_bits(predictions[sample], levels))
    return any(len(found) > 1 for found in by_seed.values())


def _bits(prediction: Prediction, levels: list[str]) -> int:
    return sum((prediction.scores.get(level) is True) << position for position, level in enumerate(levels))


def _in_turn(samples: Iterator[Sample]) -> Iterator[Sample]:
    """One of each set, then the next of each."""
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
