"""What a sampled call earns, and how that is shown: the same for every algorithm of stage=irm."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from tltrain.config import Matching, OpenText
from tltrain.data.reading import expect, member, optional, shown
from tltrain.errors import FieldError, RecordError
from tltrain.formats import joined
from tltrain.formats.calls import render_call
from tltrain.formats.tl import TL
from tltrain.grading import CUT, SAMPLED_OUTCOMES, Grade, Outcome, RewardSettings, grade
from tltrain.runtime import distributed, json_files, redact, runs
from tltrain.training import pricing
from tltrain.training.kl import KlControl
from tltrain.trajectory import Sample

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GradedResponse:
    """A sampled response with its grade and reward.

    `ended`: whether it has an end token; without one `stage.max_new_tokens` cut it.
    """

    sample: Sample
    response: str
    grade: Grade
    reward: float
    ended: bool = True

    @property
    def row(self) -> str:
        """The row of the reward table; `cut` where the response was cut before a call could be read."""
        return pricing.row_of(self.grade, self.ended)

    @property
    def outcome(self) -> str:
        """The grade's outcome, or `cut`."""
        return CUT if pricing.is_cut(self.grade, self.ended) else self.grade.outcome.value


class Judge(Protocol):
    """Grades a response to a sample; `ended` says whether it has an end token."""

    def __call__(self, sample: Sample, response: str, ended: bool = True) -> GradedResponse: ...


class RewardFunction:
    """Grades responses against the golden call and prices them by a reward table (the paper, IRM).

    Raises:
        TltrainError: a package that the settings need is not installed.
    """

    def __init__(self, settings: RewardSettings, values: Matching | str = Matching.strict) -> None:
        self.settings, self.values = settings, values
        if settings.open_text is OpenText.similarity:
            pricing.check_similarity()

    def __call__(self, sample: Sample, response: str, ended: bool = True) -> GradedResponse:
        found = grade(response, sample.goldens, sample.tools, self.values)
        reward = pricing.reward_of(self.settings, sample, response, found, ended)
        return GradedResponse(sample, response, found, reward, ended)


OnSamples = Callable[[int, Sequence[GradedResponse]], None]
"""Called with the number of a step, from 1, and what was judged in it (on the first process)."""


@dataclass(frozen=True)
class RewardSignal:
    """What responses are trained by, the same for every algorithm.

    Attributes:
        judge: grades a response to a sample.
        kl: the price of leaving the reference policy.
        on_samples: sees what was judged.
    """

    judge: Judge
    kl: KlControl
    on_samples: OnSamples = lambda step, judged: None


GRADES = tuple(f"grade/{outcome}" for outcome in SAMPLED_OUTCOMES)
"""Names under which the shares of outcomes are logged."""
SHARES = ("trailing_text", "no_end_token")
"""Names under which the shares of responses are logged in which a call could be read, but text stands behind it, or
there is no end token."""


def response_counts(judged: Sequence[GradedResponse]) -> dict[str, int]:
    """How many responses ended in each outcome, under the names of `GRADES`, and how many `SHARES` speaks of."""
    outcomes = [one.outcome for one in judged]
    readable = [one for one in judged if one.grade.outcome is not Outcome.FORMAT_ERROR]
    return {
        **{f"grade/{outcome}": outcomes.count(outcome) for outcome in SAMPLED_OUTCOMES},
        "trailing_text": sum(pricing.has_trailing_text(one.response) for one in readable),
        "no_end_token": sum(not one.ended for one in readable),
    }


def in_turn(*listeners: OnSamples) -> OnSamples:
    """One listener that calls each of several."""

    def call(step: int, judged: Sequence[GradedResponse]) -> None:
        for listener in listeners:
            listener(step, judged)

    return call


UNREADABLE = 0.9
"""Share of responses that cannot be read from which a first rollout is taken for that of a model without the format."""


class FirstRollout:
    """Looks at the first rollout of a training, and warns in one line where nearly nothing in it can be read."""

    def __init__(self) -> None:
        self.seen = False

    def __call__(self, step: int, judged: Sequence[GradedResponse]) -> None:
        """Look at the responses of step `step` (from 1)."""
        if self.seen or step > 1 or not judged:
            return
        self.seen = True
        unreadable = sum(one.grade.outcome in (Outcome.FORMAT_ERROR, Outcome.WORDS_BEFORE_CALL) for one in judged)
        if unreadable >= UNREADABLE * len(judged):
            log.warning(
                "%d of the %d calls of the first rollout cannot be read: this model does not write the format yet, and "
                "rewards of noise teach it nothing; train it first, with stage=sft or stage=pkt, and begin from there "
                "with model.path=outputs/pkt/latest/model",
                unreadable,
                len(judged),
            )


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """A sampled call beside the golden ones: a line of `samples.jsonl`.

    Attributes:
        step: the optimizer step, from 1. id: the prompt's.
        sampled: what the model wrote. golden: the golden calls, with ` | ` between them.
        grade: the row of the reward table; `cut` where stage.max_new_tokens cut the response before a call could be
            read. reason: why, in words. ended: whether the response has an end token.
    """

    step: int
    id: str = ""
    prompt: str = ""
    sampled: str = ""
    golden: str = ""
    grade: str = ""
    reward: float | None = None
    reason: str = ""
    ended: bool = True

    @classmethod
    def of(cls, step: int, response: GradedResponse) -> SampleRecord:
        """What is written down of a graded response."""
        return cls(
            step=step,
            id=response.sample.id,
            prompt=joined(TL.prompt_segments(response.sample)),
            sampled=response.response,
            golden=" | ".join(render_call(golden) for golden in response.sample.goldens),
            grade=response.row,
            reward=response.reward,
            reason=response.grade.reason,
            ended=response.ended,
        )

    @classmethod
    def from_json(cls, record: Any) -> SampleRecord:
        """Read a line; unknown keys are ignored. Raises FieldError."""
        record = expect(record, dict, "line")
        reward = record.get("reward")
        if isinstance(reward, bool) or not isinstance(reward, int | float | None):
            raise FieldError("reward", "a number", shown(reward))
        texts = {key: optional(record, key, "") for key in ("id", "prompt", "sampled", "golden", "grade", "reason")}
        return cls(step=member(record, "step", int), reward=reward, ended=optional(record, "ended", True), **texts)

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
            # Not `splitlines`: a model may have written characters that Unicode takes for the end of a line.
            lines = self.path.read_text(encoding="utf-8", errors="replace").split("\n")
            earlier = [line for number, line in enumerate(lines, 1) if line and self._step(number, line) <= step]
            runs.write_lines(self.path, earlier)

    def _step(self, number: int, line: str) -> float:
        try:
            record = json_files.parse(line)
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
            masked = (redact.known_in(record.to_json()) for record in records)
            file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in masked)
        rows = [list(record.to_json().values()) for record in records]
        self.table("irm/samples_table", [column.name for column in fields(SampleRecord)], rows, step=step)
