"""One number per row: the mean of TS, PI and CF over all single-turn sets, on questions that no row was trained on.

A sample's result is the mean of its three levels, a set's the mean over its samples, and a row's the mean over sets,
weighted equally. A question that any row was trained on is left out for all rows. Differences to the baseline have the
interval and p-value of `intervals.difference_over_seeds`, with samples resampled within their sets, and Holm's
correction over rows.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from tltrain.evaluation.intervals import Difference, difference_over_seeds
from tltrain.evaluation.metrics import SINGLE_TURN
from tltrain.report import numbers as num
from tltrain.report.numbers import Sample, Summary
from tltrain.report.sweep import Job, Sweep


@dataclass(frozen=True, slots=True)
class Pooled:
    """Pooled results. `n`: number of questions counted by set; `summaries` and `comparisons`: by the row's position."""

    n: dict[str, int]
    summaries: dict[int, Summary]
    comparisons: dict[int, Difference]


def pool(sweep: Sweep, seed: int = 0) -> Pooled:
    """Pool the rows whose jobs answered every set, deterministically for a given `seed`."""
    found = num.sets(sweep)
    names = [name for name, levels in found.items() if set(SINGLE_TURN) <= set(levels)]
    trained_on = {
        sample
        for row in sweep.rows
        for job in row.finished
        for name in names
        for sample, prediction in num.answered(job, name).items()
        if prediction.seen
    }
    rows = {
        i: {job.seed: results for job in row.finished if (results := _results(job, names, trained_on))}
        for i, row in enumerate(sweep.rows)
    }
    rows = {i: seeds for i, seeds in rows.items() if seeds}
    values = {i: tuple(map(_mean, seeds.values())) for i, seeds in rows.items()}
    return Pooled(
        _sizes(next(iter(rows[min(rows)].values()))) if rows else {},
        {i: Summary(statistics.fmean(v), statistics.stdev(v) if len(v) > 1 else None, v) for i, v in values.items()},
        _compare(rows, sweep.baseline_row, seed),
    )


def _results(job: Job, names: list[str], trained_on: set[Sample]) -> dict[Sample, float]:
    """Return each sample's mean over its levels, 0 to 100; empty if a set is missing."""
    results: dict[Sample, float] = {}
    for name in names:
        levels = [num.outcomes(job, name, level) for level in SINGLE_TURN]
        complete = {
            sample: statistics.fmean(level[sample] for level in levels)
            for sample in levels[0]
            if all(sample in level for level in levels) and sample not in trained_on
        }
        if not complete:
            return {}
        results |= complete
    return results


def _sizes(results: Mapping[Sample, float]) -> Counter[str]:
    """Count the samples of each set."""
    return Counter(map(_set_of, results))


def _set_of(sample: Sample) -> str:
    (name, *_), _ = sample
    return name


def _mean(results: Mapping[Sample, float]) -> float:
    """Return the mean over sets of the mean over their samples."""
    by_set: dict[str, list[float]] = {}
    for sample, value in results.items():
        by_set.setdefault(_set_of(sample), []).append(value)
    return statistics.fmean(map(statistics.fmean, by_set.values()))


def _compare(rows: Mapping[int, Mapping[int, dict]], base: int | None, seed: int) -> dict[int, Difference]:
    """Return every row's difference to the baseline."""
    if base is None or base not in rows:
        return {}
    pairs = {i: num.pairs_of(results, rows[base]) for i, results in rows.items() if i != base}
    return num.corrected(
        {i: difference_over_seeds(both, seed, _set_of) for i, both in pairs.items() if both is not None}
    )
