"""Grade and reward sampled calls, and log them; shared by all algorithms of stage=irm."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tltrain.config import Matching
from tltrain.data.reading import expect, member, optional, shown
from tltrain.errors import FieldError, RecordError
from tltrain.formats import joined
from tltrain.formats.calls import has_trailing_text, render_call
from tltrain.formats.tl import TL
from tltrain.grading import CUT, SAMPLED_OUTCOMES, AnswerGrade, Grade, Outcome, abstention, grade, grade_answer
from tltrain.runtime import distributed, json_files, redact, runs
from tltrain.training import pricing
from tltrain.training.kl import KlControl
from tltrain.trajectory import Sample

if TYPE_CHECKING:
    from tltrain.tokens.encoder import Encoder

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GradedResponse:
    """A sampled response with its grade and reward.

    Attributes:
        response: the text that is graded, in the TL format.
        ended: whether it has an end token; if not, `stage.max_new_tokens` cut it off.
        prompt, written: the prompt and what the model wrote in a format of its own, special tokens by their names; None
            in the TL format.
    """

    sample: Sample
    response: str
    grade: Grade | AnswerGrade
    reward: float
    ended: bool = True
    prompt: str | None = None
    written: str | None = None

    @property
    def row(self) -> str:
        """The row of the reward table; `cut` if the response was cut off before a call could be read."""
        return pricing.row_of(self.grade, self.ended)

    @property
    def outcome(self) -> str:
        """The grade's outcome, or `cut`."""
        return CUT if pricing.is_cut(self.grade, self.ended) else self.grade.outcome.value

    @property
    def is_correct(self) -> bool:
        """Whether every golden call is made and no other; if no call is right, whether none is made."""
        superfluous = self.grade.superfluous if isinstance(self.grade, AnswerGrade) else ()
        return self.outcome in (Outcome.CORRECT, Outcome.ABSTAINED) and not superfluous

    @property
    def has_trailing_text(self) -> bool:
        """Whether text follows the call; in a native format this is not a mistake and does not count."""
        return self.written is None and has_trailing_text(self.response)


class Judge(Protocol):
    """A function that grades and rewards a response to a sample; `ended` says whether it has an end token."""

    def __call__(self, sample: Sample, response: str, ended: bool = True) -> GradedResponse: ...


class RewardFunction:
    """Grade responses against the golden call and price them (the paper, IRM).

    Args:
        price: the reward of a graded response.
        values: how argument values are compared.
        several_calls: whether a response may make several calls, as answers in native formats may. All are then graded
            (`grading.grade_answer`): a table's reward is the mean over the golden calls. If not, only the first
            counts.
    """

    def __init__(
        self, price: pricing.Price, values: Matching | str = Matching.strict, several_calls: bool = False
    ) -> None:
        self.price, self.values, self.several_calls = price, values, several_calls

    def __call__(self, sample: Sample, response: str, ended: bool = True) -> GradedResponse:
        """Grade and price a response: text of the TL format, in a native format as `Encoder.answer` returns it."""
        found: Grade | AnswerGrade
        if sample.abstain:
            found = abstention(sample, response)
        elif self.several_calls:
            found = grade_answer(response, sample.asked, sample.tools, self.values)
        else:
            found = grade(response, sample.goldens, sample.tools, self.values)
        reward = self.price(sample, response, found, ended)
        return GradedResponse(sample, response, found, reward, ended)


def graded(
    judge: Judge, encoder: Encoder, sample: Sample, prompt: Sequence[int], tokens: Sequence[int], ended: bool
) -> GradedResponse:
    """Read what a model generated after a prompt, and grade it."""
    found = judge(sample, encoder.answer(tokens, prompt, sample.tools), ended)
    if not encoder.reads_tokens:
        return found
    return replace(found, prompt=encoder.text(prompt), written=encoder.text(tokens))


OnSamples = Callable[[int, Sequence[GradedResponse]], None]
"""A callback that takes the number of a step, from 1, and its graded responses (on rank 0)."""


@dataclass(frozen=True)
class RewardSignal:
    """The training signal, shared by all algorithms.

    Attributes:
        judge: grades and rewards a response to a sample; in rollouts of conversations, prices a conversation.
        kl: penalty for divergence from the reference policy.
        on_samples: callback that receives the graded responses.
    """

    judge: Callable[..., Any]
    kl: KlControl
    on_samples: Callable[[int, Sequence[Any]], None] = lambda step, judged: None


GRADES = tuple(f"grade/{outcome}" for outcome in SAMPLED_OUTCOMES)
"""Names under which the shares of outcomes are logged."""
SHARES = ("trailing_text", "no_end_token")
"""Names under which the shares of responses are logged that have a readable call and text after it, or no end
token."""


def response_counts(judged: Sequence[GradedResponse]) -> dict[str, int]:
    """Count the responses of each outcome and of each kind in `SHARES`, under their logged names."""
    outcomes = [one.outcome for one in judged]
    readable = [one for one in judged if one.grade.outcome is not Outcome.FORMAT_ERROR]
    return {
        **{f"grade/{outcome}": outcomes.count(outcome) for outcome in SAMPLED_OUTCOMES},
        "trailing_text": sum(one.has_trailing_text for one in readable),
        "no_end_token": sum(not one.ended for one in readable),
    }


def call_each(*listeners: Callable[[int, Sequence[Any]], None]) -> OnSamples:
    """Return a callback that calls each of several callbacks in turn."""

    def call(step: int, judged: Sequence[GradedResponse]) -> None:
        for listener in listeners:
            listener(step, judged)

    return call


UNREADABLE = 0.9
"""Share of unreadable responses in the first rollout at which the model is assumed not to know the format."""


class FirstRollout:
    """Warn if almost no response of the first rollout can be read."""

    def __init__(self) -> None:
        self.seen = False

    def __call__(self, step: int, judged: Sequence[GradedResponse]) -> None:
        """Check the responses of step `step` (from 1); only the first step counts."""
        if self.seen or step > 1 or not judged:
            return
        self.seen = True
        unreadable = sum(one.grade.outcome in (Outcome.FORMAT_ERROR, Outcome.WORDS_BEFORE_CALL) for one in judged)
        if unreadable >= UNREADABLE * len(judged):
            log.warning(
                "%d of the %d calls of the first rollout cannot be read: the model does not know the format yet and "
                "cannot learn it from these rewards; train it with stage=sft or stage=pkt first, and start from there "
                "with model.path=outputs/pkt/latest/model",
                unreadable,
                len(judged),
            )


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """A sampled call with its golden calls: a line of `samples.jsonl`.

    Attributes:
        step: optimizer step, from 1.
        id: id of the prompt.
        sampled: the model's response, in its own format with special tokens by their names.
        golden: the golden calls, separated by ` | ` if any of them is accepted, by ` + ` if all are asked for; those of
            a whole conversation one a line.
        grade: row of the reward table; `cut` if stage.max_new_tokens cut the response off before a call could be read.
        reason: explanation of the grade.
        ended: whether the response has an end token.
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
    def from_response(cls, step: int, response: GradedResponse) -> SampleRecord:
        """Create the record of a graded response."""
        return cls(
            step=step,
            id=response.sample.id,
            prompt=joined(TL.prompt_segments(response.sample)) if response.prompt is None else response.prompt,
            sampled=response.response if response.written is None else response.written,
            golden=(" + " if response.sample.parallel else " | ").join(map(render_call, response.sample.goldens)),
            grade=response.row,
            reward=response.reward,
            reason=response.grade.reason,
            ended=response.ended,
        )

    @classmethod
    def from_json(cls, record: Any) -> SampleRecord:
        """Read a line, ignoring unknown keys. Raise FieldError if a field is missing or invalid."""
        record = expect(record, dict, "line")
        reward = record.get("reward")
        if isinstance(reward, bool) or not isinstance(reward, int | float | None):
            raise FieldError("reward", "a number", shown(reward))
        texts = {key: optional(record, key, "") for key in ("id", "prompt", "sampled", "golden", "grade", "reason")}
        return cls(step=member(record, "step", int), reward=reward, ended=optional(record, "ended", True), **texts)

    def to_json(self) -> dict[str, Any]:
        """Return the record as a JSON object."""
        return {column.name: getattr(self, column.name) for column in fields(self)}


class SampleLog:
    """Log some sampled calls with their golden calls every `every` steps, to `samples.jsonl` and to a tracker.

    Args:
        every: number of steps between two entries, counted from the first step.
        count: number of samples per entry.
        table: function of the tracker, called with a table's name, columns, rows and step.
    """

    def __init__(
        self, path: Path, every: int, count: int, table: Callable[..., None] = lambda *args, **kwargs: None
    ) -> None:
        self.path, self.every, self.count, self.table = path, every, count, table

    def forget_after(self, step: int) -> None:
        """Remove the samples of steps after `step`, which are run again after resuming."""
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
        """Log some of the samples of step `step` (from 1), if an entry is due."""
        if self.is_due(step):
            self.write(step, [SampleRecord.from_response(step, response) for response in judged[: self.count]])

    def is_due(self, step: int) -> bool:
        """Return whether step `step` (from 1) has an entry."""
        return (step - 1) % self.every == 0

    def write(self, step: int, records: Sequence[SampleRecord]) -> None:
        """Write the entry of a step."""
        with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            masked = (redact.known_in(record.to_json()) for record in records)
            file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in masked)
        rows = [list(record.to_json().values()) for record in records]
        self.table("irm/samples_table", [column.name for column in fields(SampleRecord)], rows, step=step)
