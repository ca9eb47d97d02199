"""What the rows of a sweep say: mean and spread over seeds, differences to the baseline with intervals, flips.

Differences are taken sample by sample. Their 95 % interval is that of a bootstrap that draws samples and seeds, both
with replacement (A. B. Owen, "The pigeonhole bootstrap", 2007), where all seeds answer the same samples; where each
seed has samples of its own, seeds and then samples within them are drawn. A difference counts as more than chance if
its p-value, corrected by Holm's method over all rows and sets of one level, is below 5 %. The p-value is the larger of
the bootstrap's, which knows about seeds, and that of the randomization test of `scoring.paired`, which also
holds for a handful of samples.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tltrain.evaluation.metrics import METRICS
from tltrain.evaluation.scoring import paired
from tltrain.report.sweep import Job, Row, Sweep

RESAMPLES = 5000
CHUNK = 500  # resamples drawn at a time, so that thousands of samples fit in memory
ALPHA = 0.05


MAIN = ("cf", "va", "ts")
"""Of a set's levels, the first of these is what the sweep is judged by."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Percentages of one row over its finished seeds; the standard deviation is None of a single one."""

    mean: float
    std: float | None
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A row minus the baseline, in points, over `seeds` seeds and `samples` samples (of all of them where they differ).

    `holm` is the corrected p-value.
    """

    difference: float
    low: float
    high: float
    p: float
    holm: float
    seeds: int
    samples: int

    @property
    def beyond_chance(self) -> bool:
        return self.holm < ALPHA


Key = tuple[int, str, str]
"""Row (its position), set, level."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """Everything derived: `sets` maps a set to its levels, `n` to its samples in one seed."""

    sets: dict[str, list[str]]
    n: dict[str, int]
    summaries: dict[Key, Summary]
    comparisons: dict[Key, Comparison]

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
    return int(n) if is_number(n) else sum(line.get("set") == name for line in job.predictions)


def outcomes(job: Job, name: str, level: str) -> dict[tuple[str, str, int], float]:
    """Sample (id, golden calls, which of those alike) -> 0 or 100; empty where nothing is said of single samples."""
    return {
        sample: 100.0 * float(line[level])
        for sample, line in answered(job, name).items()
        if isinstance(line.get(level), bool | int | float)
    }


def answered(job: Job, name: str) -> dict[tuple[str, str, int], Mapping[str, Any]]:
    """Sample (id, golden calls, which of those alike) of a set -> its line in the predictions."""
    found: dict[tuple[str, str, int], Mapping[str, Any]] = {}
    times: dict[tuple[str, str], int] = {}
    for line in job.predictions:
        if line.get("set") == name:
            sample = (str(line.get("id")), json.dumps(line.get("goldens"), sort_keys=True))
            times[sample] = times.get(sample, 0) + 1
            found[*sample, times[sample]] = line
    return found


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


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# Differences


@dataclass(frozen=True, slots=True)
class Pairs:
    """One row beside the baseline: a vector of results for each seed that both have, samples in the same order."""

    samples: list[tuple[Any, ...]]
    ours: list[np.ndarray]
    theirs: list[np.ndarray]


def compare(sweep: Sweep, found: Mapping[str, Sequence[str]], seed: int = 0) -> dict[Key, Comparison]:
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
    comparisons: dict[Key, Comparison] = {}
    for name in found:
        comparisons |= _bootstrap({key: both for key, both in pairs.items() if key[1] == name}, seed)
    for level in METRICS:  # one family: all rows and sets of a level
        keys = [key for key in comparisons if key[2] == level]
        for key, p in zip(keys, holm([comparisons[key].p for key in keys]), strict=True):
            comparisons[key] = replace(comparisons[key], holm=p)
    return comparisons


def pairs_of(ours: Mapping[int, Mapping], theirs: Mapping[int, Mapping]) -> Pairs | None:
    """What both have, given seed -> sample -> result of each; None if nothing."""
    found = Pairs([], [], [])
    for seed in sorted(ours.keys() & theirs.keys()):
        samples = tuple(sample for sample in theirs[seed] if sample in ours[seed])
        if samples:
            found.samples.append(samples)
            found.ours.append(np.array([ours[seed][sample] for sample in samples]))
            found.theirs.append(np.array([theirs[seed][sample] for sample in samples]))
    return found if found.samples else None


def _bootstrap(pairs: Mapping[Key, Pairs], seed: int) -> dict[Key, Comparison]:
    """The comparisons of one set. Draws of samples are shared by all rows and levels, which saves drawing anew."""
    columns: dict[tuple[Any, ...], list[tuple[Key, int]]] = {}
    for key, both in pairs.items():
        for position, samples in enumerate(both.samples):
            columns.setdefault(samples, []).append((key, position))
    means: dict[tuple[Key, int], np.ndarray] = {}
    for number, (samples, uses) in enumerate(columns.items()):
        differences = np.stack([pairs[key].ours[i] - pairs[key].theirs[i] for key, i in uses], axis=1)
        drawn = resampled_means(differences, np.random.default_rng([seed, len(samples), number]))
        means |= {use: drawn[:, column] for column, use in enumerate(uses)}
    return {
        key: comparison(both, np.stack([means[key, i] for i in range(len(both.samples))], axis=1), seed)
        for key, both in pairs.items()
    }


def resampled_means(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[N, C] values of N samples -> [RESAMPLES, C] means over N samples drawn with replacement."""
    n = len(values)
    chunks = [rng.multinomial(n, np.full(n, 1 / n), CHUNK) @ values / n for _ in range(RESAMPLES // CHUNK)]
    return np.concatenate(chunks)


def comparison(both: Pairs, drawn: np.ndarray, seed: int) -> Comparison:
    """One comparison from [RESAMPLES, S] means of the S seeds' differences under drawn samples."""
    seeds = len(both.samples)
    observed = np.array([np.mean(a - b) for a, b in zip(both.ours, both.theirs, strict=True)])
    if seeds > 1:
        # Drawing S of S seeds shows (S-1)/S of the variance between them: widen it to what it is (Rao and Wu, 1988).
        drawn = drawn + (math.sqrt(seeds / (seeds - 1)) - 1) * (observed - observed.mean())
    weights = np.random.default_rng([seed, seeds]).multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES) / seeds
    differences = np.round((weights * drawn).sum(axis=1), 9)
    low, high = np.percentile(differences, [2.5, 97.5])
    tails = min(np.sum(differences <= 0), np.sum(differences >= 0))
    by_bootstrap = min(1.0, 2 * (1 + float(tails)) / (RESAMPLES + 1))
    crossed = len(set(both.samples)) == 1
    join = (lambda vectors: np.mean(vectors, axis=0)) if crossed else np.concatenate
    by_swapping = paired(join(both.theirs).tolist(), join(both.ours).tolist(), seed, RESAMPLES).p
    samples = len(both.samples[0]) if crossed else sum(map(len, both.samples))
    p = max(by_bootstrap, by_swapping)
    return Comparison(float(observed.mean()), float(low), float(high), p, p, seeds, samples)


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected by Holm's step-down method, in the order given."""
    corrected, running = [0.0] * len(values), 0.0
    for rank, i in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        running = max(running, min(1.0, (len(values) - rank) * values[i]))
        corrected[i] = running
    return corrected


# Flips


@dataclass(frozen=True, slots=True)
class Flip:
    """A sample that one row has right at a level and the other wrong; `gained`: b has it right."""

    name: str
    id: str
    gained: bool
    a: dict[str, Any]
    b: dict[str, Any]


def flips(a: Job, b: Job, level: str = "cf") -> list[Flip]:
    """The samples on which two jobs differ at a level, in the order of `a`; what only one answered is left out."""
    theirs = {_sample(line): line for line in b.predictions}
    found = []
    for line in a.predictions:
        other = theirs.get(_sample(line))
        if other is not None and bool(line.get(level)) != bool(other.get(level)):
            found.append(Flip(str(line.get("set")), str(line.get("id")), bool(other.get(level)), line, other))
    return found


def _sample(line: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(line.get("set")), str(line.get("id")), json.dumps(line.get("goldens"), sort_keys=True)


def error_kinds(row: Row, name: str) -> dict[str, int]:
    """Calls by row of the reward table over the seeds that finished, as `details` counts them."""
    total: dict[str, int] = {}
    for job in row.finished:
        counts = (job.details.get(name) or {}).get("rows") or _counted(job.predictions, name)
        for kind, number in counts.items():
            total[kind] = total.get(kind, 0) + int(number)
    return total


def _counted(lines: Iterable[Mapping[str, Any]], name: str) -> dict[str, int]:
    total: dict[str, int] = {}
    for line in lines:
        if line.get("set") == name and isinstance(line.get("grade"), str) and "va" not in line:  # of a call
            total[line["grade"]] = total.get(line["grade"], 0) + 1
    return total
