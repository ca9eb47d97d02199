"""From judged calls to numbers: TS, PI and CF with intervals, by group, and the two ways to score RoTBench.

Scoring has two halves. The first judges each sample: `rotbench_fixed` through `tltrain.grading`, `rotbench_official`
as RoTBench's released scorer does, quirks included; other benchmarks call `grade` themselves. The second, `score` and
`score_by`, sums up whatever has `ts`, `pi` and `cf`, so that both scorings share it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np

from tltrain.errors import TltrainError
from tltrain.grading import ANY, Grade, Outcome, RewardTable, Values, grade
from tltrain.trajectory import Call, Sample

LEVELS = ("ts", "pi", "cf")
RESAMPLES = 2000


class Judged(Protocol):
    """What can be scored: a `Grade`, or `Levels`."""

    @property
    def ts(self) -> bool: ...
    @property
    def pi(self) -> bool: ...
    @property
    def cf(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Levels:
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


def score(judged: Sequence[Judged], seed: int = 0, denominator: float | None = None) -> dict[str, Metric]:
    """TS, PI and CF (as in the paper) over all samples: `{"ts": Metric, "pi": ..., "cf": ...}`."""
    return {level: metric((getattr(one, level) for one in judged), seed, denominator) for level in LEVELS}


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


def rotbench_fixed(
    predictions: Sequence[str | Call], samples: Sequence[Sample], values: Values = "strict"
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


def rotbench_official(predictions: Sequence[Call | None], samples: Sequence[Sample]) -> list[Levels]:
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
        Levels(*(_passes(prediction, sample, level) for level in LEVELS)) if prediction is not None else Levels()
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
