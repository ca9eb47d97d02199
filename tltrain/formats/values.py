"""Compare argument values with golden ones."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any

from tltrain.config import Matching
from tltrain.formats.calls import MAX_DIGITS
from tltrain.trajectory import ANY, OneOf


def optional(value: Any) -> bool:
    """Return whether a parameter with this golden value may be missing."""
    return isinstance(value, OneOf) and value.optional


def same_value(prediction: Any, golden: Any, values: Matching | str = Matching.strict) -> bool:
    """Return whether two JSON values are equal. In `golden`, `ANY` equals every value, a `OneOf` each of its values.

    `strict`: equal as JSON. Numbers are compared by value (`1` equals `1.0`), booleans are not numbers, strings are
    compared character by character, lists in order, dicts regardless of order.

    `lenient`: as `strict`, after each string at any depth is normalized (NFKC, without surrounding white space) and a
    string that spells a JSON number, or `true`, `false` or `null` as in JSON or Python, is replaced by that value. So
    `1`, `1.0` and `"1"` are equal, and so are `true` and `"True"`; but the case of other text matters, `1` differs from
    `true`, and `"007"` from `7`. Dict keys are compared unchanged.

    Both relations are symmetric and transitive on JSON values. Only a `OneOf` recurses, so a model's deeply nested
    value cannot overflow the stack.
    """
    pending = [(prediction, golden)]
    while pending:
        left, right = pending.pop()
        if right is ANY:
            continue
        if isinstance(right, OneOf):
            if not any(same_value(left, accepted, values) for accepted in right.values):
                return False
        elif isinstance(left, dict) and isinstance(right, dict):
            if not left.keys() <= right.keys() or any(key not in left and not optional(right[key]) for key in right):
                return False
            pending.extend((left[key], right[key]) for key in left)
        elif isinstance(left, list | tuple) and isinstance(right, list | tuple):
            if len(left) != len(right):
                return False
            pending.extend(zip(left, right, strict=True))
        else:
            if values == "lenient":
                left, right = _plain(left), _plain(right)
            # In Python True == 1, in JSON not.
            if isinstance(left, bool) != isinstance(right, bool) or left != right:
                return False
    return True


_CONSTANTS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def _plain(value: Any) -> Any:
    """Return the representative of all values that `lenient` equates with `value`, which is not a list or dict."""
    if not isinstance(value, str):
        return value
    text = unicodedata.normalize("NFKC", value).strip()
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    number = _JSON_NUMBER.fullmatch(text)
    if number and len(text) <= MAX_DIGITS:
        plain = float(text) if number[1] or number[2] else int(text)
        return text if isinstance(plain, float) and math.isinf(plain) else plain
    return text
