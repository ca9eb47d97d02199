"""Compute TS, PI and CF of judged calls, with intervals and by group, and score RoTBench and BFCL.

Scoring has two steps. The first judges each sample: `rotbench_fixed` with `tltrain.grading`; `rotbench_official` like
RoTBench's released scorer, quirks included; `any_call`, `each_call` and `every_call` if several calls are asked for;
`grading.abstention` if no call is right. The second, `score` and `score_by`, averages anything that has `ts`, `pi` and
`cf`, so all scorings share it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

from tltrain.config import Matching
from tltrain.errors import TltrainError
from tltrain.evaluation.intervals import Percentage, percentage
from tltrain.evaluation.metrics import SINGLE_TURN
from tltrain.formats.calls import split_calls
from tltrain.grading import (
    ABSTENTION,
    ANY,
    CALL_OUTCOMES,
    AnswerGrade,
    Grade,
    Outcome,
    RewardTable,
    first_call,
    grade,
    grade_abstention,
    grade_answer,
)
from tltrain.trajectory import Call, Sample


class Judged(Protocol):
    """What can be scored: a `Grade`, an `AnswerGrade` (shares of its golden calls), or `Correctness`."""

    @property
    def ts(self) -> bool | float: ...
    @property
    def pi(self) -> bool | float: ...
    @property
    def cf(self) -> bool | float: ...


@dataclass(frozen=True, slots=True)
class Correctness:
    """The three levels of one sample, for scorers that give only these."""

    ts: bool = False
    pi: bool = False
    cf: bool = False


def score(judged: Sequence[Judged], seed: int = 0, denominator: float | None = None) -> dict[str, Percentage]:
    """Return TS, PI and CF (as in the paper) over all samples: `{"ts": Percentage, "pi": ..., "cf": ...}`."""
    return {
        metric: percentage((getattr(levels, metric) for levels in judged), seed, denominator) for metric in SINGLE_TURN
    }


def score_by(
    judged: Sequence[Judged], samples: Sequence[Sample], key: str, seed: int = 0, denominator: float | None = None
) -> dict[Hashable, dict[str, Percentage]]:
    """Return `score` for each value of `sample.meta[key]` (`scenario`, `level`, `seen`, ...), in order of appearance.

    A sample without the key counts under None. RoTBench's released scorer divides each scenario by a seventh of all
    samples: `denominator=len(samples) / 7`.
    """
    groups: dict[Hashable, list[Judged]] = {}
    for one, sample in _pairs(judged, samples):
        groups.setdefault(sample.meta.get(key), []).append(one)
    return {value: score(members, seed, denominator) for value, members in groups.items()}


def first_scoring(scorings: Iterable[str], preferred: str) -> str:
    """Return the main scoring: `benchmark.scoring` if RoTBench has two, otherwise the one by calls."""
    names = list(scorings)
    return preferred if preferred in names else names[0]


def count_outcomes(grades: Iterable[Grade | AnswerGrade]) -> dict[str, int]:
    """Count the answers with each outcome (for several calls, that of the worst), from worst to best. All outcomes of
    calls are listed; those of questions to which no call is right are listed if they occur.
    """
    return _count([outcome.value for outcome in CALL_OUTCOMES], (one.outcome.value for one in grades))


def count_rows(grades: Iterable[Grade | AnswerGrade]) -> dict[str, int]:
    """Count the answers in each row of the reward table (for several calls, the row of the worst), in the paper's
    order, then the outcomes of `ABSTENTION` that occur.
    """
    return _count([row.name for row in fields(RewardTable)], (one.row for one in grades))


def _count(keys: Sequence[str], found: Iterable[str]) -> dict[str, int]:
    counts = dict.fromkeys([*keys, *(outcome.value for outcome in ABSTENTION)], 0)
    for key in found:
        counts[key] += 1
    return {key: count for key, count in counts.items() if count or key in keys}


def abstention_rate(grades: Iterable[Grade | AnswerGrade], seed: int = 0) -> Percentage:
    """Return the share of questions to which no call is right that are answered without a call."""
    return percentage((one.outcome is Outcome.ABSTAINED for one in grades), seed)


def unasked_words(predictions: Sequence[str], samples: Sequence[Sample]) -> int:
    """Count the questions that ask for a call but are answered in words alone: the opposite error."""
    return sum(
        grade_abstention(prediction, sample.tools).outcome is Outcome.ABSTAINED
        for prediction, sample in _pairs(predictions, samples)
        if not sample.abstain
    )


def any_call(
    predictions: Sequence[str], samples: Sequence[Sample], values: Matching | str = Matching.strict
) -> list[Grade]:
    """Grade each answer's first call, which must match any golden call, for models that make one call at a time."""
    return [
        grade(first_call(prediction, sample.tools), sample.goldens, sample.tools, values)
        for prediction, sample in _pairs(predictions, samples)
    ]


def each_call(
    predictions: Sequence[str],
    samples: Sequence[Sample],
    values: Matching | str = Matching.strict,
    words_to_user: bool = True,
) -> list[AnswerGrade]:
    """Grade answers with several calls, each matched to a golden call; a level is the share of golden calls.

    Args:
        words_to_user: whether the words of an answer to the user are compared (not in `rotbench_fixed`).
    """
    return [
        grade_answer(
            prediction,
            sample.asked if words_to_user else replace(sample, goldens=_any_words(sample)).asked,
            sample.tools,
            values,
        )
        for prediction, sample in _pairs(predictions, samples)
    ]


def every_call(
    predictions: Sequence[str], samples: Sequence[Sample], values: Matching | str = Matching.strict
) -> list[Correctness]:
    """Judge answers as a whole if every golden call is asked for. A level is reached if the answer has as many calls as
    there are golden calls and they can be paired, in any order, so that each pair reaches it. Unreadable calls count as
    calls of the answer.
    """
    return [_every(split_calls(prediction), sample, values) for prediction, sample in _pairs(predictions, samples)]


def _every(calls: Sequence[Call | str], sample: Sample, values: Matching | str) -> Correctness:
    if len(calls) != len(sample.goldens):
        return Correctness()
    grades = [[grade(call, golden, sample.tools, values) for golden in sample.goldens] for call in calls]
    return Correctness(*(_matching([[getattr(one, level) for one in row] for row in grades]) for level in SINGLE_TURN))


def _matching(fits: Sequence[Sequence[bool]]) -> bool:
    """Return whether each row can get a different column that fits it (bipartite matching by augmenting paths)."""
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
    """Score RoTBench with `grade`, with the tools as they are named in each sample.

    As in the released scorer, the words of an answer or a question to the user are not compared: every golden value in
    a call of the last two tools (`finish` and `ask_to_user`, whatever their names) is `ANY`.
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
    """Score RoTBench like its released `evaluate.py`, on calls that our reader has read (None: unreadable).

    It differs from `rotbench_fixed` as follows:
    - a call without arguments is wrong at every level, even if the golden call has none;
    - a predicted `finish` takes the name of the last tool when it meets a golden call of that tool, and keeps it;
    - an argument whose golden value is `ANY` is deleted from the prediction, which is compared without it with the
      golden calls that follow; other values are compared with Python's `==`, so `1` equals `true`;
    - values are ignored for the last two tools, and for any other tool that noise has named `finish` or `ask_to_user`.

    For percentages by scenario see `score_by`.
    """
    return [
        Correctness(*(_passes(prediction, sample, level) for level in SINGLE_TURN))
        if prediction is not None
        else Correctness()
        for prediction, sample in _pairs(predictions, samples)
    ]


def _passes(prediction: Call, sample: Sample, level: str) -> bool:
    """Run one of the released scorer's three passes over the golden calls; it ends at the first call that matches."""
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
