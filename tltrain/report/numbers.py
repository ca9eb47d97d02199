"""Statistics of a sweep's rows: mean and spread over seeds, differences to the baseline with intervals, flips.

Differences are computed per sample, with the interval and p-value of `intervals.difference_over_seeds`. A difference is
significant ("more than chance") if its p-value, after Holm's correction over all rows and sets of one level, is below
5 %.
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
from tltrain.evaluation.predictions import Identity, Prediction, by_sample
from tltrain.report.sweep import Job, Row, Sweep

T = TypeVar("T")
Sample = tuple[Identity, int]
"""A sample of a set, as `by_sample` numbers it."""

MAIN = ("cf", "va", "ts")
"""A set's main level, by which the sweep is judged, is the first of these that the set has."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Percentages of one row over its finished seeds; the standard deviation is None for a single seed."""

    mean: float
    std: float | None
    values: tuple[float, ...]


Key = tuple[int, str, str]
"""Position of the row, set, level."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """All derived numbers. `sets` maps a set to its levels, `n` to its number of samples in one seed."""

    sets: dict[str, list[str]]
    n: dict[str, int]
    summaries: dict[Key, Summary]
    comparisons: dict[Key, Difference]

    def main(self, name: str) -> str:
        """Return the level by which a set is judged."""
        levels = self.sets[name]
        return next((level for level in MAIN if level in levels), levels[0])


def derive(sweep: Sweep, seed: int = 0) -> Numbers:
    """Compute all numbers of a sweep, deterministically for a given `seed`."""
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
    """Return each set's levels, those with a metric `SET/LEVEL`, in order of appearance."""
    found: dict[str, set[str]] = {}
    for row in sweep.rows:
        for job in row.finished:
            for key, value in job.metrics.items():
                name, _, level = key.rpartition("/")
                if level in METRICS and "/" not in name and name and is_number(value):
                    found.setdefault(name, set()).add(level)
    return {name: [level for level in METRICS if level in levels] for name, levels in found.items()}


def count(job: Job, name: str) -> int:
    """Return the number of a set's samples that a job answered."""
    n = job.metrics.get(f"{name}/n")
    return int(n) if is_number(n) else sum(prediction.set == name for prediction in job.predictions)


def outcomes(job: Job, name: str, level: str) -> dict[Sample, float]:
    """Return each sample's result, 0 to 100 (for DE and CE any number); empty if there are no per-sample scores."""
    return {
        sample: 100.0 * prediction.scores[level]
        for sample, prediction in answered(job, name).items()
        if level in prediction.scores
    }


def answered(job: Job, name: str) -> dict[Sample, Prediction]:
    """Return the prediction for each sample of a set."""
    return by_sample(prediction for prediction in job.predictions if prediction.set == name)


def percent(job: Job, name: str, level: str) -> float | None:
    """Return one number of one job: from its predictions, which comparisons use, or else from its metrics."""
    values = outcomes(job, name, level)
    if values:
        return sum(values.values()) / len(values)
    value = job.metrics.get(f"{name}/{level}")
    return float(value) if is_number(value) else None


def summarize(row: Row, name: str, level: str) -> Summary | None:
    """Return mean and sample standard deviation over the finished seeds; None if no seed has the number."""
    values = tuple(value for job in row.finished if (value := percent(job, name, level)) is not None)
    if not values:
        return None
    return Summary(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, values)


def is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# Differences


def compare(sweep: Sweep, found: Mapping[str, Sequence[str]], seed: int = 0) -> dict[Key, Difference]:
    """Return every row's difference to the baseline, for the levels that have per-sample scores."""
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
    """Apply Holm's correction to the p-values of a family of differences."""
    p_values = holm([difference.p for difference in family.values()])
    return {key: replace(family[key], p_holm=p) for key, p in zip(family, p_values, strict=True)}


def pairs_of(ours: Mapping[int, Mapping], theirs: Mapping[int, Mapping]) -> SeedPairs[Sample] | None:
    """Pair the samples that both rows have, given each row's seed -> sample -> result; None if they share none."""
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
    """A sample that one of two jobs gets right at a level and the other wrong; `gained`: job b gets it right."""

    name: str
    id: str
    gained: bool
    a: Prediction
    b: Prediction


def flips(a: Job, b: Job, level: str = "cf") -> list[Flip]:
    """Return the samples that both jobs answered and on which they differ at a level, in the order of `a`.

    A level that only some of several golden calls reach counts as not reached.
    """
    theirs = by_sample(b.predictions)
    pairs = ((ours, theirs[sample]) for sample, ours in by_sample(a.predictions).items() if sample in theirs)
    return [
        Flip(ours.set, ours.id, other.reaches(level), ours, other)
        for ours, other in pairs
        if ours.reaches(level) != other.reaches(level)
    ]


def error_kinds(row: Row, name: str) -> dict[str, int]:
    """Count calls by row of the reward table over the finished seeds, as in `details`."""
    total: dict[str, int] = {}
    for job in row.finished:
        counts = (job.details.get(name) or {}).get("rows") or _counted(job.predictions, name)
        for kind, number in counts.items():
            total[kind] = total.get(kind, 0) + int(number)
    return total


def _counted(predictions: Iterable[Prediction], name: str) -> Counter[str]:
    return Counter(one.grade for one in predictions if one.set == name and one.grade and one.is_call)
