"""What a sampled call earns, and how that is shown: the same for every algorithm of stage=irm."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tltrain.config import Matching
from tltrain.data.reading import expect, member, optional, shown
from tltrain.errors import FieldError, RecordError
from tltrain.evaluation.scoring import count_outcomes
from tltrain.formats import joined
from tltrain.formats.calls import render_call
from tltrain.formats.tl import TL
from tltrain.grading import Grade, Outcome, RewardTable, grade
from tltrain.runtime import distributed, runs
from tltrain.training.kl import KlControl
from tltrain.trajectory import Sample


@dataclass(frozen=True, slots=True)
class GradedResponse:
    """A sampled response with its grade and reward."""

    sample: Sample
    response: str
    grade: Grade
    reward: float


class RewardFunction:
    """Grades responses against the golden call and prices them by a reward table (the paper, IRM)."""

    def __init__(self, table: RewardTable, values: Matching | str = Matching.strict) -> None:
        self.table, self.values = table, values

    def __call__(self, sample: Sample, response: str) -> GradedResponse:
        found = grade(response, sample.goldens, sample.tools, self.values)
        return GradedResponse(sample, response, found, found.reward(self.table))


@dataclass(frozen=True)
class RewardSignal:
    """What responses are trained by, the same for every algorithm.

    Attributes:
        judge: grades a response to a sample.
        kl: the price of leaving the reference policy.
        on_samples: called with the number of a step and what was judged in it (on the first process).
    """

    judge: Callable[[Sample, str], GradedResponse]
    kl: KlControl
    on_samples: Callable[[int, Sequence[GradedResponse]], None] = lambda step, judged: None


GRADES = tuple(f"grade/{outcome.value}" for outcome in Outcome)
"""Names under which the shares of outcomes are logged, from worst to best."""


def grade_counts(judged: Sequence[GradedResponse]) -> dict[str, int]:
    """How many responses ended in each outcome, under the names of `GRADES`."""
    return {f"grade/{name}": count for name, count in count_outcomes(one.grade for one in judged).items()}


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """A sampled call beside the golden ones: a line of `samples.jsonl`.

    Attributes:
        step: the optimizer step, from 1. id: the prompt's.
        sampled: what the model wrote. golden: the golden calls, with ` | ` between them.
        grade: the row of the reward table. reason: why, in words.
    """

    step: int
    id: str = ""
    prompt: str = ""
    sampled: str = ""
    golden: str = ""
    grade: str = ""
    reward: float | None = None
    reason: str = ""

    @classmethod
    def of(cls, step: int, response: GradedResponse) -> SampleRecord:
        """What is written down of a graded response."""
        return cls(
            step=step,
            id=response.sample.id,
            prompt=joined(TL.prompt_segments(response.sample)),
            sampled=response.response,
            golden=" | ".join(render_call(golden) for golden in response.sample.goldens),
            grade=response.grade.row,
            reward=response.reward,
            reason=response.grade.reason,
        )

    @classmethod
    def from_json(cls, record: Any) -> SampleRecord:
        """Read a line; unknown keys are ignored. Raises FieldError."""
        record = expect(record, dict, "line")
        reward = record.get("reward")
        if isinstance(reward, bool) or not isinstance(reward, int | float | None):
            raise FieldError("reward", "a number", shown(reward))
        texts = {key: optional(record, key, "") for key in ("id", "prompt", "sampled", "golden", "grade", "reason")}
        return cls(step=member(record, "step", int), reward=reward, **texts)

    def to_json(self) -> dict[str, Any]:
        """The line as plain values."""
        return {column.name: getattr(self, column.name) for column in fields(self)}


class SampleLog:
    """Sampled calls beside the golden ones, some of every `every` steps: to `samples.jsonl` and to a tracker.

    Args:
        every: steps between two entries, counted from the first step. count: samples an entry.
        table: called with a table's name, columns, rows and step.
    """

    def __init__(
        self, path: Path, every: int, count: int, table: Callable[..., None] = lambda *args, **kwargs: None
    ) -> None:
        self.path, self.every, self.count, self.table = path, every, count, table

    def forget_after(self, step: int) -> None:
        """Remove what steps after `step` left: they are made again."""
        if distributed.leads() and self.path.is_file():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            earlier = [line for number, line in enumerate(lines, 1) if self._step(number, line) <= step]
            runs.write_lines(self.path, earlier)

    def _step(self, number: int, line: str) -> float:
        try:
            record = json.loads(line)
        except ValueError:  # the line that was being written when the run was stopped
            return math.inf
        try:
            return SampleRecord.from_json(record).step
        except FieldError as error:
            raise RecordError(self.path, number, error) from None

    def __call__(self, step: int, judged: Sequence[GradedResponse]) -> None:
        """Keep some of the samples of step `step` (from 1), if it is its turn."""
        if (step - 1) % self.every:
            return
        records = [SampleRecord.of(step, response) for response in judged[: self.count]]
        with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(json.dumps(record.to_json(), ensure_ascii=False) + "\n" for record in records)
        rows = [list(record.to_json().values()) for record in records]
        self.table("irm/samples_table", [column.name for column in fields(SampleRecord)], rows, step=step)
