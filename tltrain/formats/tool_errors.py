"""Decide whether a tool's answer is an error, and of which kind.

A `Rule` is data in `conf/mae/`: `paper` is the released rule of TL-Training (arXiv 2412.15495), `strict` is ours. An
answer is untrusted text: it is matched and parsed but never evaluated, no text makes any function here raise, and the
cost is linear in its length.
"""

from __future__ import annotations

from functools import lru_cache

from tltrain.formats.error_rule import FLAGGED, Pattern, Rule, normalize
from tltrain.formats.error_structure import answer_kind

__all__ = ["FLAGGED", "Pattern", "Rule", "error_kind"]


def error_kind(answer: str, rule: Rule, is_error: bool | None = None) -> str | None:
    """Return the kind of error that a tool's answer is under `rule`; None if it is not an error.

    `is_error` is what the data itself says about the answer; None if it says nothing. A rule that reads structure
    trusts it; the released rule, kept as released, reads only the text.
    """
    if rule.function is not None:
        return rule.function(answer, is_error)
    if rule.match == "normalized_substring":
        return _substring_kind(answer, rule)
    if is_error is False:
        return None
    kind = _structure_kind(answer, rule)
    return kind or FLAGGED if is_error else kind


@lru_cache(maxsize=64)  # a trajectory's answers are judged three times: for verdicts, flags and a comparison
def _structure_kind(answer: str, rule: Rule) -> str | None:
    return answer_kind(answer, rule)


def _substring_kind(answer: str, rule: Rule) -> str | None:
    normalized = normalize(answer)
    return next((pattern.kind for pattern in rule.patterns if pattern.text in normalized), None)
