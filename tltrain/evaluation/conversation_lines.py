"""Conversations as lines of predictions, so that rows of a sweep are compared conversation by conversation.

VA and success are true or false of a conversation. DE and CE are shares of calls, R = sum(e) / sum(c) for e_i errors in
c_i calls; a conversation stands in them with R + (e_i - R c_i) / mean(c), whose mean is R and whose bootstrap has the
ratio's variance to first order (W. G. Cochran, "Sampling Techniques", section 2.11).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def lines(records: Sequence[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    """Lines of `transcripts.jsonl` (`tltrain.stages.conversations`) as those of `predictions.jsonl`, of the set `name`.

    VA and success are bools; DE and CE numbers whose mean over the lines is the share of calls, 0 to 1.
    """
    rates = {
        level: linearized([_errors(one, level) for one in records], [_calls(one) for one in records])
        for level in ("de", "ce")
    }
    judged = any(isinstance(one["outcome"].get("success"), bool) for one in records)
    return [
        {
            "set": name,
            "id": str(one["id"]),
            "goldens": [],
            "prediction": one["answer"] or "",
            "grade": f"ended by {one['ended']}",
            "reason": "",
            "va": one["valid"],
            "de": rates["de"][i],
            "ce": rates["ce"][i],
            "meta": {"query": next((said["content"] for said in one["messages"] if said["role"] == "user"), "")},
        }
        | ({"success": one["outcome"].get("success") is True} if judged else {})
        for i, one in enumerate(records)
    ]


def linearized(errors: Sequence[int], calls: Sequence[int]) -> list[float]:
    """A number for each conversation, their mean being sum(errors) / sum(calls); 0 where there are no calls."""
    total = sum(calls)
    if not total:
        return [0.0] * len(calls)
    rate, mean = sum(errors) / total, total / len(calls)
    return [rate + (e - rate * c) / mean for e, c in zip(errors, calls, strict=True)]


def _errors(record: Mapping[str, Any], level: str) -> int:
    return sum(bool(call[level]) for call in record["calls"])


def _calls(record: Mapping[str, Any]) -> int:
    return len(record["calls"])
