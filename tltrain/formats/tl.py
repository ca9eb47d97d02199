"""The TL format, which the paper's models read and write (the released chat template).

    System: <tools as Python stubs>
    User: <query>
    Assistant: <call><end token>

Later turns add `Output: <the tool's answer>` and the next `Assistant: <call>`. A turn has one call: a message with
several calls becomes one turn per call, each followed by its answer (`trajectory.sequential`). Text and thought beside
a call are not written.
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
    """Return the chat template of the TL format, which writes the tokenizer's own end token in place of `</s>`.

    It accepts messages with the paper's roles (`chat_messages`), as the released template does, and messages and tools
    in the API's form, which it renders as training does. It refuses what the format cannot express.

    Args:
        opening: special tokens that begin every conversation; the released template leaves them to the tokenizer, but
            code that applies a template adds none.
        full: whether tools are written as `full_stubs`.
    """
    template = _CHAT_TEMPLATE.read_text(encoding="utf-8").rstrip("\n")
    if full:
        template = full_stubs.in_template(template)
    return "{{ " + json.dumps(opening) + " }}" + template if opening else template


def system_text(conversation: Trajectory | Sample, describe: Describe = description_of) -> str:
    """Return the system message: instructions, if there are any, then the tools' stubs."""
    stubs = render_tools(conversation.tools, describe)
    return f"{conversation.instructions}\n\n{stubs}" if conversation.instructions else stubs


def call_of(message: Message) -> Call | None:
    """Return the one call of a turn; None for plain text.

    Raises:
        TltrainError: the message makes several calls.
    """
    if len(message.calls) > 1:
        names = ", ".join(made.call.name for made in message.calls)
        raise TltrainError(
            f"a message makes {len(message.calls)} calls ({names}), but a turn of the TL format has only one: "
            "split the message into one turn per call first (trajectory.sequential)"
        )
    return message.calls[0].call if message.calls else None


def message_text(message: Message) -> str:
    """Return a message's text in the TL format: an assistant's call, any other role's text. Raise as `call_of`."""
    call = call_of(message)
    return message.text if call is None else render_call(call)


def chat_messages(conversation: Trajectory | Sample) -> list[dict[str, str]]:
    """Return the conversation as `{"role", "content"}` messages for `apply_chat_template`."""
    return [{"role": ROLES["system"], "content": system_text(conversation)}] + [
        {"role": ROLES[message.role], "content": message_text(message)} for message in sequential(conversation.messages)
    ]


GENERATION_PROMPT = f"\n{ROLES['assistant']}:"


class TlFormat:
    """The TL format as a `Format`.

    Attributes:
        name: the name of its `format` choice.
        describe: what its stubs say about a parameter after the type.
    """

    writes_bos = False
    name = TL_NAME
    describe: Describe = staticmethod(description_of)

    stop = tuple(f"\n{ROLES[role]}:" for role in ("user", "tool", "system"))
    """Texts with which a model goes on to write the other roles' parts; an answer ends before the first of them."""

    def segments(self, conversation: Trajectory | Sample) -> list[Segment]:
        """Return the conversation, cut where given text and predicted text meet.

        Joined, the texts are the chat template's output without the final end token. A turn of the assistant becomes
        two segments: `"\\nAssistant:"`, which is given, and `" <call>"`, which has the turn's number.
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
        """Return the history of a conversation and the words that ask for its next call."""
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
        """Return where an answer ends: after its call, or at the next `User:`, `Output:` or `System:` if that comes
        before the call is complete; None if it may go on. Text after the end changes nothing: an answer is the same
        however much more was generated. A call inside a thought (`<think>`) does not end the answer.
        """
        thought = thought_end(text)
        end = None if thought is None else call_end(text[thought:])
        end = None if thought is None or end is None else thought + end
        at, role = min(((at, role) for role in self.stop if (at := text.find(role)) >= 0), default=(len(text), ""))
        if role and (end is None or at + len(role) <= end):
            return at
        return end

    def answer(self, text: str) -> str:
        """Return the text up to the answer's end, without surrounding white space."""
        return text[: self.answer_length(text)].strip()


_OPENING = Segment(GENERATION_PROMPT, opens_turn=True)


class _TlFullFormat(TlFormat):
    name = TL_FULL_NAME
    describe: Describe = staticmethod(full_stubs.described)


TL: Format = TlFormat()
"""The TL format."""
TL_FULL: Format = _TlFullFormat()
"""The TL format with stubs that show the whole schema."""


def tl_format(name: str | None) -> Format:
    """Return the TL format of this name; the paper's for any other name."""
    return TL_FULL if name == TL_FULL_NAME else TL
