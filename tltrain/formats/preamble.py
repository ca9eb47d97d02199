"""Words before a call: the thought, the sentence or the code fence with which models that were not trained on the TL
format begin an answer.

    <think>The user wants papers.</think>
    I will search for them:
    ```python
    search(query="love")
    ```

For `formats.calls` the name of a call is everything before the first `(`, as the paper's models write it. Here the
call behind such words is found. An answer that begins with a tool's name, or with one word and `(`, has none.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from tltrain.formats.calls import UNREADABLE, CallSyntaxError, UnclosedStringError, call_end, read_call

_MOST_ATTEMPTS = 50
"""Places at which a call is looked for: each may take a pass over the text."""
_THOUGHT = re.compile(r"\s*(?:<((?:\w{1,20}:)?(?:think|thinking|thought|reasoning))>|\[(THINK)\])", re.IGNORECASE)
_CLOSED = re.compile(r"</(?:\w{1,20}:)?(?:think|thinking|thought|reasoning)>|\[/THINK\]", re.IGNORECASE)
_FENCE = re.compile(r"\s*```[\w+-]{0,20}[^\S\n]*\n")
_PLAIN_NAME = re.compile(r"[^\s<>\[\]{}\"'`]+")


def thought_end(text: str) -> int | None:
    """Where the thoughts end that `text` begins with, 0 if it begins with none; None where one is not closed."""
    at = 0
    while opening := _THOUGHT.match(text, at):
        closing = f"</{opening[1]}>" if opening[1] else "[/THINK]"
        found = re.compile(re.escape(closing), re.IGNORECASE).search(text, opening.end())
        if found is None:
            return None
        at = found.end()
    return at


def words_before_call(text: str, names: Collection[str]) -> int:
    """How many characters stand before the call of an answer; 0 if the answer begins with it, or has none.

    Args:
        names: of the tools on offer. Of the calls in a sentence only theirs are found.

    Raises:
        CallSyntaxError: the answer begins with a thought that is not closed, or behind which there is no call. What
            stands inside a thought is no call.
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
        closings = list(_CLOSED.finditer(text))  # the prompt has opened the thought
        at = thought = closings[-1].end() if closings else 0
    while fence := _FENCE.match(text, at):
        at = fence.end()
    found = _call_from(text, at, names)
    if found is None and thought:
        raise CallSyntaxError("not a call: there is no call behind the thought")
    return found or 0


def without_words(text: str, names: Collection[str]) -> str:
    """The answer from its call on; all of it where no words stand before a call."""
    try:
        return text[words_before_call(text, names) :]
    except CallSyntaxError:
        return text


def _name_at(text: str, at: int) -> str:
    """What stands before the first `(` from `at` on; empty where there is none."""
    opening = text.find("(", at)
    return text[at:opening].strip() if opening >= 0 else ""


def _begins_with_call(text: str, names: Collection[str]) -> bool:
    """Whether a text begins with a call, readable or not, and not with words."""
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
    """Where the first call from `at` on begins; None if there is none that can be read."""
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
        except UnclosedStringError:  # what follows is the text of an argument
            return None
        except CallSyntaxError:
            continue
        return place.start()
    line = text.rfind("\n", at, max(text.find("(", at), at)) + 1
    if line > at and _PLAIN_NAME.fullmatch(_name_at(text, line)) and call_end(text[line:]) is not None:
        return line
    return None
