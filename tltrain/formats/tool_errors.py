"""Whether a tool's answer is an error, and of which kind.

A `Rule` is data in `conf/mae/`: `paper` is the released rule of TL-Training (arXiv 2412.15495), `strict` ours. An
answer is text from a stranger: it is matched and parsed, never evaluated, no text makes any function here raise, and
the cost is linear in its length.
"""

from __future__ import annotations

from functools import lru_cache

from tltrain.formats.error_rule import FLAGGED, Pattern, Rule, normalize
from tltrain.formats.error_structure import answer_kind

__all__ = ["FLAGGED", "Pattern", "Rule", "error_kind"]


def error_kind(answer: str, rule: Rule, is_error: bool | None = None) -> str | None:
    """The kind of error that a tool's answer is under `rule`, None if it is none.

    `is_error` is what the data itself says of the answer, None where it says nothing. A rule that reads structure takes
    its word; the released rule knows texts alone, and stays as it was released.
    """
    if rule.function is not None:
        return rule.function(answer, is_error)
    if rule.match == "normalized_substring":
        return _substring_kind(answer, rule)
    if is_error is False:
        return None
    kind = _structure_kind(answer, rule)
    return kind or FLAGGED if is_error else kind


@lru_cache(maxsize=64)  # the answers of a trajectory, which are judged for its verdicts, its flags and a comparison
def _structure_kind(answer: str, rule: Rule) -> str | None:
    return answer_kind(answer, rule)


def _substring_kind(answer: str, rule: Rule) -> str | None:
    normalized = normalize(answer)
    return next((pattern.kind for pattern in rule.patterns if pattern.text in normalized), None)
