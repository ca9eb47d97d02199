"""Pair tools' answers with calls: by the order of messages, then by ids, names and positions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from tltrain.data.arguments import PREFIX, offered_name, read_arguments
from tltrain.data.entries import Entry, Made
from tltrain.data.reading import expect, member, shown, texts_of
from tltrain.errors import FieldError
from tltrain.trajectory import Call, Tool

PARALLEL = "multi_tool_use.parallel"
"""The tool in which OpenAI's models wrap several calls although nobody offered it."""


def unwrapped(entries: Iterable[Entry], tools: Mapping[str, Tool], notes: Counter[str]) -> Iterator[Entry]:
    """Yield the entries with each `multi_tool_use.parallel` replaced by the calls that it wraps.

    The calls get its id. A single answer to it has to be a list with one item per call.

    Raises:
        FieldError: its arguments are not calls, or its answer does not say which call each part answers.
    """
    wrapped: dict[str, int] = {}
    waiting: list[Entry] = []
    for entry in entries:
        if entry.role == "tool" and wrapped:
            waiting.append(entry)
            continue
        yield from _split_answers(waiting, wrapped)
        waiting, wrapped = [], {}
        if entry.calls and (
            held := {i: calls_within(made, tools, entry.where, notes) for i, made in enumerate(entry.calls)}
        ):
            wrapped = {entry.calls[i].id: len(calls) for i, calls in held.items() if len(calls) > 1}
            entry = replace(entry, calls=tuple(each for i in held for each in held[i]))
        yield entry
    yield from _split_answers(waiting, wrapped)


def calls_within(made: Made, tools: Mapping[str, Tool], where: str, notes: Counter[str]) -> tuple[Made, ...]:
    """Return the calls that `multi_tool_use.parallel` wraps; for any other call, only that call. Raises FieldError."""
    if made.call.name in tools or made.call.name.removeprefix(PREFIX) != PARALLEL:
        return (made,)
    where = f"{where}, {PARALLEL}"
    found = []
    for i, use in enumerate(member(made.call.arguments, "tool_uses", list, where)):
        place = f"{where}.tool_uses[{i}]"
        name = member(expect(use, dict, place), "recipient_name", str, place)
        found.append(Made(Call(name, read_arguments(use.get("parameters"), f"{place}.parameters", notes)), made.id))
    if not found:
        raise FieldError(f"{where}.tool_uses", "at least one call", "none")
    notes[f"calls: `{PARALLEL}` read as the calls that it holds"] += 1
    return tuple(found)


def _split_answers(answers: Sequence[Entry], wrapped: Mapping[str, int]) -> Iterator[Entry]:
    """Yield the answers after a message; a single answer to several wrapped calls becomes one answer to each."""
    counts = Counter(answer.answers for answer in answers)
    for answer in answers:
        key = answer.answers or (next(iter(wrapped)) if len(answers) == 1 else "")
        if key not in wrapped or counts[answer.answers] > 1:
            yield answer
            continue
        texts = texts_of(answer.text, wrapped[key])
        if len(texts) == 1:
            expected = f"a list of {wrapped[key]} answers, one for each call in {PARALLEL}"
            raise FieldError(answer.where, expected, shown(answer.raw))
        yield from (replace(answer, text=text, name="") for text in texts)


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries with a call's answers directly after it.

    A system message between them moves after the answers. Consecutive messages with calls and no answer between them
    become one if an answer after the last of them names a call of an earlier one, or if the format says so.
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


def match(
    calls: Sequence[Made], answers: Sequence[Entry], tools: Mapping[str, Tool], notes: Counter[str]
) -> list[Entry | None]:
    """Pair answers with calls: by id, then by the tool's name, then by their order.

    Raises:
        FieldError: there are more answers than calls, or fewer and only their order could tell which call has none.
    """
    matched: list[Entry | None] = [None] * len(calls)
    if len(answers) > len(calls):
        late = answers[len(calls)]
        raise FieldError(late.where, f"at most {len(calls)} answers to {len(calls)} calls", shown(late.raw))

    def free(answer: Entry, by_id: bool) -> list[int]:
        """Return the indices of the unanswered calls that have this answer's id, or its tool's name."""
        key = answer.answers if by_id else offered_name(answer.name, tools)
        own = [call.id if by_id else call.call.name for call in calls]
        return [i for i, other in enumerate(own) if key and other == key and matched[i] is None]

    ids = Counter(call.id for call in calls)
    left = []
    for answer in answers:
        known = free(answer, by_id=True)
        if len(known) > 1:  # several calls have this id: the name decides among them, then the order
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
            matched[known[0]] = answer  # every call of this tool has an answer: they are in order
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
        if answer.answers and any(ids):
            notes["messages: answers whose `tool_call_id` matches no call, matched by order"] += 1
        if answer.name and offered_name(answer.name, tools) != calls[i].call.name:
            notes["messages: answers named after another tool than the one called, matched by order"] += 1
    return matched
