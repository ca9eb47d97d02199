"""Whether a new model is better than the one in service, by how much and how certainly. Pure: answers in, verdict out.

The same held-out questions are put to both. Questions of one conversation depend on one another, so whole conversations
are resampled (`intervals.ratio_difference`), and the p-value swaps the two models' results conversation by conversation
(`intervals.randomization_p`): it also holds for a handful of conversations, where a bootstrap alone is too sure. Swaps
say nothing about a threshold other than 0: two models that answer alike so far may still differ by five points. There a
score test for paired proportions is asked as well (`score_p`), and the larger p counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from tltrain.errors import TltrainError
from tltrain.evaluation import intervals
from tltrain.evaluation.intervals import ALPHA, Interval

FAILED = 3
"""Exit status of a gate that is not passed. A mistake of the user's has 1, an interruption 130 or 143."""
Z = 1.96
"""The score statistic at `ALPHA`."""
FEWEST = 6
"""Differing conversations below which nothing is certain: with five, swapping gives p = 2/32 at best."""


class Verdict(StrEnum):
    """What the difference says beside the threshold."""

    ABOVE = "above"
    NOT_CERTAIN = "not_certain"
    BELOW = "below"


@dataclass(frozen=True)
class Comparison:
    """New minus reference in one metric, in percentage points, over the same questions.

    Attributes:
        difference: with its 95 % interval; `n` is the number of questions. p: two-sided, of no difference from the
            threshold. conversations: what was resampled. differing: those whose results are not on the threshold, which
            alone speak for either side. verdict: whether the difference is certainly on one side of the threshold. new,
            reference: each model's own percentage.
        needed: about how many held-out conversations would make a difference of this size certain; None where it is,
            or where there is none.
    """

    difference: Interval
    p: float
    conversations: int
    differing: int
    threshold: float
    verdict: Verdict
    new: float
    reference: float
    needed: int | None

    @property
    def half_width(self) -> float:
        """Points of percent by which the difference may be off on either side."""
        return (self.difference.high - self.difference.low) / 2

    def passes(self, certain: bool) -> bool:
        """Whether the difference is above the threshold: certainly so, or as it was measured."""
        return self.verdict is Verdict.ABOVE if certain else _beyond(self.threshold, self.difference.value) > 0


def compare(
    reference: Sequence[float], new: Sequence[float], clusters: Sequence[int], threshold: float = 0.0, seed: int = 0
) -> Comparison:
    """Compare two models' results on the same questions.

    Args:
        reference, new: [N] results from 0 to 1. clusters: [N] the conversation of each question.
        threshold: percentage points by which the new model has to be better.

    Raises:
        TltrainError: there are no questions, or not as many results of both.
    """
    if not len(clusters) or not len(reference) == len(new) == len(clusters):
        raise TltrainError(f"{len(reference)} and {len(new)} results to {len(clusters)} questions: nothing to compare")
    sums_new, sums_reference = cluster_sums(new, clusters), cluster_sums(reference, clusters)
    found = intervals.ratio_difference(sums_new, sums_reference, seed)
    value, low, high = (100 * each for each in (found.value, found.low, found.high))
    n, count = len(clusters), len(sums_new)
    beyond = sums_new[:, 0] - sums_reference[:, 0] - threshold / 100 * sums_new[:, 1]
    p = intervals.randomization_p(beyond, np.random.default_rng(seed))
    z = score_z(sums_new[:, 0] - sums_reference[:, 0], sums_new[:, 1], threshold / 100) if threshold else math.inf
    p = max(p, math.erfc(abs(z) / math.sqrt(2)))
    verdict = Verdict.NOT_CERTAIN
    if p < ALPHA and not _beyond(threshold, low) <= 0 <= _beyond(threshold, high):
        verdict = Verdict.ABOVE if _beyond(threshold, value) > 0 else Verdict.BELOW
    differing = int(np.count_nonzero(np.round(beyond, 9)))
    needed, distance = None, abs(_beyond(threshold, value))
    if verdict is Verdict.NOT_CERTAIN and distance > 0 and differing:
        by_width = math.ceil(count * ((high - low) / 2 / distance) ** 2)
        by_score = math.ceil(count * (Z / z) ** 2) if z else 0
        needed = max(FEWEST, count + 1, by_width, by_score, math.ceil(count * FEWEST / differing))
    return Comparison(
        Interval(value, low, high, n),
        p,
        count,
        differing,
        threshold,
        verdict,
        100 * float(np.mean(new)),
        100 * float(np.mean(reference)),
        needed,
    )


def score_z(leads: np.ndarray, sizes: np.ndarray, threshold: float) -> float:
    """The score statistic of a paired difference of proportions against a threshold (T. Tango, Statistics in Medicine
    17, 1998, page 891), which also holds where the two hardly ever differ. Conversations take the place of pairs, as
    many as conversations of equal size would weigh (L. Kish, 1965).

    Args:
        leads: [T] questions that only the new model answers rightly, minus those that only the other does.
        sizes: [T] questions. threshold: of the difference, from -1 to 1.
    """
    n = float(sizes.sum() ** 2 / np.square(sizes).sum())
    scale = n / float(sizes.sum())
    better, worse = scale * float(leads.clip(min=0).sum()), scale * float(-leads.clip(max=0).sum())
    linear = (2 * n - better + worse) * threshold - better - worse
    constant = -worse * threshold * (1 - threshold)
    alone = (math.sqrt(max(linear**2 - 8 * n * constant, 0.0)) - linear) / (4 * n)  # the share that is worse
    variance = n * (2 * alone + threshold * (1 - threshold))
    distance = round(better - worse - n * threshold, 9)
    return 0.0 if not distance else distance / math.sqrt(variance) if variance > 1e-12 else math.inf


def _beyond(threshold: float, points: float) -> float:
    """Points above the threshold, rounded so that a tie is one: 100 * (0.55 - 0.5) is more than 5 in floating point."""
    return round(points - threshold, 9)


def share(results: Sequence[float], clusters: Sequence[int], seed: int = 0) -> Interval:
    """One model's results in percent, whole conversations resampled."""
    sums = cluster_sums(results, clusters)
    (found,) = intervals.ratios(sums[:, :1], sums[:, 1:], seed)
    return Interval(100 * found.value, 100 * found.low, 100 * found.high, len(results))


def cluster_sums(results: Sequence[float], clusters: Sequence[int]) -> np.ndarray:
    """[T, 2] the sum of the results and the number of questions of each of T conversations."""
    positions = {cluster: at for at, cluster in enumerate(dict.fromkeys(clusters))}
    sums = np.zeros((len(positions), 2))
    for result, cluster in zip(results, clusters, strict=True):
        sums[positions[cluster]] += (float(result), 1.0)
    return sums


def too_few(found: Comparison) -> str:
    """One line where there are too few questions for a certain verdict; empty where there are enough."""
    if found.verdict is not Verdict.NOT_CERTAIN:
        return ""
    asked = f"{found.difference.n} questions of {found.conversations} conversations"
    needs = f"; about {found.needed} conversations would show the difference found" if found.needed else ""
    if found.half_width == 0 and found.difference.value == 0:
        return f"Too few held-out questions for a certain verdict: {asked} were answered alike by both models{needs}."
    if found.differing < FEWEST:
        return (
            f"Too few held-out questions for a certain verdict: of {asked} those of {found.differing} conversations "
            f"speak for one of the models, and fewer than {FEWEST} prove nothing{needs}."
        )
    return (
        f"Too few held-out questions for a certain verdict: {asked} show a difference from about "
        f"{found.half_width:.0f} points on{needs}."
    )
