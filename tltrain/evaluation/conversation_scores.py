"""Compute the paper's multi-turn metrics of conversations: DE, CE, VA, and success if the environment can tell.

- DE, documentation errors: % of calls that contradict the tools' documentation (unparseable, unknown tool, unknown
  parameter, or a required one missing).
- CE, calling errors: % of calls that a tool answered with an error, according to the environment if it knows
  (toolworld), otherwise by a rule of `formats.tool_errors`.
- VA, valid answers: % of conversations that end in `finish` within the limit, with an answer that is neither empty nor
  a refusal.
- success: % of conversations whose outcome the environment's checker accepts.

Every answer of a model counts as a call here, including `finish` and unreadable answers; DE and CE are percentages of
all of them. A call that never reached a tool (unparseable, unknown tool) counts for DE but not for CE; one that reached
its tool with wrong parameters and was answered with an error counts for both.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence

from tltrain.environments.loop import Conversation
from tltrain.evaluation.intervals import Percentage, cluster_percentage, percentage
from tltrain.grades import Outcome

_CANNOT = r"(?:can ?not|can'?t|could ?not|couldn'?t|(?:am|are|was|were|'m|'re) (?:\w+ly )?(?:not able|unable) to)"
REFUSALS = (
    # "I cannot handle the task", with which ToolEyes tells a model to give up, and similar words. Not being able to
    # find or know something ("I could not find a train") may be the answer, so it is not a refusal.
    rf"(?:i|we) ?{_CANNOT} (?:\w+ly )?(?:handle|complete|finish|perform|do|solve|fulfil+|process|answer|help|assist|"
    r"proceed|continue|execute)\b",
    # The same about the task: "This request cannot be completed".
    rf"(?:the|this|that|your) (?:task|request|query|question) {_CANNOT} be \w+ed\b",
)
"""Beginnings of answers that give up, ignoring case and a preceding apology."""

_SORRY = r"(?:(?:i|we)(?: am| are|'m|'re) )?(?:very |so )?(?:sorry|afraid|unfortunately|(?:my )?apologies)[,;:.! ]*"
_REFUSAL = re.compile(f"(?:{_SORRY})?(?:but |that )?(?:{'|'.join(REFUSALS)})", re.IGNORECASE)
_NOTHING = re.compile(r"\W*+(?:none|null|n/?a|nan|undefined)?\W*+", re.IGNORECASE)


def is_valid(conversation: Conversation) -> bool:
    """Return whether a conversation ends in a valid answer (VA)."""
    answer = conversation.answer
    return conversation.ended == "finish" and answer is not None and not is_empty(answer) and not is_refusal(answer)


def is_empty(answer: str) -> bool:
    """Return whether an answer has no word and no number, or only a word for nothing (`None`, `null`, `n/a`)."""
    return _NOTHING.fullmatch(answer) is not None


def is_refusal(answer: str) -> bool:
    """Return whether an answer gives up, see `REFUSALS`."""
    return _REFUSAL.match(" ".join(answer.replace("’", "'").split())) is not None


def success(conversation: Conversation) -> bool | None:
    """Return the verdict of the environment's checker; None if it cannot tell."""
    accepted = conversation.outcome.get("success")
    return accepted if isinstance(accepted, bool) else None


def score(conversations: Sequence[Conversation], seed: int = 0) -> dict[str, Percentage]:
    """Return `{"de": Percentage, "ce": ..., "va": ..., "success": ...}`, in percent with 95 % bootstrap intervals.

    DE and CE are shares of calls. The calls of a conversation are correlated, so whole conversations are resampled.
    `success` is present only if the environment can tell for some conversation; one for which it cannot (the
    environment failed) then counts as failed.
    """
    calls = [len(conversation.calls) for conversation in conversations]
    de = [sum(call.de for call in conversation.calls) for conversation in conversations]
    ce = [sum(call.ce for call in conversation.calls) for conversation in conversations]
    accepted = [success(conversation) for conversation in conversations]
    scores = {
        "de": cluster_percentage(de, calls, seed),
        "ce": cluster_percentage(ce, calls, seed),
        "va": percentage(map(is_valid, conversations), seed),
    }
    if any(answer is not None for answer in accepted):
        scores["success"] = percentage((answer is True for answer in accepted), seed)
    return scores


def score_by(conversations: Iterable[Conversation], key: str, seed: int = 0) -> dict[Hashable, dict[str, Percentage]]:
    """Return `score` for each value of `task.meta[key]`, in order of appearance; a missing key counts as None."""
    groups: dict[Hashable, list[Conversation]] = {}
    for one in conversations:
        groups.setdefault(one.task.meta.get(key), []).append(one)
    return {value: score(members, seed) for value, members in groups.items()}


def count_ends(conversations: Iterable[Conversation]) -> dict[str, int]:
    """Count how many conversations ended in each way."""
    counts = dict.fromkeys(("finish", "turn limit", "too long", "environment error"), 0)
    for one in conversations:
        counts[one.ended] += 1
    return counts


def count_contradictions(conversations: Iterable[Conversation]) -> dict[str, int]:
    """Count the calls that contradict the documentation, by their first contradiction."""
    contradicting = (Outcome.FORMAT_ERROR, Outcome.WORDS_BEFORE_CALL, Outcome.TOOL_HALLUCINATION, Outcome.PARAMETERS)
    counts = {outcome.value: 0 for outcome in contradicting}
    for one in conversations:
        for call in one.calls:
            if call.de:
                counts[call.outcome.value] += 1
    return counts


def count_errors(conversations: Iterable[Conversation]) -> dict[str, int]:
    """Count the calls that were answered with an error, by its kind, the most common first."""
    counts: dict[str, int] = {}
    for one in conversations:
        for call in one.calls:
            if call.error is not None:
                counts[call.error] = counts.get(call.error, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))
