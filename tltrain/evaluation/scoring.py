"""From judged calls to numbers: TS, PI and CF with intervals, by group, and the ways to score RoTBench and BFCL.

Scoring has two halves. The first judges each sample: `rotbench_fixed` through `tltrain.grading`, `rotbench_official`
as RoTBench's released scorer does, quirks included; `any_call` and `every_call` where several calls are asked for. The
second, `score` and `score_by`, sums up whatever has `ts`, `pi` and `cf`, so that all scorings share it; `paired` says
whether two such results differ.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np

from tltrain.config import Matching
from tltrain.errors import TltrainError
from tltrain.evaluation.metrics import SINGLE_TURN
from tltrain.formats.calls import read_calls
from tltrain.grading import ANY, Grade, Outcome, RewardTable, grade
from tltrain.trajectory import Call, Sample

RESAMPLES = 2000


class Judged(Protocol):
    """What can be scored: a `Grade`, or `Correctness`."""

    @property
    def ts(self) -> bool: ...
    @property
    def pi(self) -> bool: ...
    @property
    def cf(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Correctness:
    """One sample's three answers, where a scorer gives no more than these."""

    ts: bool = False
    pi: bool = False
    cf: bool = False


@dataclass(frozen=True, slots=True)
class Metric:
    """`right` of `n` samples, in percent, with the ends of a 95 % bootstrap interval."""

    percent: float
    right: int
    n: int
    low: float
    high: float


def metric(right: Iterable[bool], seed: int = 0, denominator: float | None = None) -> Metric:
    """The percentage of True with its percentile bootstrap interval (2,000 resamples).

    `denominator` replaces the number of samples in the percentages (not in `n`). Of no samples at all nothing is known:
    0 %, between 0 and 100.
    """
    answers = list(right)
    n, count = len(answers), sum(answers)
    if n == 0:
        return Metric(0.0, 0, 0, 0.0, 100.0)
    # Drawing n samples with replacement and counting those that are right is one draw from a binomial distribution.
    counts = np.random.default_rng(seed).binomial(n, count / n, RESAMPLES)
    low, high = np.percentile(counts, [2.5, 97.5])
    percent, low, high = (100 * float(value) / (denominator or n) for value in (count, low, high))
    return Metric(percent, count, n, low, high)


@dataclass(frozen=True, slots=True)
class Difference:
    """`b - a` of two means over the same n samples, with a 95 % interval and a two-sided p-value."""

    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float
    n: int


def paired(a: Sequence[float], b: Sequence[float], seed: int = 0, resamples: int = 10_000) -> Difference:
    """Compare two systems on the same samples, of which `a[i]` and `b[i]` are the results.

    The interval is that of a paired bootstrap: samples are drawn with replacement, both systems' results together, and
    the ends are percentiles of the mean difference. The p-value is that of a paired randomization test, which asks how
    often swapping the two systems' results at random gives a mean difference as large; unlike the bootstrap's it also
    holds for a handful of samples. Never 0: at least 1 / (resamples + 1).
    """
    if len(a) != len(b) or not a:
        raise TltrainError(f"{len(a)} and {len(b)} results: expected as many of both, and at least one")
    # Results take few values, so that counting how often each difference is drawn stands for drawing samples.
    differences, counts = np.unique(np.round(np.subtract(b, a, dtype=float), 9), return_counts=True)
    n, rng = len(a), np.random.default_rng(seed)
    mean = float(differences @ counts) / n
    low, high = np.percentile(rng.multinomial(n, counts / n, resamples) @ differences / n, [2.5, 97.5])
    swapped = sum(
        (difference * (2 * rng.binomial(count, 0.5, resamples) - count) / n)
        for difference, count in zip(differences, counts, strict=True)
    )
    p = (1 + int(np.sum(np.abs(swapped) >= abs(mean) - 1e-9))) / (resamples + 1)
    return Difference(float(np.mean(a)), float(np.mean(b)), mean, float(low), float(high), p, n)


def score(judged: Sequence[Judged], seed: int = 0, denominator: float | None = None) -> dict[str, Metric]:
    """TS, PI and CF (as in the paper) over all samples: `{"ts": Metric, "pi": ..., "cf": ...}`."""
    return {level: metric((getattr(one, level) for one in judged), seed, denominator) for level in SINGLE_TURN}


def score_by(
    judged: Sequence[Judged], samples: Sequence[Sample], key: str, seed: int = 0, denominator: float | None = None
) -> dict[Hashable, dict[str, Metric]]:
    """`score` for each value of `sample.meta[key]` (`scenario`, `level`, `seen`, ...), in order of appearance.

    A sample without the key counts under None. RoTBench's released scorer divides each scenario by a seventh of all
    samples: `denominator=len(samples) / 7`.
    """
    groups: dict[Hashable, list[Judged]] = {}
    for one, sample in _pairs(judged, samples):
        groups.setdefault(sample.meta.get(key), []).append(one)
    return {value: score(members, seed, denominator) for value, members in groups.items()}


def count_outcomes(grades: Iterable[Grade]) -> dict[str, int]:
    """How many calls ended in each `Outcome`, all of them listed, from worst to best."""
    return _count([outcome.value for outcome in Outcome], (one.outcome.value for one in grades))


def count_rows(grades: Iterable[Grade]) -> dict[str, int]:
    """How many calls fell in each row of the reward table, all rows listed, in the order of the paper."""
    return _count([row.name for row in fields(RewardTable)], (one.row for one in grades))


def _count(keys: Sequence[str], found: Iterable[str]) -> dict[str, int]:
    counts = dict.fromkeys(keys, 0)
    for key in found:
        counts[key] += 1
    return counts


def any_call(
    predictions: Sequence[str], samples: Sequence[Sample], values: Matching | str = Matching.strict
) -> list[Grade]:
    """Answers whose first call has to agree with any golden call, for models that make one call at a time."""
    return [
        grade((read_calls(prediction) or [prediction])[0], sample.goldens, sample.tools, values)
        for prediction, sample in _pairs(predictions, samples)
    ]


def every_call(
    predictions: Sequence[str], samples: Sequence[Sample], values: Matching | str = Matching.strict
) -> list[Correctness]:
    """Answers as a whole, where every golden call is asked for: a level is reached if the calls of the answer and the
    golden calls are as many and can be put in pairs, in any order, each of which reaches it.
    """
    return [_every(read_calls(prediction), sample, values) for prediction, sample in _pairs(predictions, samples)]


def _every(calls: Sequence[Call], sample: Sample, values: Matching | str) -> Correctness:
    if len(calls) != len(sample.goldens):
        return Correctness()
    grades = [[grade(call, golden, sample.tools, values) for golden in sample.goldens] for call in calls]
    return Correctness(*(_matching([[getattr(one, level) for one in row] for row in grades]) for level in SINGLE_TURN))


def _matching(fits: Sequence[Sequence[bool]]) -> bool:
    """Whether each row can have a column of its own that fits it (augmenting paths, as for bipartite graphs)."""
    row_of: dict[int, int] = {}

    def place(row: int, tried: set[int]) -> bool:
        for column, fit in enumerate(fits[row]):
            if fit and column not in tried:
                tried.add(column)
                if column not in row_of or place(row_of[column], tried):
                    row_of[column] = row
                    return True
        return False

    return all(place(row, set()) for row in range(len(fits)))


def rotbench_fixed(
    predictions: Sequence[str | Call], samples: Sequence[Sample], values: Matching | str = Matching.strict
) -> list[Grade]:
    """RoTBench through `grade`, with the tools as they are named in each sample.

    As in the released scorer, the words of an answer to the user or of a question to them are not compared: every
    golden value of a call of the last two tools (`finish` and `ask_to_user`, whatever they are called) is `ANY`.
    """
    return [
        grade(prediction, _any_words(sample), sample.tools, values)
        for prediction, sample in _pairs(predictions, samples)
    ]


def _any_words(sample: Sample) -> tuple[Call, ...]:
    to_user = {tool.name for tool in sample.tools[-2:]}
    return tuple(
        replace(golden, arguments=dict.fromkeys(golden.arguments, ANY)) if golden.name in to_user else golden
        for golden in sample.goldens
    )


def rotbench_official(predictions: Sequence[Call | None], samples: Sequence[Sample]) -> list[Correctness]:
    """RoTBench as its released `evaluate.py` scores it, on calls read by our reader (None: cannot be read).

    What a reader of its numbers should know, and `rotbench_fixed` does otherwise:
    - a call without arguments is wrong at every level, even where the golden call has none;
    - a predicted `finish` becomes the name of the last tool on meeting a golden call of that tool, and stays so;
    - a golden value `ANY` is deleted from the prediction too, which is then compared in that state with the golden
      calls that follow; the others are compared with Python's `==`, so `1` equals `true`;
    - values are not looked at for the last two tools, nor for any other that noise has named `finish` or `ask_to_user`.

    For percentages of scenarios see `score_by`.
    """
    return [
        Correctness(*(_passes(prediction, sample, level) for level in SINGLE_TURN))
        if prediction is not None
        else Correctness()
        for prediction, sample in _pairs(predictions, samples)
    ]


def _passes(prediction: Call, sample: Sample, level: str) -> bool:
    """One of the released scorer's three passes over the golden calls; it ends at the first that is met."""
    if not prediction.arguments:
        return False
    name, arguments = prediction.name, prediction.arguments
    to_user = {tool.name for tool in sample.tools[-2:]} | {"finish", "ask_to_user"}
    for golden in sample.goldens:
        if golden.name == sample.tools[-1].name and name == "finish":
            name = golden.name
        if golden.name != name:
            continue
        if level == "ts":
            return True
        if golden.arguments.keys() != arguments.keys():
            continue
        if level == "pi":
            return True
        compared = {key: value for key, value in golden.arguments.items() if value is not ANY}
        arguments = {key: arguments[key] for key in compared}
        if arguments == compared or name in to_user:
            return True
    return False


def _pairs(judged: Sequence[Any], samples: Sequence[Sample]) -> Iterable[tuple[Any, Sample]]:
    if len(judged) != len(samples):
        raise TltrainError(f"{len(judged)} predictions for {len(samples)} samples: expected one for each, in order")
    return zip(judged, samples, strict=True)
