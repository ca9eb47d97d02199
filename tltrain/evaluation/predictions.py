"""Answers to samples, and how they are graded: `Prediction`, a line of `predictions.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from tltrain.config.rewards import RewardTable
from tltrain.data.reading import expect, expect_id, member, optional, shown
from tltrain.errors import FieldError, TltrainError
from tltrain.evaluation.metrics import ABSTENTION, METRICS, SINGLE_TURN
from tltrain.evaluation.records import call_to_json, member_or_none, read_some, scalars
from tltrain.grades import ABSTENTION as ABSTENTION_OUTCOMES
from tltrain.grades import AnswerGrade, Grade, Outcome
from tltrain.trajectory import Sample

PREDICTIONS = "predictions.jsonl"

Identity = tuple[str, str, str]
"""The identity of a sample: set, id, and what was asked (see `Prediction.identity`)."""

SUPERFLUOUS = "superfluous_call"
"""The grade of a call for which no golden call is left."""

RATES = ("de", "ce")
"""Metrics that are a number for each conversation, not true or false."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer to one sample: a line of `predictions.jsonl`. It can also represent a conversation
    (`conversation_lines`).

    Attributes:
        set: the benchmark's set, such as `rotbench_clean`.
        id: the sample's id within the set.
        answer: the model's answer; `prediction` in the file.
        call: the call read from the answer, as JSON; None without a call. Of several calls, the one matched to the
            first golden call.
        calls: if the answer or the sample has several calls, an object for each golden call and then for each
            superfluous call: `call`, `golden`, `grade` (a row, or `superfluous_call`) and `reason`. Otherwise empty,
            and absent from the file.
        goldens: the accepted calls, as JSON (`call_to_json`); empty if no call is right.
        grade: the row of the reward table, the worst one for several golden calls; for a conversation, how it ended.
        scores: metric -> whether it is reached, or a number from 0 to 1 (`RATES`, and TS, PI and CF if only some of
            several golden calls reach it); in the file, keys of the line itself.
        reward: reward by the reward table; None if it was not computed.
        reason: the reason for the grade, in words.
        meta: what the benchmark says about the sample (`query`, `scenario`), and `seen`: whether it was trained on.
        finish_reason: why the answer ended, in the words of OpenAI's API (`length`: cut before a call could be read);
            empty, and absent from the file, if the source does not know.
        said: thought, text and calls of an answer in a native format; empty, and absent from the file, in the TL
            format.
    """

    set: str
    id: str
    answer: str = ""
    call: Mapping[str, Any] | None = None
    goldens: Sequence[Any] = field(default_factory=list)
    grade: str = ""
    scores: Mapping[str, bool | float] = field(default_factory=dict)
    reward: float | None = None
    reason: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
    finish_reason: str = ""
    said: Mapping[str, Any] = field(default_factory=dict)
    calls: Sequence[Mapping[str, Any]] = field(default_factory=list)

    @classmethod
    def graded(
        cls, set_name: str, sample: Sample, answer: str, grade: Grade | AnswerGrade, reward: float | None
    ) -> Prediction:
        """Create the prediction of a single-turn answer with its grade."""
        scores = (
            {ABSTENTION: grade.outcome is Outcome.ABSTAINED}
            if sample.abstain
            else {metric: _whole(getattr(grade, metric)) for metric in SINGLE_TURN}
        )
        return cls(
            set_name,
            sample.id,
            answer,
            None if grade.prediction is None else call_to_json(grade.prediction),
            [call_to_json(golden) for golden in sample.goldens],
            grade.row,
            scores,
            reward,
            grade.reason,
            scalars(sample.meta),
            calls=_calls(grade) if isinstance(grade, AnswerGrade) else [],
        )

    @classmethod
    def from_json(cls, record: Any) -> Prediction:
        """Read a line. Raises FieldError."""
        record = expect(record, dict, "line")
        return cls(
            set=member(record, "set", str),
            id=expect_id(record),
            answer=optional(record, "prediction", ""),
            call=member_or_none(record, "call", dict),
            goldens=optional(record, "goldens", []),
            grade=optional(record, "grade", ""),
            scores={key: _score(record[key], key) for key in METRICS if record.get(key) is not None},
            reward=None if record.get("reward") is None else _number(record["reward"], "reward"),
            reason=optional(record, "reason", ""),
            meta=optional(record, "meta", {}),
            finish_reason=optional(record, "finish_reason", ""),
            said=optional(record, "said", {}),
            calls=optional(record, "calls", []),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the line as plain values."""
        return {
            "set": self.set,
            "id": self.id,
            "prediction": self.answer,
            "call": self.call,
            **({"calls": list(self.calls)} if self.calls else {}),
            "goldens": list(self.goldens),
            "grade": self.grade,
            **self.scores,
            **({} if self.reward is None else {"reward": self.reward}),
            "reason": self.reason,
            "meta": dict(self.meta),
            **({"finish_reason": self.finish_reason} if self.finish_reason else {}),
            **({"said": dict(self.said)} if self.said else {}),
        }

    COLUMNS: ClassVar = ("set", "id", "prediction", "goldens", "grade", "reward", "reason")
    """The columns that trackers show in a table of predictions."""

    def row(self) -> list[Any]:
        """Return the prediction as a row of such a table."""
        line = self.to_json()
        return [line.get(column) for column in self.COLUMNS]

    @property
    def identity(self) -> Identity:
        """The identity of the answered sample: set, id, and the golden calls (or the question if there are none), in an
        order that does not depend on the run that wrote them.
        """
        return self.set, self.id, json.dumps(list(self.goldens) or [self.query], sort_keys=True)

    @property
    def query(self) -> str:
        """The user's question; empty if the line does not have it."""
        query = self.meta.get("query")
        return query if isinstance(query, str) else ""

    @property
    def seen(self) -> bool:
        """Whether the model was trained on this question."""
        return self.meta.get("seen") is True

    def reaches(self, metric: str) -> bool:
        """Return whether a metric is reached, completely if it is a share."""
        return self.scores.get(metric) == 1

    @property
    def is_call(self) -> bool:
        """Whether this is a single call rather than a conversation."""
        return "va" not in self.scores


def _whole(level: bool | float) -> bool | float:
    """Return a share as true or false if it is 1 or 0."""
    return level == 1 if level in (0, 1) else level


def _calls(grade: AnswerGrade) -> list[dict[str, Any]]:
    """Return the outcome of each golden call and each superfluous call; empty for one call and one golden call."""
    if len(grade.grades) == 1 and not grade.superfluous:
        return []
    pairs = [(one, one.row) for one in grade.grades] + [(one, SUPERFLUOUS) for one in grade.superfluous]
    return [
        {
            "call": None if one.prediction is None else call_to_json(one.prediction),
            "golden": None if one.golden is None else call_to_json(one.golden),
            "grade": row,
            "reason": one.reason,
        }
        for one, row in pairs
    ]


def by_sample(predictions: Iterable[Prediction]) -> dict[tuple[Identity, int], Prediction]:
    """Map each sample to its prediction, in order. A sample that occurs several times is numbered, from 1."""
    occurrences: dict[Identity, int] = {}
    found = {}
    for prediction in predictions:
        identity = prediction.identity
        occurrences[identity] = occurrences.get(identity, 0) + 1
        found[identity, occurrences[identity]] = prediction
    return found


REWARD_ROWS = tuple(row.name for row in fields(RewardTable))
GRADES = (*REWARD_ROWS, *(outcome.value for outcome in ABSTENTION_OUTCOMES))


def graded_prediction(record: Any) -> Prediction:
    """Read a line of a single-turn evaluation, which has a grade, TS, PI, CF and a reward. Raises FieldError.

    A question to which no call is right has `abstention` instead, and may have no reward.
    """
    prediction = Prediction.from_json(record)
    if prediction.grade not in GRADES:
        raise FieldError("grade", f"one of {', '.join(GRADES)}", prediction.grade)
    if ABSTENTION in prediction.scores:
        return prediction
    for metric in SINGLE_TURN:
        if prediction.scores.get(metric) is None:
            member(record, metric, bool)
    if prediction.reward is None:
        raise FieldError("reward", "a number", shown(record.get("reward")))
    member(record, "goldens", list)
    return prediction


def count_grades(predictions: Iterable[Prediction]) -> dict[str, int]:
    """Count the calls in each row of the reward table, listing all rows in the paper's order, then the other grades
    that occur.
    """
    counts = dict.fromkeys(GRADES, 0)
    for prediction in predictions:
        counts[prediction.grade] += 1
    return {grade: count for grade, count in counts.items() if count or grade in REWARD_ROWS}


def read_graded(folder: Path, key: str) -> list[Prediction]:
    """Return the predictions of a result folder that the configuration gives under `key`.

    Raises:
        TltrainError: it has no `predictions.jsonl`, or a line was not written by stage=eval.
    """
    file = folder / PREDICTIONS
    if not file.is_file():
        raise TltrainError(f"{key}: {folder} has no {PREDICTIONS}; expected a result folder of stage=eval")
    return read_some(file, graded_prediction, "predictions")


def _score(value: Any, key: str) -> bool | float:
    if key in RATES and not isinstance(value, bool):
        return _number(value, key)
    in_part = key in SINGLE_TURN and isinstance(value, float) and 0 < value < 1
    return value if in_part else expect(value, bool, key)


def _number(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FieldError(key, "a number", shown(value))
    return value
