"""Stubs that show the whole schema (`format=tl_full`): keywords that the paper's form omits follow the description.

    unit (string): The unit. One of: "c", "f". Default: "c".
    place (object): Where. Fields: {town (string): The town.; country (string = None): Its code.}
    days (array): Which. Items (string): One of: "mon", "tue".

The order is: `enum`, `const`, `default`, `items`, `properties`, the choices of `anyOf` and `oneOf` that have more than
a type, and then the keywords of `LIMITS` with their values. `full_stubs.jinja` writes the same in a chat template.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tltrain.formats.stubs import type_of

LIMITS = (
    *("format", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("minLength", "maxLength", "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties"),
    *("additionalProperties", "examples"),
)
"""Further keywords that are written, in this order."""
DEEPEST = 12
"""Levels of nesting that are written; deeper fields are left out."""
_MACROS = Path(__file__).with_name("full_stubs.jinja")


def described(schema: Mapping[str, Any], depth: int = 0) -> str:
    """Return a parameter's description, followed by what its schema says besides the type."""
    parts = [schema.get("description") or "", *_details(schema, depth)]
    return " ".join(part for part in parts if part)


def _details(schema: Mapping[str, Any], depth: int) -> list[str]:
    if depth >= DEEPEST:
        return []
    found = []
    if isinstance(schema.get("enum"), list):
        found.append(f"One of: {', '.join(map(_json, schema['enum']))}.")
    for keyword, word in (("const", "Always"), ("default", "Default")):
        if keyword in schema:
            found.append(f"{word}: {_json(schema[keyword])}.")
    if isinstance(items := schema.get("items"), Mapping):
        found.append(f"Items ({type_of(items)}): {described(items, depth + 1)}".rstrip())
    if isinstance(fields := schema.get("properties"), Mapping) and fields:
        found.append(f"Fields: {{{'; '.join(_fields(fields, schema.get('required') or (), depth))}}}")
    for keyword in ("anyOf", "oneOf"):
        choices = schema.get(keyword)
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, Mapping) and (said := described(choice, depth + 1)):
                found.append(f"As {type_of(choice)}: {said}")
    found += [f"{keyword}: {_json(schema[keyword])}." for keyword in LIMITS if keyword in schema]
    return found


def _fields(fields: Mapping[str, Any], required: Sequence[str], depth: int) -> list[str]:
    return [
        f"{name} ({type_of(schema)}{'' if name in required else ' = None'}): {described(schema, depth + 1)}".rstrip()
        for name, schema in fields.items()
        if isinstance(schema, Mapping)
    ]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def in_template(template: str) -> str:
    """Return the chat template of the TL format with these stubs instead of the paper's."""
    own = "(schema['description'] or '') -}}"
    if template.count(own) != 1:
        raise AssertionError("tl_template.jinja: the place of a parameter's description has changed")
    macros = _MACROS.read_text(encoding="utf-8").rstrip("\n").replace("LIMITS", json.dumps(LIMITS))
    return macros.replace("DEEPEST", str(DEEPEST)) + template.replace(own, "described(schema, 0) -}}")
