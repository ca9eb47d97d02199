"""Combine the words of a test's parts as a user would type them."""

from __future__ import annotations

from collections.abc import Sequence


def last_of_each(words: Sequence[str]) -> list[str]:
    """Keep the last of several words with the same key: a command line may give each key once."""
    found: dict[str, str] = {}
    for word in words:
        key = word.lstrip("+").partition("=")[0] if "=" in word and word[0] not in "~-" else word
        found.pop(key, None)
        found[key] = word
    return list(found.values())


def settled(words: Sequence[str]) -> list[str]:
    """Return the same without the sizes of random weights if there is a folder, whose model has its own."""
    given = any(word.startswith("model.path=") and word != "model.path=null" for word in words)
    return [word for word in last_of_each(words) if not (given and word.startswith("model.random."))]
