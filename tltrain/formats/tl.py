"""The TL format: what the paper's models read and write (the released chat template).

    System: <tools as Python stubs>
    User: <query>
    Assistant: <call><end token>

Later turns add `Output: <the tool's answer>` and the next `Assistant: <call>`. A conversation becomes *segments*:
pieces of text that are tokenized one by one, so that no token crosses the boundary between what is given and what is to
be predicted. Training and inference cut at the same places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tltrain.formats.calls import call_end, render_call
from tltrain.formats.stubs import render_tools
from tltrain.trajectory import Message, Role, Sample, Trajectory

ROLES: dict[Role | Literal["system"], str] = {
    "system": "System",
    "user": "User",
    "assistant": "Assistant",
    "tool": "Output",
}

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}"
    "{% if not loop.last %}{{ '\\n' }}"
    "{% elif add_generation_prompt %}{{ '\\nAssistant:' }}"
    "{% else %}{{ eos_token }}{% endif %}{% endfor %}"
)
"""The released template with the tokenizer's own end token in place of `</s>`."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a conversation's text. `turn` is the number of the assistant message (from 0) whose text this is."""

    text: str
    turn: int | None = None


def system_text(conversation: Trajectory | Sample) -> str:
    """The system message: instructions, if there are any, then the tools' stubs."""
    stubs = render_tools(conversation.tools)
    return f"{conversation.instructions}\n\n{stubs}" if conversation.instructions else stubs


def message_text(message: Message) -> str:
    """What a message says in the TL format: an assistant's call, anybody else's content."""
    return render_call(message.call) if message.call is not None else message.content


def chat_messages(conversation: Trajectory | Sample) -> list[dict[str, str]]:
    """The conversation as `{"role", "content"}` messages for `apply_chat_template`."""
    return [{"role": ROLES["system"], "content": system_text(conversation)}] + [
        {"role": ROLES[message.role], "content": message_text(message)} for message in conversation.messages
    ]


def segments(conversation: Trajectory | Sample) -> list[Segment]:
    """The conversation cut where given text and predicted text meet.

    Joined, the texts are the chat template's output without the final end token. An assistant message gives two
    segments: `"\\nAssistant:"`, which is given, and `" <call>"`, which carries the turn's number.
    """
    pieces = [Segment(f"{ROLES['system']}: {system_text(conversation)}")]
    turn = 0
    for message in conversation.messages:
        if message.role == "assistant":
            pieces += [Segment(GENERATION_PROMPT), Segment(f" {message_text(message)}", turn)]
            turn += 1
        else:
            pieces.append(Segment(f"\n{ROLES[message.role]}: {message_text(message)}"))
    return pieces


GENERATION_PROMPT = f"\n{ROLES['assistant']}:"


def prompt_segments(sample: Trajectory | Sample) -> list[Segment]:
    """The history of a conversation and the words that ask for its next call."""
    return [*segments(sample), Segment(GENERATION_PROMPT)]


def text(pieces: Sequence[Segment]) -> str:
    """The segments' text in one string."""
    return "".join(piece.text for piece in pieces)


NEXT_ROLES = tuple(f"\n{ROLES[role]}:" for role in ("user", "tool", "system"))
"""What an answer is followed by where a model goes on to write the others' parts too: nothing after is read."""


def answer_length(text: str) -> int | None:
    """Where an answer ends: after its call, or where the next `User:` or `Output:` speaks before the call is complete;
    None if it may go on. What follows the end changes nothing: an answer is the same however much more was generated.
    """
    end = call_end(text)
    at, role = min(((at, role) for role in NEXT_ROLES if (at := text.find(role)) >= 0), default=(len(text), ""))
    if role and (end is None or at + len(role) <= end):
        return at
    return end
