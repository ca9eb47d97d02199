"""ToolRL's reward of an answer (arXiv 2504.13958): a point for its form, and up to `scale` for how much of it is right.

With G the golden calls, P the answer's, and each golden call matched to at most one of the answer's (`grading`):

    name     tools that both call, over those that either calls
    names    of each pair of the same tool, the parameter names in both calls over those in either (1 if there is none)
    values   of each such pair, the number of golden parameters whose value is right
    match    2 scale (name + sum of names + sum of values) / (1 + |G| + parameters of G) - scale
    reward   format_reward + match if a call can be read, else -scale

The paper's format reward asks for its own tags around thought and calls; here, calls that can be read earn it.
"""

from __future__ import annotations

from collections.abc import Sequence

from tltrain.config import Matching
from tltrain.formats.values import optional
from tltrain.grading import AnswerGrade, Grade, same_value
from tltrain.trajectory import Call, Sample


def reward(
    sample: Sample, grade: Grade | AnswerGrade, matching: Matching, format_reward: float = 1.0, scale: float = 3.0
) -> float:
    """Return the reward of a graded answer, from `-scale` to `format_reward + scale`; 0 without golden calls."""
    if not sample.goldens:
        return 0.0
    if grade.prediction is None:
        return -scale
    several = isinstance(grade, AnswerGrade)
    grades: Sequence[Grade] = grade.grades if isinstance(grade, AnswerGrade) else (grade,)
    asked = sample.asked if several else (sample.goldens,)
    extra = len(grade.superfluous) if isinstance(grade, AnswerGrade) else 0
    pairs = [
        (one.prediction, _nearest(one.prediction, goldens, matching))
        for one, goldens in zip(grades, asked, strict=True)
    ]
    made = sum(call is not None for call, _ in pairs) + extra
    same = [(call, golden) for call, golden in pairs if call is not None and call.name == golden.name]
    right = len(same) / (len(pairs) + made - len(same)) + sum(_arguments(*pair, matching) for pair in same)
    most = 1 + sum(1 + len(_asked(call, golden)) for call, golden in pairs)
    return format_reward + 2 * scale * right / most - scale


def _nearest(call: Call | None, goldens: Sequence[Call], matching: Matching) -> Call:
    """Return the golden call, among several alternatives, of which a call has the greatest share."""

    def share(golden: Call) -> float:
        if call is None or call.name != golden.name:
            return 0.0
        return (1 + _arguments(call, golden, matching)) / (2 + len(_asked(call, golden)))

    return max(goldens, key=share)


def _arguments(call: Call, golden: Call, matching: Matching) -> float:
    """Return the share of right parameter names and the number of right values."""
    asked = _asked(call, golden)
    either = asked | call.arguments.keys()
    names = len(asked & call.arguments.keys()) / len(either) if either else 1.0
    return names + sum(
        name in call.arguments and same_value(call.arguments[name], golden.arguments[name], matching) for name in asked
    )


def _asked(call: Call | None, golden: Call) -> set[str]:
    """Return the golden parameters, without optional ones that the call leaves out."""
    made = {} if call is None else call.arguments
    return {name for name, value in golden.arguments.items() if name in made or not optional(value)}
