"""Confidence intervals and p-values: every bootstrap of this package, all with the same number of resamples, and
Student's t.

Pure numpy: counts and results in, `Interval` or `Difference` out. All intervals are at 95 %. Over samples they are
percentile bootstraps (B. Efron and R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13) with
`RESAMPLES` resamples, drawn from a seed that the caller gives: the same input and seed give the same ends. The
resampled units are those that are independent:

- `percentage`: samples that are right or wrong.
- `ratios`, `ratio_difference`: clusters (conversations, trajectories, queries) with correlated members.
- `paired_difference`: samples, with the results of both systems.

Over training seeds, of which there are only a handful, they are Student's t (`difference_over_seeds`,
`mean_over_seeds`): a percentile bootstrap of three seeds covers 3 of 4 true differences where it promises 19 of 20.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from tltrain.errors import TltrainError
from tltrain.evaluation import student_t

S = TypeVar("S", bound=Hashable)

RESAMPLES = 10_000
"""Number of resamples of every bootstrap and every randomization test. The ends of an interval then vary between seeds
by 1 to 3 % of its width, and the smallest p-value is 0.0001. A bootstrap takes milliseconds for results that are right
or wrong, since samples with equal values are drawn together (`resampled_sums`), and seconds for thousands of clusters
with real numbers."""

ALPHA = 0.05
"""A difference with a p-value below this counts as more than chance."""

ENDS = (2.5, 97.5)
"""Percentiles of the resampled values at the ends of an interval."""

CHUNK = 2_000_000
"""Numbers drawn at a time, so that thousands of samples fit in memory."""

FEW_EQUAL = 10
"""From this many samples per distinct value on, a multinomial over values is faster than drawing single samples."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate from `n` samples (calls, tokens, ...) with the ends of its 95 % interval.

    The ends are NaN if there are too few clusters to estimate them.
    """

    value: float
    low: float
    high: float
    n: int

    @property
    def has_ends(self) -> bool:
        """Return whether there is an interval around the estimate."""
        return not math.isnan(self.low)

    def to_json(self) -> dict[str, Any]:
        """Return rounded plain values; unknown ends are null."""
        low, high = (round(end, 4) if self.has_ends else None for end in (self.low, self.high))
        return {"value": round(self.value, 4), "low": low, "high": high, "n": self.n}


@dataclass(frozen=True, slots=True)
class Percentage(Interval):
    """`right` of `n`, in percent; `right` is a sum of shares if samples can be partly right."""

    right: float

    def to_json(self) -> dict[str, Any]:
        """Return rounded plain values."""
        low, high = round(self.low, 4), round(self.high, 4)
        return {"percent": round(self.value, 4), "right": round(self.right, 4), "n": self.n, "low": low, "high": high}


@dataclass(frozen=True, slots=True)
class Difference(Interval):
    """The difference of two means over the same `n` samples, with a two-sided p-value.

    Attributes:
        p_holm: the p-value corrected for the family of comparisons to which it belongs (`corrected`); `p` if it is the
            only comparison.
        seeds: the training seeds over which it is a mean.
    """

    p: float
    p_holm: float
    seeds: int = 1

    @property
    def beyond_chance(self) -> bool:
        """Return whether the difference is more than chance, after the correction."""
        return self.p_holm < ALPHA


NOTHING = Percentage(0.0, 0.0, 100.0, 0, 0)
"""The percentage of no samples, about which nothing is known."""


def percentage(answers: Iterable[bool | float], seed: int = 0, denominator: float | None = None) -> Percentage:
    """Return the percentage of samples that are right (True), with samples resampled.

    Args:
        answers: for each sample whether it is right, or the share of it that is right, from 0 to 1.
        denominator: replaces the number of samples in the percentages, not in `n`.
    """
    answers = list(answers)
    right, n = sum(answers), len(answers)
    if n == 0:
        return NOTHING
    rng = np.random.default_rng(seed)
    if all(answer in (0, 1) for answer in answers):
        right = int(right)  # the number of right samples among n drawn has a binomial distribution
        low, high = np.percentile(rng.binomial(n, right / n, RESAMPLES), ENDS)
    else:
        low, high = np.percentile(resampled_sums(np.array(answers, dtype=float)[:, None], rng)[:, 0], ENDS)
    value, low, high = (100 * float(count) / (denominator or n) for count in (right, low, high))
    return Percentage(value, low, high, n, right)


def cluster_percentage(right: Sequence[int], of: Sequence[int], seed: int = 0) -> Percentage:
    """Return `sum(right) / sum(of)` in percent; cluster i has `right[i]` of `of[i]`, and clusters are resampled."""
    if sum(of) == 0:
        return NOTHING
    (found,) = ratios(np.array([right]).T, np.array([of]).T, seed)
    return Percentage(100 * found.value, 100 * found.low, 100 * found.high, found.n, sum(right))


def ratios(numerators: np.ndarray, denominators: np.ndarray, seed: int = 0) -> list[Interval]:
    """Return `sum(numerators) / sum(denominators)` of each column; a cluster's columns are resampled together.

    Args:
        numerators, denominators: [T, K], the contributions of T clusters. No column of denominators may be all 0.

    Returns:
        K intervals, whose `n` is the sum of the denominators. A resample with a denominator of 0 is ignored.
    """
    columns = numerators.shape[1]
    sums = resampled_sums(np.concatenate([numerators, denominators], axis=1), np.random.default_rng(seed))
    lows, highs = np.nanpercentile(sums[:, :columns] / _nonzero(sums[:, columns:]), ENDS, axis=0)
    tops, bottoms = numerators.sum(axis=0), denominators.sum(axis=0)
    return [
        Interval(float(top / bottom), float(low), float(high), int(bottom))
        for top, bottom, low, high in zip(tops, bottoms, lows, highs, strict=True)
    ]


def ratio_difference(a: np.ndarray, b: np.ndarray, seed: int = 0) -> Interval:
    """Return the ratio of `a` minus that of `b`; a cluster's contributions to both are resampled together.

    Args:
        a, b: [T, 2], numerator and denominator of each of T clusters; a cluster may contribute to only one of them. The
            `n` of the result is T.
    """
    sums = resampled_sums(np.concatenate([a, b], axis=1), np.random.default_rng(seed))
    resampled = sums[:, 0] / _nonzero(sums[:, 1]) - sums[:, 2] / _nonzero(sums[:, 3])
    low, high = np.nanpercentile(resampled, ENDS)
    (top_a, bottom_a), (top_b, bottom_b) = a.sum(axis=0), b.sum(axis=0)
    return Interval(float(top_a / bottom_a - top_b / bottom_b), float(low), float(high), len(a))


def grouped_mean(groups: Sequence[np.ndarray], seed: int = 0) -> Interval:
    """Return the mean of all values, resampled within each group."""
    n, rng = sum(map(len, groups)), np.random.default_rng(seed)
    resampled = sum(resampled_sums(group[:, None], rng)[:, 0] for group in groups) / n
    low, high = np.percentile(resampled, ENDS)
    return Interval(float(np.concatenate(groups).mean()), float(low), float(high), n)


def paired_difference(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Difference:
    """Return the mean of `b - a`, where `a[i]` and `b[i]` are two systems' results on the same sample.

    The interval is that of a paired bootstrap: samples are resampled with both systems' results. The p-value is
    `randomization_p`, which unlike the bootstrap is valid for a handful of samples too.
    """
    if len(a) != len(b) or not len(a):
        raise TltrainError(f"{len(a)} and {len(b)} results: expected the same number of both, and at least one")
    differences, rng = np.round(np.subtract(b, a, dtype=float), 9), np.random.default_rng(seed)
    low, high = np.percentile(resampled_sums(differences[:, None], rng)[:, 0] / len(a), ENDS)
    p = randomization_p(differences, rng)
    return Difference(float(differences.mean()), float(low), float(high), len(a), p, p)


def randomization_p(differences: np.ndarray, rng: np.random.Generator) -> float:
    """Return the two-sided p-value of a paired randomization test.

    It is the share of random swaps of the two systems' results, sample by sample, that give a mean difference at least
    as large. It is never 0, but at least 1 / (RESAMPLES + 1).
    """
    values, counts = distinct_rows(np.round(differences, 9)[:, None])
    swapped = sum(
        value * (2 * rng.binomial(count, 0.5, RESAMPLES) - count) / len(differences)
        for value, count in zip(values[:, 0], counts, strict=True)
    )
    extreme = np.abs(swapped) >= abs(np.mean(differences)) - 1e-9
    return (1 + int(np.sum(extreme))) / (RESAMPLES + 1)


# --- several training seeds -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SeedPairs(Generic[S]):
    """Results of two systems, for each training seed that both have.

    Attributes:
        samples: the samples of each seed.
        ours, theirs: the results for each seed, [N] in the order of its samples.
    """

    samples: list[tuple[S, ...]] = field(default_factory=list)
    ours: list[np.ndarray] = field(default_factory=list)
    theirs: list[np.ndarray] = field(default_factory=list)


def difference_over_seeds(
    pairs: SeedPairs[S], seed: int = 0, stratum: Callable[[S], Hashable] = lambda sample: None
) -> Difference:
    """Return the mean of ours minus theirs over seeds and samples.

    With one seed this is the paired bootstrap. With several, the interval and p are Student's and generalize to other
    seeds and other samples: see `spread_over_seeds`. p is at least `randomization_p`, which is valid for a handful of
    samples too.

    Args:
        stratum: returns a sample's stratum. Samples are resampled within strata, which have equal weight in the mean.
    """
    differences = [ours - theirs for ours, theirs in zip(pairs.ours, pairs.theirs, strict=True)]
    strata = [[stratum(sample) for sample in samples] for samples in pairs.samples]
    weighted = [values * _weights(labels) for values, labels in zip(differences, strata, strict=True)]
    same_samples = len(set(pairs.samples)) == 1
    joined = np.mean(weighted, axis=0) if same_samples else np.concatenate(weighted)
    value = float(np.mean([values.mean() for values in weighted]))
    swapped = randomization_p(joined, np.random.default_rng(seed))
    if len(weighted) == 1:
        rng = np.random.default_rng([seed, 0])
        sums = np.sum([resampled_sums(group, rng) for group in _by_stratum(joined, strata[0])], axis=0)
        means = np.round(sums[:, 0] / len(joined), 9)
        low, high = map(float, np.percentile(means, ENDS))
        tail = min(int(np.sum(means <= 0)), int(np.sum(means >= 0)))
        p = max(min(1.0, 2 * (1 + tail) / (RESAMPLES + 1)), swapped)
    else:
        ends = [student(value, error, df) for error, df in spread_over_seeds(pairs.samples, weighted, strata)]
        low, high = min(low for low, _, _ in ends), max(high for _, high, _ in ends)
        p = max(swapped, *(p for *_, p in ends))
    return Difference(value, low, high, len(joined), p, p, len(weighted))


def student(value: float, error: float, df: int) -> tuple[float, float, float]:
    """Return the ends of the 95 % t interval around `value` with standard error `error`, and the p-value of 0."""
    if error == 0:
        return value, value, 1.0 if value == 0 else 0.0
    half = student_t.critical(ALPHA, df) * error
    return value - half, value + half, student_t.two_sided_p(value / error, df)


def mean_over_seeds(differences: Sequence[float]) -> Difference:
    """Return the mean of one difference per seed, with the paired t interval and p of S - 1 degrees of freedom.

    It generalizes to other seeds on the same samples. For a single seed, the ends are NaN and p is 1.

    Raises:
        TltrainError: `differences` is empty.
    """
    if not len(differences):
        raise TltrainError("no differences: expected one for each seed")
    seeds, value = len(differences), float(np.mean(differences))
    if seeds == 1:
        return Difference(value, math.nan, math.nan, 1, 1.0, 1.0, 1)
    error = float(np.std(np.round(differences, 9), ddof=1)) / math.sqrt(seeds)
    low, high, p = student(value, error, seeds - 1)
    return Difference(value, low, high, seeds, p, p, seeds)


def spread_over_seeds(
    samples: Sequence[tuple[Hashable, ...]], values: Sequence[np.ndarray], strata: Sequence[list[Hashable]]
) -> tuple[tuple[float, int], tuple[float, int]]:
    """Return two standard errors of the mean over S >= 2 seeds, with their degrees of freedom; use the wider interval.

    The first covers seeds and samples. Seeds are one random effect, and samples are another, which seeds share if they
    have the same samples. The variance is A + B - C, where A is the variance of the seeds' means divided by S, B the
    variance of the mean when only samples are drawn again, and C the contribution of their interaction, which both A
    and B contain (two-way analysis of variance; negative B - C count as 0). Its degrees of freedom are Satterthwaite's
    (F. E. Satterthwaite, 1946), at least S - 1. The second covers samples alone, for seeds that agree by chance.

    Args:
        samples, strata: the samples of each seed and their strata.
        values: the weighted results of each seed, [N].
    """
    seeds = len(values)
    means = np.round([value.mean() for value in values], 9)
    between = float(np.var(means, ddof=1)) / seeds
    of_samples, shared, squares, freedom = 0.0, 0.0, between**2 / (seeds - 1), 0
    for positions in _same_samples(samples):
        labels = strata[positions[0]]
        table = np.stack([values[position] for position in positions])
        share, own = (len(positions) / seeds) ** 2, len(positions)
        alone, together, df = 0.0, 0.0, 0
        for group in _by_stratum(table.T, labels):
            n, scale = len(group), len(group) / len(labels) ** 2
            if n < 2:
                continue
            df += n - 1
            alone += scale * float(np.var(group.mean(axis=1), ddof=1))
            if own > 1:
                rest = group - group.mean(axis=1, keepdims=True) - group.mean(axis=0) + group.mean()
                together += scale * float(np.sum(rest**2)) / ((own - 1) * (n - 1)) / own
        of_samples, freedom = of_samples + share * alone, freedom + df
        if own > 1 and alone > together:
            shared += share * (alone - together)
            squares += share**2 * (alone**2 + together**2 / (own - 1)) / df
    total = between + shared
    df = seeds - 1 if not shared else max(seeds - 1, int(total**2 / squares))
    return (math.sqrt(total), df), (math.sqrt(of_samples), max(freedom, 1))


def _same_samples(samples: Sequence[tuple[Hashable, ...]]) -> list[list[int]]:
    """Return the positions of seeds, grouped by equal samples."""
    positions: dict[tuple[Hashable, ...], list[int]] = {}
    for position, members in enumerate(samples):
        positions.setdefault(members, []).append(position)
    return list(positions.values())


def _by_stratum(values: np.ndarray, labels: Sequence[Hashable]) -> list[np.ndarray]:
    """Split [N] or [N, S] values into [n, S] for each stratum."""
    columns = values.reshape(len(labels), -1)
    return [columns[[label == wanted for label in labels]] for wanted in dict.fromkeys(labels)]


def _weights(labels: Sequence[Hashable]) -> np.ndarray:
    """Return [N] weights that turn the mean over samples into the mean over strata of the means over their samples."""
    sizes = {label: labels.count(label) for label in set(labels)}
    return np.array([len(labels) / (len(sizes) * sizes[label]) for label in labels])


def holm(values: Sequence[float]) -> list[float]:
    """Return the p-values corrected by Holm's step-down method (S. Holm, 1979), in the given order."""
    corrected_values, largest = [0.0] * len(values), 0.0
    for rank, position in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - rank) * values[position]))
        corrected_values[position] = largest
    return corrected_values


# --- drawing --------------------------------------------------------------------------------------------------------


def resampled_sums(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return [RESAMPLES, C] sums over N samples drawn with replacement from [N, C] values.

    Samples with equal values are drawn together, by a multinomial, since the sum depends only on how often any of them
    is drawn. If nearly all values differ, it is faster to draw N positions and count them.
    """
    n = len(values)
    distinct, counts = distinct_rows(values)
    if FEW_EQUAL * len(distinct) < n:
        return np.concatenate([rng.multinomial(n, counts / n, size) @ distinct for size in _chunk_sizes(len(distinct))])
    return np.concatenate([_counts_of_positions(n, size, rng) @ values for size in _chunk_sizes(n)])


def _chunk_sizes(width: int) -> list[int]:
    """Return how many resamples to draw at a time, if each takes `width` numbers."""
    size = max(CHUNK // width, 1)
    return [min(size, RESAMPLES - start) for start in range(0, RESAMPLES, size)]


def _counts_of_positions(n: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return [size, n]: how often each of n positions is among n drawn with replacement."""
    drawn = rng.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
    return np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)


def distinct_rows(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct rows of an array and their counts, in order of first occurrence. Negated values thus have the
    same order, so that swapping two systems mirrors their interval.
    """
    rows, first, counts = np.unique(values, axis=0, return_index=True, return_counts=True)
    order = np.argsort(first)
    return rows[order], counts[order]


def _nonzero(values: np.ndarray) -> np.ndarray:
    return np.where(values == 0, np.nan, values)
