"""Grades: where a call first goes wrong, and what follows from it: reward, TS, PI, CF, DE.

`Grade` is that of one call, `AnswerGrade` that of an answer of any number of calls; `tltrain.grading` gives them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from itertools import chain

from tltrain.config.rewards import PAPER_REWARD, PAPER_SETTINGS, RewardSettings, RewardTable
from tltrain.formats.reasons import quoted, shortened
from tltrain.trajectory import Call


class Outcome(StrEnum):
    """Where a call first goes wrong, from worst to best; `MISSING_CALL`: an answer of several calls lacks this one.

    The last two belong to questions to which no call is right.
    """

    FORMAT_ERROR = "format_error"
    WORDS_BEFORE_CALL = "words_before_call"
    MISSING_CALL = "missing_call"
    TOOL_HALLUCINATION = "tool_hallucination"
    WRONG_TOOL = "wrong_tool"
    PARAMETERS = "parameters"
    WRONG_VALUE = "wrong_value"
    CORRECT = "correct"
    CALLED_ANYWAY = "called_anyway"
    ABSTAINED = "abstained"


ABSTENTION = (Outcome.CALLED_ANYWAY, Outcome.ABSTAINED)
"""The outcomes of questions to which no call is right."""
CALL_OUTCOMES = tuple(outcome for outcome in Outcome if outcome not in ABSTENTION)
"""The outcomes of questions that ask for a call, from worst to best."""
CUT = "cut"
"""The outcome of a sampled response that reached the length limit before a call could be read."""
SAMPLED_OUTCOMES = (CUT, *(outcome.value for outcome in Outcome))
"""The outcomes of sampled responses (IRM), from worst to best, followed by those of `ABSTENTION`."""

# (any hallucinated, any redundant, any missing) -> the row of the reward table
_PARAMETER_ROWS = {
    (True, True, True): "hallucinated_redundant_missing",
    (True, True, False): "hallucinated_and_redundant_or_missing",
    (True, False, True): "hallucinated_and_redundant_or_missing",
    (False, True, True): "redundant_missing",
    (True, False, False): "hallucinated",
    (False, True, False): "redundant_or_missing",
    (False, False, True): "redundant_or_missing",
}


_RANKS = {row.name: rank for rank, row in enumerate(fields(RewardTable))}


@dataclass(frozen=True, slots=True)
class Grade:
    """How good a call is, and why.

    Attributes:
        golden: the accepted call that the prediction was compared with.
        hallucinated, redundant, missing: names of parameters, if the tool is right.
        wrong_values: names of parameters, if the tool and the names are right.
        contradictions: phrases that say where the call contradicts the tools' documentation, whatever the golden call.
        positional: number of values given without a name while no parameter is missing; they count as hallucinated.
    """

    outcome: Outcome
    reason: str
    prediction: Call | None = None
    golden: Call | None = None
    hallucinated: tuple[str, ...] = ()
    redundant: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    wrong_values: tuple[str, ...] = ()
    contradictions: tuple[str, ...] = ()
    positional: int = 0

    @property
    def row(self) -> str:
        """The row of the reward table: a field of `RewardTable`."""
        if self.outcome is Outcome.PARAMETERS:
            hallucinated = bool(self.hallucinated or self.positional)
            return _PARAMETER_ROWS[hallucinated, bool(self.redundant), bool(self.missing)]
        return self.outcome.value

    @property
    def rank(self) -> int:
        """The place of the row in the reward table, from worst to best."""
        return _RANKS[self.row]

    def reward(self, table: RewardTable = PAPER_REWARD) -> float:
        """The reward of IRM."""
        return table[self.row]

    @property
    def ts(self) -> bool:
        """Tool selection: the tool of an accepted call."""
        return self.outcome in (Outcome.PARAMETERS, Outcome.WRONG_VALUE, Outcome.CORRECT)

    @property
    def pi(self) -> bool:
        """Parameter identification: TS, and the parameter names of an accepted call."""
        return self.outcome in (Outcome.WRONG_VALUE, Outcome.CORRECT)

    @property
    def cf(self) -> bool:
        """Content filling: PI, and every value right."""
        return self.outcome is Outcome.CORRECT

    @property
    def de(self) -> bool:
        """Documentation error: an unreadable call, an unknown tool or parameter, a missing required parameter, or
        values without a name although no required parameter is missing."""
        return bool(self.contradictions)


@dataclass(frozen=True, slots=True)
class AnswerGrade:
    """How good an answer of any number of calls is, and why; with one golden call and one call, the same as `Grade`.

    Attributes:
        grades: for each golden call, in order, the grade of the call matched to it, or `MISSING_CALL`. Without golden
            calls: the grade of each call by the documentation.
        superfluous: the grades of the answer's other calls, by the documentation.
        compared: whether there are golden calls.
    """

    grades: tuple[Grade, ...]
    superfluous: tuple[Grade, ...] = ()
    compared: bool = True

    @property
    def worst(self) -> Grade:
        """The worst of `grades` by row, the first if several are equal; the whole answer counts as this one."""
        return min(self.grades, key=lambda one: one.rank)

    @property
    def outcome(self) -> Outcome:
        """The outcome of the worst grade."""
        return self.worst.outcome

    @property
    def row(self) -> str:
        """The reward-table row of the worst grade."""
        return self.worst.row

    @property
    def reason(self) -> str:
        """What is wrong with each call, in one line."""
        if len(self.grades) == 1 and not self.superfluous:
            return self.grades[0].reason
        wrong = [one for one in self.grades if not one.cf]
        what = "golden calls are made" if self.compared else "calls agree with the documentation"
        right = f"{len(self.grades) - len(wrong)} of {len(self.grades)} {what}"
        extra = [one.reason if one.prediction is None else _not_asked(one.prediction) for one in self.superfluous]
        return shortened("; ".join([right, *(one.reason for one in wrong), *extra]), 500)

    @property
    def prediction(self) -> Call | None:
        """The call matched to the first golden call that has a match."""
        return next((one.prediction for one in self.grades if one.prediction is not None), None)

    @property
    def ts(self) -> bool | float:
        """Tool selection: the share of golden calls whose tool is called; a bool if there is one golden call."""
        return self._share("ts")

    @property
    def pi(self) -> bool | float:
        """Parameter identification: the share of golden calls whose match has `Grade.pi`."""
        return self._share("pi")

    @property
    def cf(self) -> bool | float:
        """Content filling: the share of golden calls whose match has `Grade.cf`."""
        return self._share("cf")

    @property
    def contradictions(self) -> tuple[str, ...]:
        """Where any call contradicts the documentation."""
        return tuple(chain.from_iterable(one.contradictions for one in self.of_calls))

    @property
    def de(self) -> bool:
        """Documentation error: any call contradicts the documentation."""
        return bool(self.contradictions)

    @property
    def of_calls(self) -> tuple[Grade, ...]:
        """The grade of each call that the answer makes or tries to make; an answer without one counts as one."""
        made = (one for one in (*self.grades, *self.superfluous) if one.outcome is not Outcome.MISSING_CALL)
        return tuple(made)

    def reward(self, settings: RewardSettings = PAPER_SETTINGS) -> float:
        """The mean reward over the golden calls; each superfluous call adds `superfluous_price` to the sum."""
        return self.mean([one.reward(settings) for one in self.grades], settings)

    def mean(self, rewards: Sequence[float], settings: RewardSettings) -> float:
        """The same mean over other `rewards`, one for each of `grades`."""
        return (sum(rewards) + settings.superfluous_price * len(self.superfluous)) / len(self.grades)

    def _share(self, metric: str) -> bool | float:
        levels = [bool(getattr(one, metric)) for one in self.grades]
        return levels[0] if len(levels) == 1 else sum(levels) / len(levels)


def _not_asked(call: Call) -> str:
    return f"{quoted([call.name])} is called beyond the golden calls"
