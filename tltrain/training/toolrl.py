"""ToolRL's reward of a call (arXiv 2504.13958): a point for its form, and up to `scale` for how much of it is right.

Of the golden calls, which are alternatives here, the one that matches best counts. With G its parameters:

    name    1 where the tool is right, else 0
    names   of a right tool, the parameter names that both calls have, over those that either has (1 where none has any)
    values  of a right tool, the number of golden parameters whose value is right
    match   = 2 scale (name + names + values) / (2 + |G|) - scale          from -scale to scale
    reward  = format_reward + match where a call can be read, else -scale

That is the paper's formula for one golden and one predicted call. The paper's format reward asks for its own tags
around thought and calls; here, a call that can be read alone earns it.
"""

from __future__ import annotations

from tltrain.config import Matching
from tltrain.formats.values import optional
from tltrain.grading import Grade, same_value
from tltrain.trajectory import Call, Sample


def reward(sample: Sample, grade: Grade, matching: Matching, format_reward: float = 1.0, scale: float = 3.0) -> float:
    """Return the reward of a graded response, from `-scale` to `format_reward + scale`."""
    if grade.prediction is None:
        return -scale
    best = max(share(grade.prediction, golden, matching) for golden in sample.goldens)
    return format_reward + 2 * scale * best - scale


def share(call: Call, golden: Call, matching: Matching) -> float:
    """Return how much of the golden call is right in a call, from 0 to 1."""
    if call.name != golden.name:
        return 0.0
    asked = {name for name, value in golden.arguments.items() if name in call.arguments or not optional(value)}
    either = asked | call.arguments.keys()
    names = len(asked & call.arguments.keys()) / len(either) if either else 1.0
    values = sum(
        name in call.arguments and same_value(call.arguments[name], golden.arguments[name], matching) for name in asked
    )
    return (1 + names + values) / (2 + len(asked))
