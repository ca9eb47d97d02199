"""What the rows of a sweep say: mean and spread over seeds, differences to the baseline with intervals, flips.

Differences are taken sample by sample, with the interval and p-value of `intervals.difference_over_seeds`. A difference
counts as more than chance if its p-value, corrected by Holm's method over all rows and sets of one level, is below 5 %.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard, TypeVar

import numpy as np

from tltrain.evaluation.intervals import Difference, SeedPairs, difference_over_seeds, holm
from tltrain.evaluation.metrics import METRICS
from tltrain.evaluation.records import Identity, Prediction, by_sample
from tltrain.report.sweep import Job, Row, Sweep

T = TypeVar("T")
Sample = tuple[Identity, int]
"""A sample of a set, as `by_sample` numbers it."""

MAIN = ("cf", "va", "ts")
"""Of a set's levels, the first of these is what the sweep is judged by."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Percentages of one row over its finished seeds; the standard deviation is None of a single one."""

    mean: float
    std: float | None
    values: tuple[float, ...]


Key = tuple[int, str, str]
"""Row (its position), set, level."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """Everything derived: `sets` maps a set to its levels, `n` to its samples in one seed."""

    sets: dict[str, list[str]]
    n: dict[str, int]
    summaries: dict[Key, Summary]
    comparisons: dict[Key, Difference]

    def main(self, name: str) -> str:
        """The level that a set is judged by."""
        levels = self.sets[name]
        return next((level for level in MAIN if level in levels), levels[0])


def derive(sweep: Sweep, seed: int = 0) -> Numbers:
    """All numbers of a sweep. The same sweep and seed give the same numbers."""
    found = sets(sweep)
    summaries = {
        (i, name, level): summary
        for i, row in enumerate(sweep.rows)
        for name, levels in found.items()
        for level in levels
        if (summary := summarize(row, name, level))
    }
    counts = {name: max((count(job, name) for row in sweep.rows for job in row.finished), default=0) for name in found}
    return Numbers(found, counts, summaries, compare(sweep, found, seed))


def sets(sweep: Sweep) -> dict[str, list[str]]:
    """Set -> its levels, in order of appearance: those with a metric `SET/LEVEL`."""
    found: dict[str, set[str]] = {}
    for row in sweep.rows:
        for job in row.finished:
            for key, value in job.metrics.items():
                name, _, level = key.rpartition("/")
                if level in METRICS and "/" not in name and name and is_number(value):
                    found.setdefault(name, set()).add(level)
    return {name: [level for level in METRICS if level in levels] for name, levels in found.items()}


def count(job: Job, name: str) -> int:
    """How many samples of a set a job answered."""
    n = job.metrics.get(f"{name}/n")
    return int(n) if is_number(n) else sum(prediction.set == name for prediction in job.predictions)


def outcomes(job: Job, name: str, level: str) -> dict[Sample, float]:
    """Sample -> 0 or 100 (of DE and CE any number); empty where nothing is said of single samples."""
    return {
        sample: 100.0 * prediction.scores[level]
        for sample, prediction in answered(job, name).items()
        if level in prediction.scores
    }


def answered(job: Job, name: str) -> dict[Sample, Prediction]:
    """Sample of a set -> its prediction."""
    return by_sample(prediction for prediction in job.predictions if prediction.set == name)


def percent(job: Job, name: str, level: str) -> float | None:
    """One number of one job: over its predictions, which comparisons are made of, else as in its metrics."""
    values = outcomes(job, name, level)
    if values:
        return sum(values.values()) / len(values)
    value = job.metrics.get(f"{name}/{level}")
    return float(value) if is_number(value) else None


def summarize(row: Row, name: str, level: str) -> Summary | None:
    """Mean and sample standard deviation over the seeds that finished; None where none has the number."""
    values = tuple(value for job in row.finished if (value := percent(job, name, level)) is not None)
    if not values:
        return None
    return Summary(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, values)


def is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# Differences


def compare(sweep: Sweep, found: Mapping[str, Sequence[str]], seed: int = 0) -> dict[Key, Difference]:
    """Every row minus the baseline, for the levels that predictions give sample by sample."""
    base = sweep.baseline_row
    if base is None:
        return {}
    results = {
        (i, name, level): {job.seed: values for job in row.finished if (values := outcomes(job, name, level))}
        for i, row in enumerate(sweep.rows)
        for name, levels in found.items()
        for level in levels
    }
    pairs = {
        key: both
        for key, ours in results.items()
        if key[0] != base and (both := pairs_of(ours, results[base, *key[1:]])) is not None
    }
    comparisons = {key: difference_over_seeds(both, seed) for key, both in pairs.items()}
    for level in METRICS:  # one family: all rows and sets of a level
        comparisons |= corrected({key: found for key, found in comparisons.items() if key[2] == level})
    return comparisons


def corrected(family: Mapping[T, Difference]) -> dict[T, Difference]:
    """The differences of a family with their p-values corrected by Holm's method."""
    p_values = holm([difference.p for difference in family.values()])
    return {key: replace(family[key], p_holm=p) for key, p in zip(family, p_values, strict=True)}


def pairs_of(ours: Mapping[int, Mapping], theirs: Mapping[int, Mapping]) -> SeedPairs[Sample] | None:
    """What both have, given seed -> sample -> result of each; None if nothing."""
    found: SeedPairs[Sample] = SeedPairs()
    for seed in sorted(ours.keys() & theirs.keys()):
        samples = tuple(sample for sample in theirs[seed] if sample in ours[seed])
        if samples:
            found.samples.append(samples)
            found.ours.append(np.array([ours[seed][sample] for sample in samples]))
            found.theirs.append(np.array([theirs[seed][sample] for sample in samples]))
    return found if found.samples else None


# Flips


@dataclass(frozen=True, slots=True)
class Flip:
    """A sample that one row has right at a level and the other wrong; `gained`: b has it right."""

    name: str
    id: str
    gained: bool
    a: Prediction
    b: Prediction


def flips(a: Job, b: Job, level: str = "cf") -> list[Flip]:
    """The samples on which two jobs differ at a level, in the order of `a`; what only one answered is left out."""
    theirs = by_sample(b.predictions)
    pairs = ((ours, theirs[sample]) for sample, ours in by_sample(a.predictions).items() if sample in theirs)
    return [
        Flip(ours.set, ours.id, bool(other.scores.get(level)), ours, other)
        for ours, other in pairs
        if bool(ours.scores.get(level)) != bool(other.scores.get(level))
    ]


def error_kinds(row: Row, name: str) -> dict[str, int]:
    """Calls by row of the reward table over the seeds that finished, as `details` counts them."""
    total: dict[str, int] = {}
    for job in row.finished:
        counts = (job.details.get(name) or {}).get("rows") or _counted(job.predictions, name)
        for kind, number in counts.items():
            total[kind] = total.get(kind, 0) + int(number)
    return total


def _counted(predictions: Iterable[Prediction], name: str) -> Counter[str]:
    return Counter(one.grade for one in predictions if one.set == name and one.grade and one.is_call)
