"""One number a row: the mean of TS, PI and CF over all single-turn sets, on questions that nothing was trained on.

A sample's result is the mean of its three levels, a set's the mean over its samples, and the row's the mean over sets,
each of which weighs the same. Of a set of which any row was trained on a question, all rows count the others alone.
Differences to the baseline have the interval and p-value of `tltrain.report.numbers`, samples drawn within their sets,
and Holm's correction over rows.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tltrain.evaluation.metrics import SINGLE_TURN
from tltrain.report import numbers as num
from tltrain.report.numbers import Comparison, Summary
from tltrain.report.sweep import Job, Sweep

Sample = tuple[str, str, str, int]
"""Set, and what `numbers.outcomes` knows a sample by."""


@dataclass(frozen=True, slots=True)
class Pooled:
    """`n`: set -> the questions of it that count; `summaries` and `comparisons`: by a row's position."""

    n: dict[str, int]
    summaries: dict[int, Summary]
    comparisons: dict[int, Comparison]


def pool(sweep: Sweep, seed: int = 0) -> Pooled:
    """The means of all rows whose jobs answered every set. The same sweep and seed give the same numbers."""
    found = num.sets(sweep)
    names = [name for name, levels in found.items() if set(SINGLE_TURN) <= set(levels)]
    trained_on = {
        (name, *sample)
        for row in sweep.rows
        for job in row.finished
        for name in names
        for sample, line in num.answered(job, name).items()
        if isinstance(line.get("meta"), Mapping) and line["meta"].get("seen") is True
    }
    rows = {
        i: {job.seed: own for job in row.finished if (own := _results(job, names, trained_on))}
        for i, row in enumerate(sweep.rows)
    }
    rows = {i: own for i, own in rows.items() if own}
    values = {i: tuple(_mean(own) for own in seeds.values()) for i, seeds in rows.items()}
    return Pooled(
        _sizes(next(iter(rows[min(rows)].values()))) if rows else {},
        {i: Summary(statistics.fmean(v), statistics.stdev(v) if len(v) > 1 else None, v) for i, v in values.items()},
        _compare(rows, sweep.baseline_row, seed),
    )


def _results(job: Job, names: list[str], left_out: set[Sample]) -> dict[Sample, float]:
    """Sample -> mean of its levels, 0 to 100; empty where a set is missing."""
    results: dict[Sample, float] = {}
    for name in names:
        levels = [num.outcomes(job, name, level) for level in SINGLE_TURN]
        own = {
            (name, *sample): statistics.fmean(level[sample] for level in levels)
            for sample in levels[0]
            if all(sample in level for level in levels) and (name, *sample) not in left_out
        }
        if not own:
            return {}
        results |= own
    return results


def _sizes(results: Mapping[Sample, float]) -> Counter[str]:
    """Set -> its samples."""
    return Counter(sample[0] for sample in results)


def _mean(results: Mapping[Sample, float]) -> float:
    """The mean over sets of the mean over their samples."""
    return statistics.fmean(_weighted(results).values())


def _weighted(results: Mapping[Sample, float]) -> dict[Sample, float]:
    """The results times what makes their plain mean that over sets: all samples / (sets * samples of the set)."""
    sizes = _sizes(results)
    return {sample: value * len(results) / (len(sizes) * sizes[sample[0]]) for sample, value in results.items()}


def _compare(rows: Mapping[int, Mapping[int, dict]], base: int | None, seed: int) -> dict[int, Comparison]:
    """Every row minus the baseline."""
    if base not in rows:
        return {}
    comparisons: dict[int, Comparison] = {}
    for i, own in rows.items():
        both = None if i == base else num.pairs_of(own, rows[base])
        if both is None:
            continue
        ours, theirs = (
            [
                np.array(list(_weighted(dict(zip(samples, values.tolist(), strict=True))).values()))
                for samples, values in zip(both.samples, side, strict=True)
            ]
            for side in (both.ours, both.theirs)
        )
        drawn = np.stack([_drawn(both, s, seed) for s in range(len(both.samples))], axis=1)
        comparisons[i] = num.comparison(num.Pairs(both.samples, ours, theirs), drawn, seed)
    corrected = num.holm([found.p for found in comparisons.values()])
    return {i: replace(found, holm=p) for (i, found), p in zip(comparisons.items(), corrected, strict=True)}


def _drawn(both: num.Pairs, position: int, seed: int) -> np.ndarray:
    """[RESAMPLES] mean differences of one seed under samples drawn within their sets; the same draws for all rows."""
    differences = both.ours[position] - both.theirs[position]
    names = [sample[0] for sample in both.samples[position]]
    means = []
    for number, name in enumerate(dict.fromkeys(names)):
        chosen = np.array([one == name for one in names])
        rng = np.random.default_rng([seed, number, position])
        means.append(num.resampled_means(differences[chosen][:, None], rng)[:, 0])
    return np.mean(means, axis=0)
