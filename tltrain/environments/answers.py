"""Read a model's answer within a conversation: what enters the history, and which calls are to be run.

In the TL format an answer is text, and one call is read from it (the first of several: the rest was written without
seeing the tool's answer). In a native format it is an `Answer` whose calls are run in order; its words and its thought
stay in the history, and the chat template decides what it keeps of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tltrain.formats.calls import UNREADABLE
from tltrain.formats.chat_completions import api_names, call_id
from tltrain.formats.native import Answer, Attempt, as_text
from tltrain.formats.preamble import without_words
from tltrain.grading import Grade, Outcome, first_call, grade
from tltrain.trajectory import Call, Message, Tool, ToolCall


@dataclass(frozen=True, slots=True)
class ReadCall:
    """One call of an answer, or what the answer has instead of a call.

    Attributes:
        judged: the call, judged only by the documentation. text: what the model said.
        id: the call's id, which the tool's message repeats; empty in the TL format and if no call could be read.
        unread: the error that the tools' side answers if no call could be read.
    """

    judged: Grade
    text: str
    id: str = ""
    unread: str = ""


@dataclass(frozen=True, slots=True)
class ReadAnswer:
    """An answer in the form in which the loop uses it.

    Attributes:
        message: what enters the history. calls: at least one.
        words: the answer as words to the user, if no call can be read from it and it is not empty; else None.
        names: the tools on offer, by the names that the model was given.
    """

    message: Message
    calls: tuple[ReadCall, ...]
    words: Message | None
    names: tuple[str, ...]


def read_text(text: str, tools: Sequence[Tool], ignore_words: bool, most: int) -> ReadAnswer:
    """Read an answer in the TL format.

    Args:
        ignore_words: read the call after a thought, a sentence or a code fence.
        most: maximum number of characters of words that enter the history.
    """
    names = tuple(tool.name for tool in tools)
    judged = grade(first_call(without_words(text, names) if ignore_words else text, tools), None, tools)
    words = Message("assistant", cut(plain(text), most))
    message = words if judged.prediction is None else Message.calling(judged.prediction)
    unread = f"Error: {judged.reason}. Call one of the tools: name(parameter=value, ...)."
    in_words = judged.outcome is Outcome.FORMAT_ERROR and bool(text.strip())
    return ReadAnswer(message, (ReadCall(judged, text, unread=unread),), words if in_words else None, names)


def read_native(answer: Answer, tools: Sequence[Tool], number: int) -> ReadAnswer:
    """Read an answer in a native format. Text that cannot be read as a call enters the history as words.

    Args:
        number: the position of the answer in the conversation's messages, from which the ids of its calls are made.
    """
    calls: list[ReadCall] = []
    made: list[ToolCall] = []
    words = [answer.text]
    for attempt in answer.attempts:
        judged = _judged(attempt, tools)
        if judged.prediction is None:
            raw = attempt.raw or _text(attempt)
            words.append(raw)
            calls.append(_unread(judged, raw))
        else:
            identity = call_id(number, len(made))
            made.append(ToolCall(judged.prediction, id=identity))
            calls.append(ReadCall(judged, _text(attempt), identity))
    if not answer.attempts:
        problem = answer.problem or "the answer makes no call"
        calls = [_unread(grade(f"{UNREADABLE}{problem}", None, tools), answer.text or answer.thought)]
    text = plain("\n".join(filter(None, words)))
    message = Message("assistant", text, tuple(made), plain(answer.thought))
    in_words = not made and bool(text.strip())
    return ReadAnswer(message, tuple(calls), message if in_words else None, tuple(api_names(tools).values()))


def _judged(attempt: Attempt, tools: Sequence[Tool]) -> Grade:
    """Grade a call through its text in the TL format, so that the grade is the same in either format."""
    text = _text(attempt)
    return grade(text if attempt.call is None or text.startswith(UNREADABLE) else attempt.call, None, tools)


def _text(attempt: Attempt) -> str:
    """Return a call as text in the TL format, or the reason why it cannot be written."""
    return as_text(Answer(attempts=(attempt,)))


def _unread(judged: Grade, text: str) -> ReadCall:
    return ReadCall(judged, text, unread=f"Error: {judged.reason}. Call one of the tools.")


def no_such_tool(reason: str, names: Sequence[str]) -> str:
    """Return what the tools' side answers to a call of a tool that is not on offer."""
    return f"Error: {reason}. The tools are: {', '.join(names)}."


def final_answer(call: Call, tools: Sequence[Tool]) -> str:
    """Return the text of a `finish` call: its last argument in documented order, or else its last argument."""
    documented = next((list(tool.properties) for tool in tools if tool.name == call.name), [])
    given = [name for name in documented if name in call.arguments] or list(call.arguments)
    said = call.arguments[given[-1]] if given else None
    return "" if said is None else plain(said if isinstance(said, str) else str(said))


def cut(text: str, limit: int) -> str:
    """Return `text` up to `limit` characters; a line says if it was cut."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\n[cut: the first {limit:,} of {len(text):,} characters]"


_SURROGATE = re.compile("[\ud800-\udfff]")


def plain(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot encode, so that the text can be tokenized and saved."""
    return _SURROGATE.sub("\ufffd", text)
