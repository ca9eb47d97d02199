"""Text before a call: the thought, sentence or code fence with which models not trained on the TL format begin.

    <think>The user wants papers.</think>
    I will search for them:
    ```python
    search(query="love")
    ```

`formats.calls` takes everything before the first `(` as the name of a call, as the paper's models write it. This module
finds the call after such text. An answer that begins with a tool's name, or with one word and `(`, has no text before
its call.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from tltrain.formats.calls import UNREADABLE, CallSyntaxError, UnclosedStringError, call_end, read_call

_MOST_ATTEMPTS = 50
"""Most positions at which reading a call is tried; each may need a pass over the text."""
_THOUGHT = re.compile(r"\s*(?:<((?:\w{1,20}:)?(?:think|thinking|thought|reasoning))>|\[(THINK)\])", re.IGNORECASE)
_CLOSED = re.compile(r"</(?:\w{1,20}:)?(?:think|thinking|thought|reasoning)>|\[/THINK\]", re.IGNORECASE)
_FENCE = re.compile(r"\s*```[\w+-]{0,20}[^\S\n]*\n")
_PLAIN_NAME = re.compile(r"[^\s<>\[\]{}\"'`]+")


def thought_end(text: str) -> int | None:
    """Return where the thoughts at the beginning of `text` end, 0 if there are none; None if one is not closed."""
    at = 0
    while opening := _THOUGHT.match(text, at):
        closing = f"</{opening[1]}>" if opening[1] else "[/THINK]"
        found = re.compile(re.escape(closing), re.IGNORECASE).search(text, opening.end())
        if found is None:
            return None
        at = found.end()
    return at


def words_before_call(text: str, names: Collection[str]) -> int:
    """Return the number of characters before the call of an answer; 0 if it begins with the call or has none.

    Args:
        names: names of the tools on offer. Within a sentence, only calls of these are found.

    Raises:
        CallSyntaxError: the answer begins with a thought that is not closed or not followed by a call. Calls inside a
            thought do not count.
    """
    if text.startswith(UNREADABLE):
        return 0
    thought = thought_end(text)
    if thought is None:
        raise CallSyntaxError("not a call: the thought at the beginning is not closed")
    at = thought
    if not thought:
        if _begins_with_call(text, names):
            return 0
        closings = list(_CLOSED.finditer(text))  # the prompt may have opened the thought
        at = thought = closings[-1].end() if closings else 0
    while fence := _FENCE.match(text, at):
        at = fence.end()
    found = _call_from(text, at, names)
    if found is None and thought:
        raise CallSyntaxError("not a call: there is no call behind the thought")
    return found or 0


def without_words(text: str, names: Collection[str]) -> str:
    """Return the answer without the text before its call; unchanged if there is none."""
    try:
        return text[words_before_call(text, names) :]
    except CallSyntaxError:
        return text


def _name_at(text: str, at: int) -> str:
    """Return the text between `at` and the next `(`; empty if there is none."""
    opening = text.find("(", at)
    return text[at:opening].strip() if opening >= 0 else ""


def _begins_with_call(text: str, names: Collection[str]) -> bool:
    """Return whether a text begins with a call, readable or not, rather than with other text."""
    name = _name_at(text, 0)
    if name in names:
        return True
    try:
        read_call(text)
    except UnclosedStringError:
        pass
    except CallSyntaxError:
        return False
    return bool(_PLAIN_NAME.fullmatch(name))


def _call_from(text: str, at: int, names: Collection[str]) -> int | None:
    """Return the index of the first readable call from `at` on; None if there is none."""
    at += len(text[at:]) - len(text[at:].lstrip())
    name = _name_at(text, at)
    if (name in names or _PLAIN_NAME.fullmatch(name)) and call_end(text[at:]) is not None:
        return at
    wanted = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True) if name)
    named = re.compile(rf"(?<![\w.$(=-])(?:{wanted})\s*+\(") if wanted else None
    for attempt, place in enumerate(named.finditer(text, at) if named else ()):
        if attempt == _MOST_ATTEMPTS:
            break
        try:
            read_call(text[place.start() :])
        except UnclosedStringError:  # the rest belongs to an argument
            return None
        except CallSyntaxError:
            continue
        return place.start()
    line = text.rfind("\n", at, max(text.find("(", at), at)) + 1
    if line > at and _PLAIN_NAME.fullmatch(_name_at(text, line)) and call_end(text[line:]) is not None:
        return line
    return None
