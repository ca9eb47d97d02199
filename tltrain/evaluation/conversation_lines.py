"""Conversations as predictions, so that the rows of a sweep can be compared conversation by conversation.

VA and success are true or false for a conversation. DE and CE are shares of calls, R = sum(e) / sum(c) for e_i errors
in c_i calls. Conversation i contributes R + (e_i - R c_i) / mean(c): the mean of these is R, and their bootstrap has
the ratio's variance to first order (W. G. Cochran, "Sampling Techniques", section 2.11).
"""

from __future__ import annotations

from collections.abc import Sequence

from tltrain.evaluation.predictions import Prediction
from tltrain.evaluation.records import scalars
from tltrain.evaluation.transcripts import Transcript


def predictions(transcripts: Sequence[Transcript], name: str) -> list[Prediction]:
    """Return the conversations of the set `name`, each as one prediction.

    VA and success are true or false; DE and CE are numbers whose mean over conversations is the share of calls, 0 to 1.
    """
    calls = [len(transcript.calls) for transcript in transcripts]
    documentation_errors = linearized([sum(call.de for call in one.calls) for one in transcripts], calls)
    call_errors = linearized([sum(call.ce for call in one.calls) for one in transcripts], calls)
    checked = any(transcript.success is not None for transcript in transcripts)
    return [
        Prediction(
            set=name,
            id=transcript.id,
            answer=transcript.answer or "",
            grade=f"ended by {transcript.ended}",
            scores={"de": de, "ce": ce, "va": transcript.valid}
            | ({"success": transcript.success is True} if checked else {}),
            meta={**scalars(transcript.meta), "query": transcript.query},
        )
        for transcript, de, ce in zip(transcripts, documentation_errors, call_errors, strict=True)
    ]


def linearized(errors: Sequence[int], calls: Sequence[int]) -> list[float]:
    """Return a number for each conversation; their mean is sum(errors) / sum(calls), or 0 without calls."""
    total = sum(calls)
    if not total:
        return [0.0] * len(calls)
    rate, mean = sum(errors) / total, total / len(calls)
    return [rate + (e - rate * c) / mean for e, c in zip(errors, calls, strict=True)]
