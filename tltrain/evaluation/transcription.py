"""From a conversation to its line of `transcripts.jsonl`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from tltrain.environments.loop import Conversation, JudgedCall
from tltrain.evaluation import conversation_scores
from tltrain.evaluation.transcripts import Transcript, TranscriptCall, TranscriptMessage
from tltrain.trajectory import Call, Message


def transcript(conversation: Conversation) -> Transcript:
    """Convert a conversation to its record in the file."""
    return Transcript(
        id=conversation.task.id,
        meta=_json(dict(conversation.task.meta)),
        instructions=conversation.instructions,
        tools=[replace(tool, parameters=_json(dict(tool.parameters))) for tool in conversation.tools],
        messages=list(map(_message, conversation.messages)),
        calls=[_judged(call) for call in conversation.calls],
        ended=conversation.ended,
        answer=conversation.answer,
        valid=conversation_scores.is_valid(conversation),
        outcome=_json(dict(conversation.outcome)),
    )


def _message(message: Message) -> TranscriptMessage:
    calls = [_call(made.call) for made in message.calls]
    return TranscriptMessage(message.role, message.text, tuple(filter(None, calls)), message.thought)


def _judged(call: JudgedCall) -> TranscriptCall:
    return TranscriptCall(
        message=call.message,
        turn=call.turn,
        text=call.text,
        call=_call(call.call),
        de=call.de,
        ce=call.ce,
        kind=call.outcome.value,
        reason=call.reason,
        ran=call.ran,
        error=call.error,
    )


def _call(call: Call | None) -> dict[str, Any] | None:
    return None if call is None else {"name": call.name, "arguments": dict(call.arguments)}


def _json(value: Any) -> Any:
    """Convert what an environment reports to JSON, other values as text."""
    return json.loads(json.dumps(value, ensure_ascii=False, default=_said, skipkeys=True))


def _said(value: object) -> str:
    try:
        return str(value)[:1000]
    except Exception:  # a class of the environment's own
        return type(value).__name__
