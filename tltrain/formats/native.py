"""A model's own tool format: conversations as messages for its chat template, and its answers as TL-format text.

Evaluation, grading and files compare TL-format text, whichever source answers (`tltrain.sources`). An answer in a
native format is read into thought, text and calls (`Answer`), and its calls are then written in the TL format. A call
that a model tried to write but that cannot be read is a format error that states the reason.

Tools are offered by names that an API allows (`chat_completions.api_names`), as a server would offer them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tltrain.formats.calls import UNREADABLE, CallSyntaxError, read_call, render_call, split_calls
from tltrain.formats.chat_completions import (
    answers_of,
    api_names,
    call_id,
    call_text,
    calls_of,
    tool_json,
    unparsed_call,
)
from tltrain.formats.preamble import words_before_call
from tltrain.trajectory import Call, Message, Sample, Tool, Trajectory


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call that an answer makes or tries to make.

    Attributes:
        call: the call; None if it could not be read.
        problem: why it could not be read.
        raw: what the model wrote instead.
    """

    call: Call | None
    problem: str = ""
    raw: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answer, read from its own format.

    Attributes:
        thought, text: as in `Message`.
        attempts: its calls in order.
        problem: why an answer without calls is invalid: a thought that does not end, a call in another format.
    """

    thought: str = ""
    text: str = ""
    attempts: tuple[Attempt, ...] = ()
    problem: str = ""

    @property
    def calls(self) -> tuple[Call, ...]:
        """The calls that could be read."""
        return tuple(attempt.call for attempt in self.attempts if attempt.call is not None)

    @property
    def problems(self) -> tuple[str, ...]:
        """Why the other calls could not be read."""
        return tuple(filter(None, [*(attempt.problem for attempt in self.attempts), self.problem]))

    def to_json(self) -> dict[str, Any]:
        """Return the answer as plain values without the empty parts."""
        calls = [
            {"problem": attempt.problem, "raw": attempt.raw}
            if attempt.call is None
            else {"name": attempt.call.name, "arguments": dict(attempt.call.arguments)}
            for attempt in self.attempts
        ]
        parts = {"thought": self.thought, "text": self.text, "calls": calls, "problem": self.problem}
        return {name: value for name, value in parts.items() if value}


def as_text(answer: Answer) -> str:
    """Return the answer as TL-format text: its calls, one per line, or its words if it has none.

    `calls.split_calls` reads as many calls from the text as the answer has attempts.
    """
    if answer.attempts:
        return "\n".join(_attempt_text(attempt) for attempt in answer.attempts)
    return _unreadable(answer.problem) if answer.problem else answer.text.strip()


_FIRST = Call("f")


def _attempt_text(attempt: Attempt) -> str:
    if attempt.call is None:
        return _unreadable(attempt.problem)
    try:
        text = render_call(attempt.call)
        after_another = split_calls(f"{render_call(_FIRST)}\n{text}")
        if split_calls(text) == [attempt.call] and after_another == [_FIRST, attempt.call]:
            return text
    except (CallSyntaxError, TypeError, ValueError, RecursionError):
        pass
    return _unreadable(f"no call of the TL format can say this: {json.dumps(attempt.call.name)[:80]}")


def _unreadable(problem: str) -> str:
    """Return the line that replaces an unreadable call."""
    return UNREADABLE + " ".join(problem.split())


def attempt_of(entry: Any, tools: Sequence[Tool], raw: str = "") -> Attempt:
    """Return an entry of a parser's `tool_calls` as an attempt, with the tool's own name."""
    function = entry.get("function", entry) if isinstance(entry, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(name, str) or not name.strip():
        return Attempt(None, "the call names no tool", raw or _shown(entry))
    arguments = function.get("arguments")
    if arguments is not None and not isinstance(arguments, Mapping):
        return Attempt(None, f"the arguments of {_shown(name)} are no object", raw or _shown(entry))
    try:
        json.dumps(arguments, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError):
        return Attempt(None, f"the arguments of {_shown(name)} are no JSON (NaN, infinity, half a character)", raw)
    originals = {api: original for original, api in api_names(tools).items()}
    return Attempt(Call(originals.get(name, name), dict(arguments or {})))


THOUGHTS = ("reasoning_content", "reasoning", "thinking")
"""Fields in which an assistant's message may carry its thought."""


def answer_of_message(message: Any, tools: Sequence[Tool]) -> Answer:
    """A server's message as an answer: its thought, its words, and each of its `tool_calls`, also what is no call."""
    originals = {api: name for name, api in api_names(tools).items()}
    said = next((message[name] for name in THOUGHTS if isinstance(message.get(name), str) and message[name]), "")
    attempts = []
    for entry in calls_of(message):
        text = call_text(entry, originals)
        unreadable = text.startswith(UNREADABLE)
        attempts.append(
            Attempt(None, text.removeprefix(UNREADABLE), _whole(entry)) if unreadable else Attempt(read_call(text))
        )
    content = message.get("content")
    return Answer(said.strip(), content.strip() if isinstance(content, str) else "", tuple(attempts))


UNREAD = "a call stands in the text, which is not how this format writes one"


def unread_mark(text: str, tools: Sequence[Tool]) -> bool:
    """Return whether words contain call markup, of this format or another, or a tool's name in JSON."""
    if unparsed_call({"content": text}, tools):
        return True
    if not tools or not (named := _NAMED.findall(text)):
        return False
    return not {name for pair in api_names(tools).items() for name in pair}.isdisjoint(named)


_NAMED = re.compile(r"""["'](?:name|function)["']\s*:\s*["']([^"']{1,200})["']""")


def unread(text: str, tools: Sequence[Tool]) -> str:
    """Return why an answer without a parsed call is a format error: it has a call in another format; else empty."""
    if unread_mark(text, tools):
        return UNREAD
    try:
        names = {name for pair in api_names(tools).items() for name in pair}
        begins = any(text.lstrip().startswith(f"{name}(") for name in names)
        if begins or words_before_call(text, names):
            return "a call of the TL format stands in the text, which is not how this format writes one"
    except CallSyntaxError:
        pass
    return ""


def _whole(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _shown(value: Any) -> str:
    return _whole(value)[:80]


# --- for a chat template ----------------------------------------------------------------------------------------------


def tools_of(conversation: Trajectory | Sample) -> list[dict[str, Any]]:
    """Return the tools on offer as an API writes them."""
    names = api_names(conversation.tools)
    return [tool_json(tool, names) for tool in conversation.tools]


def messages_of(
    messages: Sequence[Message], instructions: str, tools: Sequence[Tool]
) -> tuple[list[dict[str, Any]], list[int | None]]:
    """Return the conversation as messages for a chat template, and for each the number of its original message.

    A tool's answer follows the message that called it, in the order of the calls. An answer to words that were not a
    call becomes a user message, as in `chat_completions`.
    """
    names = api_names(tools)
    written: list[dict[str, Any]] = [{"role": "system", "content": instructions}] if instructions else []
    owners: list[int | None] = [None] * len(written)
    answers = answers_of(messages)
    answering = {answer for answered in answers.values() for answer in answered}
    for number, message in enumerate(messages):
        if message.role == "assistant":
            written.append(_said(message, number, names))
            owners.append(number)
            for k, answer in enumerate(answers.get(number, ())):
                if answer is not None:
                    called = names.get(message.calls[k].call.name, message.calls[k].call.name)
                    text = messages[answer].text
                    written.append(
                        {"role": "tool", "name": called, "tool_call_id": call_id(number, k), "content": text}
                    )
                    owners.append(answer)
        elif number not in answering:
            written.append({"role": "user", "content": message.text})
            owners.append(number)
    return written, owners


def _said(message: Message, number: int, names: Mapping[str, str]) -> dict[str, Any]:
    said: dict[str, Any] = {"role": "assistant", "content": message.text}
    if message.thought:
        said["reasoning_content"] = message.thought
    if message.calls:
        said["tool_calls"] = [
            {
                "id": call_id(number, k),
                "type": "function",
                "function": {
                    "name": names.get(made.call.name, made.call.name),
                    "arguments": dict(made.call.arguments),
                },
            }
            for k, made in enumerate(message.calls)
        ]
    return said


def corpus_text(item: Trajectory) -> str:
    """Return a conversation as JSON, on which the tokenizer of a model with random weights is trained."""
    messages, _ = messages_of(item.messages, item.instructions, item.tools)
    return json.dumps([tools_of(item), messages], ensure_ascii=False)
