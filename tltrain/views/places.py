"""Words of a command line and configurations without places of the machine, for what is passed on.

`FILE`, `FOLDER` and `URL` replace paths and addresses. Names on a hub and values that no key makes a path stay.
"""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

from tltrain.data import hub

LEGEND = "FILE, FOLDER and URL stand for places of the machine"
_PLACE = re.compile(r"[/~]|\.{1,2}(?:/|$)|[A-Za-z]:[\\/]")
"""The beginning of a path that only this machine has."""
_NAMES_PLACE = re.compile(
    r"(?:^|[._])(?:paths?|dir|file|folder|module|tools)$|^paths\."
    r"|^source\.(?:user|tokenizer)$|^stage\.(?:predictions|compare|history|new|current|models|results|converter)$"
)
"""Keys whose values may be paths of any form."""
_ADDRESSES = ("hardware.rendezvous",)
"""Keys whose values are addresses without a scheme."""
_FLAGS = ("--config-dir", "-cd", "--config-path", "-cp")
"""Flags of Hydra with a folder."""
_PATH_LIKE = r"""[^\s,\[\]{}'"]+"""
_ADDRESS = re.compile(r"[A-Za-z][\w+.-]*://")
_ITEM = re.compile(
    rf"""(?P<quote>['"])(?P<quoted>.*?)(?P=quote)|[A-Za-z][\w+.-]*://{_PATH_LIKE}|[A-Za-z]:[\\/]{_PATH_LIKE}|[^\s,\[\]{{}}'":]+"""
)
"""A quoted text, an address, a path of Windows, or a word: the items of a value, which may be a list or a mapping."""
_IN_TEXT = re.compile(
    rf"{_ADDRESS.pattern}{_PATH_LIKE}|(?<![\w./~:-])(?:~?/|\.\.?/|[A-Za-z]:[\\/])[^\s,;:'\"`()<>\[\]]+"
)
"""An address or a path in a sentence."""
_IN_LABEL = re.compile(r"(?<![\w./~:-])(?:~?/|\.\.?/|[A-Za-z]:[\\/])[^\s,\[\]{}'\"]+")
"""A path in the label of a row or the value of an axis."""


def without(text: str, anywhere: bool, written: str | None = None) -> str:
    """Return a value, or what replaces it if it is a place of this machine.

    Args:
        anywhere: it may be a path without looking like one. written: how it was typed, with quotes.
    """
    if "://" in text:
        return written or text if hub.is_dataset(text) else "URL"
    path = Path(text).expanduser()
    with suppress(OSError, ValueError, RuntimeError):  # RuntimeError: `~name` of nobody
        if _PLACE.match(text) or (anywhere and path.exists()):
            return "FOLDER" if path.is_dir() else "FILE"
    return written or text


def without_in_override(word: str) -> str:
    """Return an override of a command line, such as `data.path=FILE`."""
    start, equals, value = word.partition("=")
    key = start.lstrip("+~")
    if key in _ADDRESSES:
        return f"{start}{equals}URL"
    anywhere = bool(_NAMES_PLACE.search(key))
    if anywhere and not value.startswith(("[", "{", "'", '"')):  # unquoted, it may have spaces
        return f"{start}{equals}{without(value, anywhere)}"
    return f"{start}{equals}{_ITEM.sub(lambda item: without(item['quoted'] or item[0], anywhere, item[0]), value)}"


def without_in_command(command: str) -> str:
    """Return a command line as `shlex.join` writes it, without places."""
    try:
        words = shlex.split(command)
    except ValueError:  # not written by this program
        return without_in_text(command)
    found = []
    for before, word in zip(["", *words], words, strict=False):
        if before in _FLAGS:
            found.append("FOLDER")
        elif word.partition("=")[0] in _FLAGS:
            found.append(word.partition("=")[0] + ("=FOLDER" if "=" in word else ""))
        else:
            found.append(without_in_override(word) if "=" in word else without(word, anywhere=False))
    return shlex.join(found)


def without_in_text(text: str) -> str:
    """Return a sentence, such as the line of an error, without absolute paths and addresses."""
    return _IN_TEXT.sub(lambda found: without(found[0], anywhere=True), text)


def without_in_config(node: Any, key: str = "") -> Any:
    """Return a plain configuration without places; tables of MAE's rules, which are patterns, stay as they are."""
    if isinstance(node, dict):
        return {name: without_in_config(value, f"{key}.{name}".lstrip(".")) for name, value in node.items()}
    if isinstance(node, list):
        return [without_in_config(value, key) for value in node]
    if not isinstance(node, str) or not node or key.partition(".")[0] == "mae" or node.startswith("${"):
        return node
    if key in _ADDRESSES or (_ADDRESS.match(node) and not hub.is_dataset(node)):
        return "URL"
    return node if _ADDRESS.match(node) else without(node, anywhere=bool(_NAMES_PLACE.search(key)))


def last_names(text: str) -> str:
    """Return a label with only the last name of each path in it, such as `path=model` for `path=/home/me/model`."""
    return _IN_LABEL.sub(lambda found: re.split(r"[/\\]", found[0].rstrip("/\\"))[-1] or "FOLDER", text)
