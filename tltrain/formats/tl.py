"""The TL format: what the paper's models read and write (the released chat template).

    System: <tools as Python stubs>
    User: <query>
    Assistant: <call><end token>

Later turns add `Output: <the tool's answer>` and the next `Assistant: <call>`. A turn has one call: where a message
makes several, each becomes a turn of its own, followed by its own answer (`trajectory.sequential`). Text and thought
beside a call are not written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from tltrain.errors import TltrainError
from tltrain.formats import Format, Segment, full_stubs
from tltrain.formats.calls import call_end, render_call
from tltrain.formats.families import TL_FULL_NAME, TL_NAME
from tltrain.formats.preamble import thought_end
from tltrain.formats.stubs import Describe, description_of, render_tools
from tltrain.trajectory import Call, Message, Role, Sample, Trajectory, sequential

ROLES: dict[Role | Literal["system"], str] = {
    "system": "System",
    "user": "User",
    "assistant": "Assistant",
    "tool": "Output",
}

_CHAT_TEMPLATE = Path(__file__).with_name("tl_template.jinja")


def chat_template(opening: str = "", full: bool = False) -> str:
    """The chat template of the TL format, which ends with the tokenizer's own end token in place of `</s>`.

    It takes messages of the paper's roles (`chat_messages`), as the released template does, and messages and tools as
    an API writes them, from which it writes what training writes. What the format has no place for it refuses.

    Args:
        opening: special tokens that every conversation begins with; the released template leaves them to the tokenizer,
            but what applies a template adds none.
        full: whether tools are written as `full_stubs`.
    """
    template = _CHAT_TEMPLATE.read_text(encoding="utf-8").rstrip("\n")
    if full:
        template = full_stubs.in_template(template)
    return "{{ " + json.dumps(opening) + " }}" + template if opening else template


def system_text(conversation: Trajectory | Sample, describe: Describe = description_of) -> str:
    """The system message: instructions, if there are any, then the tools' stubs."""
    stubs = render_tools(conversation.tools, describe)
    return f"{conversation.instructions}\n\n{stubs}" if conversation.instructions else stubs


def call_of(message: Message) -> Call | None:
    """The one call of a turn; None for plain text.

    Raises:
        TltrainError: the message makes several calls.
    """
    if len(message.calls) > 1:
        names = ", ".join(made.call.name for made in message.calls)
        raise TltrainError(
            f"a message makes {len(message.calls)} calls ({names}), and a turn of the TL format has one: "
            "make them turns of their own first (trajectory.sequential)"
        )
    return message.calls[0].call if message.calls else None


def message_text(message: Message) -> str:
    """What a message says in the TL format: an assistant's call, anybody else's text. Raises as `call_of`."""
    call = call_of(message)
    return message.text if call is None else render_call(call)


def chat_messages(conversation: Trajectory | Sample) -> list[dict[str, str]]:
    """The conversation as `{"role", "content"}` messages for `apply_chat_template`."""
    return [{"role": ROLES["system"], "content": system_text(conversation)}] + [
        {"role": ROLES[message.role], "content": message_text(message)} for message in sequential(conversation.messages)
    ]


GENERATION_PROMPT = f"\n{ROLES['assistant']}:"


class TlFormat:
    """The TL format as a `Format`.

    Attributes:
        name: the name of its `format` choice.
        describe: what its stubs say of a parameter behind the type.
    """

    writes_bos = False
    name = TL_NAME
    describe: Describe = staticmethod(description_of)

    stop = tuple(f"\n{ROLES[role]}:" for role in ("user", "tool", "system"))
    """What an answer is followed by where a model goes on to write the others' parts too: nothing after is read."""

    def segments(self, conversation: Trajectory | Sample) -> list[Segment]:
        """The conversation cut where given text and predicted text meet.

        Joined, the texts are the chat template's output without the final end token. A turn of the assistant gives two
        segments: `"\\nAssistant:"`, which is given, and `" <call>"`, which carries the turn's number.
        """
        pieces = [Segment(f"{ROLES['system']}: {system_text(conversation, self.describe)}")]
        turn = 0
        for message in sequential(conversation.messages):
            if message.role == "assistant":
                call = call_of(message)
                said = f" {message.text}" if call is None else self.call_text(call)
                pieces += [_OPENING, Segment(said, turn)]
                turn += 1
            else:
                pieces.append(Segment(f"\n{ROLES[message.role]}: {message_text(message)}"))
        return pieces

    def prompt_segments(self, conversation: Trajectory | Sample) -> list[Segment]:
        """The history of a conversation and the words that ask for its next call."""
        return [*self.segments(conversation), _OPENING]

    def call_text(self, call: Call) -> str:
        """` name(k=value, ...)`."""
        return f" {render_call(call)}"

    def name_at(self, call: Call) -> int:
        """Right after the space."""
        return 1

    def call_head(self, name: str) -> str:
        """` name(`."""
        return f" {name}("

    def answer_length(self, text: str) -> int | None:
        """Where an answer ends: after its call, or where the next `User:` or `Output:` speaks before the call is
        complete; None if it may go on. What follows the end changes nothing: an answer is the same however much more
        was generated. A call inside a thought (`<think>`) does not end it.
        """
        thought = thought_end(text)
        end = None if thought is None else call_end(text[thought:])
        end = None if thought is None or end is None else thought + end
        at, role = min(((at, role) for role in self.stop if (at := text.find(role)) >= 0), default=(len(text), ""))
        if role and (end is None or at + len(role) <= end):
            return at
        return end

    def answer(self, text: str) -> str:
        """The text up to the answer's end, without space around it."""
        return text[: self.answer_length(text)].strip()


_OPENING = Segment(GENERATION_PROMPT, opens_turn=True)


class _TlFullFormat(TlFormat):
    name = TL_FULL_NAME
    describe: Describe = staticmethod(full_stubs.described)


TL: Format = TlFormat()
"""The TL format."""
TL_FULL: Format = _TlFullFormat()
"""The TL format with stubs that say all of a schema."""


def tl_format(name: str | None) -> Format:
    """The TL format of this name; the paper's for any other name."""
    return TL_FULL if name == TL_FULL_NAME else TL
