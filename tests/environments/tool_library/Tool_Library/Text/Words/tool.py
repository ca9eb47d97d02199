"""Well-behaved tools; `remember` keeps state between the calls of a conversation."""

import os

from .helpers import split

_kept = []


def count_words(text, unit="words"):
    return {"count": len(split(text)), "unit": unit}


def echo(value):
    return value


def remember(word):
    _kept.append(word)
    return _kept


def undocumented():
    return os.getcwd()
