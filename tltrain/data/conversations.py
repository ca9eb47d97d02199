"""From the messages that a format states to a conversation: what all formats of conversations have in common.

A format (`tltrain.data.openai`, `sharegpt`, ...) says of each message who speaks and what it holds (`Entry`). This
module pairs tools' answers with calls, reads calls and thoughts that stand in text, gives a later system message its
place and compares calls with the tools on offer. What it changes or leaves out is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from tltrain.data.arguments import checked, offered_name
from tltrain.data.reading import expect_id, rest, shown
from tltrain.data.text_calls import LOOKS_LIKE_CALL, responses, split_calls, split_thought
from tltrain.errors import FieldError
from tltrain.trajectory import Call, Message, Tool, ToolCall, Trajectory

LEARN = ("weight", "loss_weight", "loss", "train", "training", "trainable", "learn", "loss_mask")
"""Fields by which trainers leave a message of the assistant out of the loss: OpenAI and LLaMA-Factory (`weight`,
`loss_weight`), ms-swift (`loss`), axolotl (`train`, `training`), and others. A record may have them too, for all of its
messages."""
MASK = "message_loss_mask"
"""A record's field with a mark a message: 0 or false leaves it out of the loss."""


class Made(NamedTuple):
    """A call as a message states it. `id` is empty if it has none."""

    call: Call
    id: str = ""


@dataclass(frozen=True)
class Entry:
    """A message as its format states it.

    Attributes:
        role: who speaks; `system` also for a developer.
        where: its field in the record, for errors.
        raw: what stands there, for errors.
        learn: False if the source marks it as no training target.
        answers: of a tool's message, the id of the call that it answers; `name` is the tool's name.
        parallel: of an assistant's message with calls, whether it belongs to the calls right before it.
    """

    role: Literal["system", "user", "assistant", "tool"]
    where: str
    text: str = ""
    raw: Any = None
    calls: tuple[Made, ...] = ()
    thought: str = ""
    learn: bool = True
    answers: str = ""
    name: str = ""
    is_error: bool | None = None
    parallel: bool = False


def is_learned(message: Mapping[str, Any], where: str) -> bool:
    """Return whether a message's own fields (`LEARN`) let it be a training target. Raises FieldError."""
    learned = True
    for key in LEARN:
        value = message.get(key)
        if isinstance(value, str) and value.strip().lower() in ("true", "false", "0", "1"):
            value = value.strip().lower() in ("true", "1")
        if value is None:
            continue
        if not isinstance(value, int | float):
            raise FieldError(f"{where}.{key}", "true or false, or a weight", shown(value))
        learned = learned and bool(value)
    return learned


def marked(record: Mapping[str, Any], entries: Sequence[Entry], count: int | None = None) -> list[Entry]:
    """Return the entries without those learned that the record's own fields (`LEARN`, `MASK`) leave out of the loss.

    A record's other fields are any information of its source, so that only false, 0 and their texts count there.

    Args:
        count: messages of the record, where each is one of `entries`; None where they are not its messages.

    Raises:
        FieldError: `MASK` does not have as many marks as the record has messages.
    """
    whole = not any(_is_no(record.get(key)) for key in LEARN)
    marks = record.get(MASK)
    if count is None or not isinstance(marks, list):
        return [entry if whole else replace(entry, learn=False) for entry in entries]
    if len(marks) != count:
        raise FieldError(MASK, f"{count} marks, one for each message", f"{len(marks)}")
    return [
        replace(entry, learn=entry.learn and whole and not _is_no(mark))
        for entry, mark in zip(entries, marks, strict=True)
    ]


def _is_no(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in ("false", "0")
    return isinstance(value, int | float) and not value


def record_id(record: Mapping[str, Any], number: int) -> str:
    """Return a record's id, or its number if it has none."""
    return str(number) if record.get("id") is None else expect_id(record)


def trajectory(
    record: Mapping[str, Any],
    number: int,
    tools: Sequence[Tool] | None,
    entries: Iterable[Entry],
    notes: Counter[str],
    known: Sequence[str],
    instructions: str = "",
) -> Trajectory:
    """Return the trajectory of a record. Without an id its number is the id; fields that are not `known` become `meta`.

    Args:
        tools: None where the record names none, which is an error if its messages call some.
        instructions: those that stand outside of the messages.
    """
    messages, own = assemble(marked(record, list(entries)), tools or (), notes)
    check_tools(tools, messages, notes)
    said = "\n\n".join(filter(None, [instructions, own]))
    return Trajectory(record_id(record, number), tuple(tools or ()), messages, said, rest(record, "id", *known))


def check_tools(
    tools: Sequence[Tool] | None, messages: Sequence[Message], notes: Counter[str], found: str = "none"
) -> None:
    """Raise a FieldError where messages have calls and their record names no tools; count a plain chat."""
    if tools is not None:
        return
    if any(message.calls for message in messages):
        raise FieldError("tools", "a list of tools, as the conversation calls some", found)
    notes["records without tools and calls"] += 1


@dataclass
class _Assembly:
    """A conversation that grows by its entries."""

    tools: Mapping[str, Tool]
    notes: Counter[str]
    messages: list[Message] = field(default_factory=list)


def assemble(entries: Iterable[Entry], tools: Sequence[Tool], notes: Counter[str]) -> tuple[tuple[Message, ...], str]:
    """Return a conversation's messages and its instructions, which are the system messages at its beginning.

    - A system message behind the first words of others becomes a message of the user in its place.
    - The answers right behind an assistant's message belong to its calls: by id, then by the tool's name, then by their
      order. Several calls stay together if each of them is answered, or none; else each becomes a message of its own.
    - A message of the assistant without words and calls is left out.

    Raises:
        FieldError: an answer without a call, or one of which several calls may be meant.
    """
    state = _Assembly({tool.name: tool for tool in tools}, notes)
    spoken = _in_order(_read_text(entries, notes))
    instructions = []
    at = 0
    while at < len(spoken) and spoken[at].role == "system":
        instructions.append(spoken[at].text)
        at += 1
    while at < len(spoken):
        entry = spoken[at]
        at += 1
        if entry.role == "system":
            notes["messages: a later system message kept in its place, as a message of the user"] += 1
        if entry.role in ("system", "user"):
            state.messages.append(Message("user", entry.text))
        elif entry.role == "tool":
            raise FieldError(entry.where, "an answer to a call of the assistant message before it", shown(entry.raw))
        else:
            end = at
            while end < len(spoken) and spoken[end].role == "tool":
                end += 1
            _say(state, entry, spoken[at:end])
            at = end
    return tuple(state.messages), "\n\n".join(instructions)


def _read_text(entries: Iterable[Entry], notes: Counter[str]) -> Iterator[Entry]:
    """Yield the entries with what stands in their text as calls, thoughts and answers; those that are empty are not."""
    called = False
    for entry in entries:
        if entry.role == "assistant":
            entry = _read_assistant(entry, notes)
            called = bool(entry.calls)
            if not entry.calls and not entry.text.strip():
                notes["messages: of the assistant without words and calls, left out"] += 1
                continue
        elif entry.role in ("user", "tool") and called and (found := responses(entry.text)):
            if entry.role == "user":
                notes["messages: tools' answers read from the text of a user's message"] += 1
            for each in found:
                yield replace(
                    entry,
                    role="tool",
                    text=each.text,
                    answers=each.call_id or (entry.answers if len(found) == 1 else ""),
                    name=each.name or (entry.name if len(found) == 1 else ""),
                )
            continue
        elif entry.role == "user":
            called = False
        yield entry


def _read_assistant(entry: Entry, notes: Counter[str]) -> Entry:
    thought, text = split_thought(entry.text, notes)
    if entry.thought.strip() and thought and thought != entry.thought.strip():
        notes["messages: a thought in the text beside one in its own field, left out"] += 1
    words, calls = split_calls(text, f"{entry.where}.content", notes)
    if calls:
        if entry.calls:
            notes["messages: calls in the text beside calls in their own field, left out"] += 1
        else:
            notes["messages: calls read from the text"] += 1
        entry = replace(entry, calls=entry.calls or tuple(map(Made, calls)))
    elif LOOKS_LIKE_CALL.search(words):
        notes["messages: text that looks like a call but cannot be read as one, kept as text"] += 1
    return replace(entry, text=words, thought=entry.thought or thought)


def _in_order(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries with a call's answers right behind it.

    A system message between them moves behind the answers. Messages whose calls follow each other without an answer
    become one if an answer behind the last of them names a call of an earlier one, or if the format says so.
    """
    ordered: list[Entry] = []
    for entry in entries:
        if entry.role == "tool":
            at = len(ordered)
            while at and ordered[at - 1].role == "system":
                at -= 1
            if at and (ordered[at - 1].role == "tool" or ordered[at - 1].calls):
                ordered.insert(at, entry)
                continue
        if entry.parallel and ordered and ordered[-1].calls and entry.calls:
            ordered[-1] = _joined(ordered[-1], entry)
            continue
        ordered.append(entry)
    return _late_answers(ordered)


def _late_answers(entries: list[Entry]) -> list[Entry]:
    found: list[Entry] = []
    for at, entry in enumerate(entries):
        chain = len(found)
        while chain and found[chain - 1].calls:
            chain -= 1
        if entry.role == "tool" and len(found) - chain > 1 and entry.answers:
            answered = [entry.answers]
            for other in entries[at + 1 :]:
                if other.role != "tool":
                    break
                answered.append(other.answers)
            first = next((i for i in range(chain, len(found)) if _ids(found[i]) & set(answered)), len(found))
            while len(found) - 1 > first:
                later = found.pop()
                found[-1] = _joined(found[-1], later)
        found.append(entry)
    return found


def _ids(entry: Entry) -> set[str]:
    return {made.id for made in entry.calls if made.id}


def _joined(entry: Entry, later: Entry) -> Entry:
    return replace(
        entry,
        calls=entry.calls + later.calls,
        text="\n".join(filter(None, [entry.text, later.text])),
        thought="\n".join(filter(None, [entry.thought, later.thought])),
        learn=entry.learn and later.learn,
    )


def _say(state: _Assembly, entry: Entry, answers: Sequence[Entry]) -> None:
    """Add an assistant's message and the answers behind it."""
    notes, learn = state.notes, entry.learn
    if entry.thought:
        notes["messages: thoughts are not in the TL format"] += 1
    if not entry.calls:
        if answers:
            raise FieldError(answers[0].where, "no tool's answer to a message without calls", shown(answers[0].raw))
        state.messages.append(Message("assistant", entry.text, thought=entry.thought, learn=learn))
        return
    if entry.text:
        notes["messages: text beside a call is not in the TL format"] += 1
    calls = [Made(checked(made.call, state.tools, notes), made.id) for made in entry.calls]
    matched = _match(calls, answers, state.tools, notes)
    said = [None if each is None else Message("tool", each.text, is_error=each.is_error) for each in matched]
    answered = [answer for answer in said if answer is not None]
    made = tuple(ToolCall(call.call, learn) for call in calls)
    if len(answered) in (0, len(calls)):
        state.messages += [Message("assistant", entry.text, made, entry.thought, learn), *answered]
        return
    for i, (each, answer) in enumerate(zip(made, said, strict=True)):
        text, thought = ("", "") if i else (entry.text, entry.thought)
        state.messages.append(Message("assistant", text, (each,), thought, learn))
        if answer is not None:
            state.messages.append(answer)
    notes["messages: calls without an answer beside calls with one"] += len(calls) - len(answered)


def _match(
    calls: Sequence[Made], answers: Sequence[Entry], tools: Mapping[str, Tool], notes: Counter[str]
) -> list[Entry | None]:
    """Pair answers with calls: by id, then by the tool's name, then by their order.

    Raises:
        FieldError: there are more answers than calls, or fewer and their order alone would decide which call has none.
    """
    matched: list[Entry | None] = [None] * len(calls)
    if len(answers) > len(calls):
        late = answers[len(calls)]
        raise FieldError(late.where, f"at most {len(calls)} answers to {len(calls)} calls", shown(late.raw))

    def free(answer: Entry, by_id: bool) -> list[int]:
        """Indices of the calls without an answer that have this answer's id, or its tool's name."""
        key = answer.answers if by_id else offered_name(answer.name, tools)
        own = [call.id if by_id else call.call.name for call in calls]
        return [i for i, other in enumerate(own) if key and other == key and matched[i] is None]

    ids = Counter(call.id for call in calls)
    left = []
    for answer in answers:
        known = free(answer, by_id=True)
        if len(known) > 1:  # one id for several calls: the name decides among them, then the order
            named = [i for i in free(answer, by_id=False) if i in known]
            known = named or known
            notes["messages: an answer whose id several calls have, matched by name and order"] += 1
        if known:
            matched[known[0]] = answer
        else:
            left.append(answer)
    by_order = []
    for answer in left:
        known = free(answer, by_id=False)
        alike = sum(other.name == answer.name for other in left)
        if known and (len(known) == 1 or alike == len(known)):
            matched[known[0]] = answer  # of several calls of one tool each has an answer: those are in order
        else:
            by_order.append(answer)
    open_calls = [i for i, answer in enumerate(matched) if answer is None]
    if by_order and len(by_order) < len(open_calls):
        raise FieldError(
            by_order[0].where,
            f"an id or a tool's name that says which of {len(open_calls)} calls it answers",
            shown(by_order[0].raw),
        )
    for i, answer in zip(open_calls, by_order, strict=False):
        matched[i] = answer
        if answer.answers and len(calls) > 1 and any(ids):
            notes["messages: answers whose `tool_call_id` matches no call, matched by order"] += 1
        if answer.name and offered_name(answer.name, tools) != calls[i].call.name:
            notes["messages: answers named after another tool than the one called, matched by order"] += 1
    return matched
