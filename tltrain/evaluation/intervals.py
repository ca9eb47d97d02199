"""Confidence intervals and p-values: every bootstrap of this package, with one number of resamples, and Student's t.

Pure numpy: counts and results in, `Interval` or `Difference` out. All intervals are at 95 %. Over samples they are
percentile bootstraps (B. Efron and R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13) of `RESAMPLES`
resamples, drawn from a seed that the caller gives: the same input and seed give the same ends. What is resampled is
what is independent:

- `percentage`: samples that are right or wrong.
- `ratios`, `ratio_difference`: clusters (conversations, trajectories, queries) whose members go together.
- `paired_difference`: samples, with the results of both systems.

Over training seeds, of which there are a handful, they are Student's t (`difference_over_seeds`, `mean_over_seeds`): a
percentile bootstrap of three seeds covers 3 of 4 true differences where it promises 19 of 20.
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
"""Resamples of every bootstrap and of every randomization test. The ends of an interval then vary from seed to seed by
1 to 3 % of its width, and the smallest p-value is 0.0001. It takes milliseconds for results that are right or wrong,
since samples with equal values are drawn together (`resampled_sums`), and seconds for thousands of clusters with real
numbers."""

ALPHA = 0.05
"""A p-value below this counts as more than chance."""

ENDS = (2.5, 97.5)
"""Percentiles of the resampled values that are the ends of an interval."""

CHUNK = 2_000_000
"""Numbers drawn at a time, so that thousands of samples fit in memory."""

FEW_EQUAL = 10
"""Samples for each distinct value from which on a multinomial over values is faster than drawing single samples."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate from `n` samples (calls, tokens, ...) with the ends of its 95 % interval.

    The ends are NaN where there are too few clusters to tell.
    """

    value: float
    low: float
    high: float
    n: int

    @property
    def has_ends(self) -> bool:
        """Whether there is an interval around the estimate."""
        return not math.isnan(self.low)

    def to_json(self) -> dict[str, Any]:
        """As plain values, rounded; ends that are not known are null."""
        low, high = (round(end, 4) if self.has_ends else None for end in (self.low, self.high))
        return {"value": round(self.value, 4), "low": low, "high": high, "n": self.n}


@dataclass(frozen=True, slots=True)
class Percentage(Interval):
    """`right` of `n`, in percent; `right` is a sum of shares where samples may be right in part."""

    right: float

    def to_json(self) -> dict[str, Any]:
        """As plain values, rounded."""
        low, high = round(self.low, 4), round(self.high, 4)
        return {"percent": round(self.value, 4), "right": round(self.right, 4), "n": self.n, "low": low, "high": high}


@dataclass(frozen=True, slots=True)
class Difference(Interval):
    """The difference of two means over the same `n` samples, with a two-sided p-value.

    Attributes:
        p_holm: the p-value corrected for the family of comparisons that it belongs to (`corrected`); `p` where it
            stands alone.
        seeds: training seeds that it is a mean over.
    """

    p: float
    p_holm: float
    seeds: int = 1

    @property
    def beyond_chance(self) -> bool:
        """Whether it is more than chance, after the correction."""
        return self.p_holm < ALPHA


NOTHING = Percentage(0.0, 0.0, 100.0, 0, 0)
"""Of no samples at all nothing is known."""


def percentage(answers: Iterable[bool | float], seed: int = 0, denominator: float | None = None) -> Percentage:
    """The percentage of samples that are right (True), the samples resampled.

    Args:
        answers: of each sample whether it is right, or the share in which it is, from 0 to 1.
        denominator: replaces the number of samples in the percentages, not in `n`.
    """
    answers = list(answers)
    right, n = sum(answers), len(answers)
    if n == 0:
        return NOTHING
    rng = np.random.default_rng(seed)
    if all(answer in (0, 1) for answer in answers):
        right = int(right)  # drawing n samples and counting those that are right is a draw from a binomial distribution
        low, high = np.percentile(rng.binomial(n, right / n, RESAMPLES), ENDS)
    else:
        low, high = np.percentile(resampled_sums(np.array(answers, dtype=float)[:, None], rng)[:, 0], ENDS)
    value, low, high = (100 * float(count) / (denominator or n) for count in (right, low, high))
    return Percentage(value, low, high, n, right)


def cluster_percentage(right: Sequence[int], of: Sequence[int], seed: int = 0) -> Percentage:
    """`sum(right) / sum(of)` in percent, where `right[i]` of `of[i]` are those of one cluster; clusters resampled."""
    if sum(of) == 0:
        return NOTHING
    (found,) = ratios(np.array([right]).T, np.array([of]).T, seed)
    return Percentage(100 * found.value, 100 * found.low, 100 * found.high, found.n, sum(right))


def ratios(numerators: np.ndarray, denominators: np.ndarray, seed: int = 0) -> list[Interval]:
    """`sum(numerators) / sum(denominators)` of each column, with all columns of a cluster resampled together.

    Args:
        numerators, denominators: [T, K], the parts of T clusters. No column of denominators may be all 0.

    Returns:
        K intervals, `n` being the sum of the denominators. A resample with a denominator of 0 says nothing.
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
    """The ratio of `a` minus that of `b`, with the parts of both in one cluster resampled together.

    Args:
        a, b: [T, 2], numerator and denominator of each of T clusters; a cluster may have no part in one of them. `n` of
            the result is T.
    """
    sums = resampled_sums(np.concatenate([a, b], axis=1), np.random.default_rng(seed))
    resampled = sums[:, 0] / _nonzero(sums[:, 1]) - sums[:, 2] / _nonzero(sums[:, 3])
    low, high = np.nanpercentile(resampled, ENDS)
    (top_a, bottom_a), (top_b, bottom_b) = a.sum(axis=0), b.sum(axis=0)
    return Interval(float(top_a / bottom_a - top_b / bottom_b), float(low), float(high), len(a))


def grouped_mean(groups: Sequence[np.ndarray], seed: int = 0) -> Interval:
    """The mean over all values, resampled within each group of them."""
    n, rng = sum(map(len, groups)), np.random.default_rng(seed)
    resampled = sum(resampled_sums(group[:, None], rng)[:, 0] for group in groups) / n
    low, high = np.percentile(resampled, ENDS)
    return Interval(float(np.concatenate(groups).mean()), float(low), float(high), n)


def paired_difference(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Difference:
    """`b - a` in the mean, where `a[i]` and `b[i]` are two systems' results on the same sample.

    The interval is that of a paired bootstrap: samples are resampled with both systems' results. The p-value is
    `randomization_p`, which unlike the bootstrap also holds for a handful of samples.
    """
    if len(a) != len(b) or not len(a):
        raise TltrainError(f"{len(a)} and {len(b)} results: expected as many of both, and at least one")
    differences, rng = np.round(np.subtract(b, a, dtype=float), 9), np.random.default_rng(seed)
    low, high = np.percentile(resampled_sums(differences[:, None], rng)[:, 0] / len(a), ENDS)
    p = randomization_p(differences, rng)
    return Difference(float(differences.mean()), float(low), float(high), len(a), p, p)


def randomization_p(differences: np.ndarray, rng: np.random.Generator) -> float:
    """The two-sided p-value of a paired randomization test.

    It is how often swapping the two systems' results at random, sample by sample, gives a mean difference as large.
    Never 0: at least 1 / (RESAMPLES + 1).
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
        samples: of each seed its samples. ours, theirs: of each seed the results, [N] in the order of its samples.
    """

    samples: list[tuple[S, ...]] = field(default_factory=list)
    ours: list[np.ndarray] = field(default_factory=list)
    theirs: list[np.ndarray] = field(default_factory=list)


def difference_over_seeds(
    pairs: SeedPairs[S], seed: int = 0, stratum: Callable[[S], Hashable] = lambda sample: None
) -> Difference:
    """Ours minus theirs in the mean over seeds and samples.

    With one seed this is the paired bootstrap. With several, the interval and p are Student's, and they hold for other
    seeds and other samples: see `spread_over_seeds`. p is at least `randomization_p`, which also holds for a handful of
    samples.

    Args:
        stratum: what a sample belongs to. Samples are resampled within their strata, which weigh the same in the mean.
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
    """The ends of the 95 % t interval around `value` with standard error `error`, and the p-value of value = 0."""
    if error == 0:
        return value, value, 1.0 if value == 0 else 0.0
    half = student_t.critical(ALPHA, df) * error
    return value - half, value + half, student_t.two_sided_p(value / error, df)


def mean_over_seeds(differences: Sequence[float]) -> Difference:
    """The mean of one difference per seed, with the paired t interval and p of S - 1 degrees of freedom.

    It holds for other seeds on the same samples. The ends are NaN, and p is 1, for a single seed.

    Raises:
        TltrainError: there is no difference.
    """
    if not len(differences):
        raise TltrainError("no difference: expected one for each seed")
    seeds, value = len(differences), float(np.mean(differences))
    if seeds == 1:
        return Difference(value, math.nan, math.nan, 1, 1.0, 1.0, 1)
    error = float(np.std(np.round(differences, 9), ddof=1)) / math.sqrt(seeds)
    low, high, p = student(value, error, seeds - 1)
    return Difference(value, low, high, seeds, p, p, seeds)


def spread_over_seeds(
    samples: Sequence[tuple[Hashable, ...]], values: Sequence[np.ndarray], strata: Sequence[list[Hashable]]
) -> tuple[tuple[float, int], tuple[float, int]]:
    """Two standard errors of the mean over S >= 2 seeds, each with its degrees of freedom; the wider interval counts.

    The first is of seeds and samples. Seeds are a random effect, and samples another that seeds share if they have the
    same ones: its variance is A + B - C, where A is the variance of the seeds' means over S, B that of the mean when
    samples alone are drawn again, and C the part of their interaction, which A and B both hold (two-way analysis of
    variance; negative B - C count as 0). Its degrees of freedom are Satterthwaite's (F. E. Satterthwaite, 1946), at
    least S - 1. The second is of samples alone, for seeds that agree by chance.

    Args:
        samples, strata: of each seed its samples and their strata. values: of each seed the weighted results, [N].
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
    """The positions of the seeds that have the same samples."""
    positions: dict[tuple[Hashable, ...], list[int]] = {}
    for position, members in enumerate(samples):
        positions.setdefault(members, []).append(position)
    return list(positions.values())


def _by_stratum(values: np.ndarray, labels: Sequence[Hashable]) -> list[np.ndarray]:
    """[N] or [N, S] values -> [n, S] of each stratum."""
    columns = values.reshape(len(labels), -1)
    return [columns[[label == wanted for label in labels]] for wanted in dict.fromkeys(labels)]


def _weights(labels: Sequence[Hashable]) -> np.ndarray:
    """[N] weights with which the plain mean over samples is the mean over strata of the means over their samples."""
    sizes = {label: labels.count(label) for label in set(labels)}
    return np.array([len(labels) / (len(sizes) * sizes[label]) for label in labels])


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected by Holm's step-down method (S. Holm, 1979), in the order given."""
    corrected_values, largest = [0.0] * len(values), 0.0
    for rank, position in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - rank) * values[position]))
        corrected_values[position] = largest
    return corrected_values


# --- drawing --------------------------------------------------------------------------------------------------------


def resampled_sums(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[N, C] values of N samples -> [RESAMPLES, C] sums over N samples drawn with replacement.

    Samples with equal values are drawn together, by a multinomial: how often any of them is drawn is all that the sum
    depends on. Where values are nearly all different, drawing N positions and counting them is the faster way.
    """
    n = len(values)
    distinct, counts = distinct_rows(values)
    if FEW_EQUAL * len(distinct) < n:
        return np.concatenate([rng.multinomial(n, counts / n, size) @ distinct for size in _chunk_sizes(len(distinct))])
    return np.concatenate([_counts_of_positions(n, size, rng) @ values for size in _chunk_sizes(n)])


def _chunk_sizes(width: int) -> list[int]:
    """How many resamples to draw at a time, where each takes `width` numbers."""
    size = max(CHUNK // width, 1)
    return [min(size, RESAMPLES - start) for start in range(0, RESAMPLES, size)]


def _counts_of_positions(n: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """[size, n]: how often each of n positions is among n that are drawn with replacement."""
    drawn = rng.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
    return np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)


def distinct_rows(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows of an array and how often each occurs, in the order in which they first do (so that the negated
    values are drawn in the same order: swapping two systems mirrors their interval).
    """
    rows, first, counts = np.unique(values, axis=0, return_index=True, return_counts=True)
    order = np.argsort(first)
    return rows[order], counts[order]


def _nonzero(values: np.ndarray) -> np.ndarray:
    return np.where(values == 0, np.nan, values)
