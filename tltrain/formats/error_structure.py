"""Judge a tool's answer by its fields if it is JSON, Python literals, XML or HTML; judge other text as text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tltrain.formats.answers import read_structure
from tltrain.formats.error_rule import FLAGGED, Field, Rule, key
from tltrain.formats.error_text import text_kind
from tltrain.formats.markup import read_markup

_DEPTH = 8  # how many levels of wrappers, and of structures inside a text, are followed


def answer_kind(answer: str, rule: Rule, depth: int = _DEPTH) -> str | None:
    """Return the kind of error an answer is under a rule with `match: structure`; None if it is not an error."""
    text = answer.strip()
    if depth and text.startswith(("{", "[", '"', "'", "(")):
        value, exact = read_structure(text)
        if isinstance(value, str) and not exact:
            return _quoted_kind(text, value, rule, depth - 1)
        kind = value_kind(value, rule, depth - 1)
        if exact or kind:
            return kind
    if depth and text.startswith("<"):
        found = _markup_kind(text, rule, depth - 1)
        if found is not None:
            return found or None
    return text_kind(text, rule)


def _quoted_kind(text: str, value: str, rule: Rule, depth: int) -> str | None:
    """Judge a text in Python's quotes as the `repr` of an answer, or as it is (a KeyError's text is a quoted name)."""
    quoted = text[0] == text[-1] and len(text) > 1 and text[0] not in text[1:-1]
    return text_kind(text, rule) or (answer_kind(value, rule, depth) if quoted else None)


# Objects and lists ---------------------------------------------------------------------------------------------------


def value_kind(value: Any, rule: Rule, depth: int = _DEPTH) -> str | None:
    """Return the kind of error a parsed answer is: an object by its fields, a list if each object in it is an error."""
    if isinstance(value, str):
        return answer_kind(value, rule, depth)
    if depth and isinstance(value, dict):
        return _object_kind(value, rule, depth)
    if isinstance(value, list) and value:
        if _is_issue_list(value, rule):
            return "validation"
        kinds = [_item_kind(item, rule, depth) for item in value]
        return kinds[0] if all(kinds) else _tuple_kind(value, rule)
    return None


def _item_kind(item: Any, rule: Rule, depth: int) -> str | None:
    if not isinstance(item, dict):
        return None
    members = _members(item)
    if depth and isinstance(text := members.get("text"), str) and members.get("type") == "text":  # MCP's content blocks
        return answer_kind(text, rule, depth - 1)
    return _fields_kind(members, rule, items=True)


def _tuple_kind(value: list[Any], rule: Rule) -> str | None:
    """`(1146, "Table 't' doesn't exist")`, the arguments of a database driver's exception."""
    if len(value) == 2 and isinstance(value[0], int) and isinstance(value[1], str) and value[0] not in (0, True):
        return text_kind(value[1], rule)
    return None


def _object_kind(value: dict[Any, Any], rule: Rule, depth: int, messages: bool = True) -> str | None:
    """Return the kind of error an object is by its fields and wrappers, and, with `messages`, by its texts if bare."""
    members = _members(value)
    failed = _outright(members, rule)
    if failed is False:
        return None
    if failed or (kind := _fields_kind(members, rule)) is None:
        texts = (members[name] for name in ("stderr", "error", *members) if name in members)
        kind = _first_kind(texts, rule) or FLAGGED if failed else None
    if kind is not None:
        return kind
    bare = _is_bare(members, rule)
    for name, member in members.items():
        # A text beside a result is content, such as a note; only a text that stands alone says how the call went.
        if name in rule.wrappers:
            kind = value_kind(member, rule, depth - 1) if bare or not isinstance(member, str) else None
        elif (
            len(members) == 1 and isinstance(member, dict) and depth
        ):  # an arbitrary name, such as that of a GraphQL mutation
            kind = _object_kind(member, rule, depth - 1, messages=False)
        if kind:
            return kind
    return (_message_kind(members, rule) if bare and messages else None) or _fields_of_a_form(members, rule)


def _members(value: dict[Any, Any]) -> dict[str, Any]:
    return {key(name): member for name, member in value.items()}


def _outright(members: dict[str, Any], rule: Rule) -> bool | None:
    """Return whether the call failed, if a field says exactly that; None otherwise."""
    for name, member in members.items():
        if name in rule.flags and (said := _truth(member)) is not None:
            return said
        if name in rule.exit_codes and (number := whole_number(member)) is not None:
            return number != 0
    return None


def _truth(value: Any) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def _fields_kind(members: dict[str, Any], rule: Rule, items: bool = False) -> str | None:
    for field in rule.fields:
        if items and not field.items:
            continue
        for name, member in members.items():
            if name in field.keys and _tells_error(name, member, members, field, rule):
                # The field says that it is an error, the message says which one.
                return text_kind(_first_text(member), rule) or _message_kind(members, rule) or field.kind
    return None


def _tells_error(name: str, member: Any, members: dict[str, Any], field: Field, rule: Rule) -> bool:
    return (
        field.beside <= members.keys()
        and _tells(member, field.when, rule)
        and (not field.bare or _is_bare(members, rule, besides=name))
    )


def _is_bare(members: dict[str, Any], rule: Rule, besides: str = "") -> bool:
    """Return whether an object holds no result: every member is empty or has a key of `besides`."""
    return all(name == besides or _holds_no_result(name, member, rule) for name, member in members.items())


def _holds_no_result(name: str, member: Any, rule: Rule) -> bool:
    if _is_empty(member) or _is_issue_list(member, rule):
        return True
    if name in rule.wrappers and isinstance(member, dict):  # the wrapper may say nothing but how the call went
        return _is_bare(_members(member), rule)
    return name in rule.besides and not (name in rule.wrappers and isinstance(member, list))


def _is_empty(value: Any, depth: int = _DEPTH) -> bool:
    if isinstance(value, dict | list) and depth:
        return all(_is_empty(member, depth - 1) for member in (value.values() if isinstance(value, dict) else value))
    return value is None or value == ""


def _message_kind(members: dict[str, Any], rule: Rule) -> str | None:
    found = [members[name] for name in members if name in rule.messages]
    if len(members) == 1 and isinstance(detail := members.get("detail"), dict) and detail:  # FastAPI, with an object
        inner = _members(detail)
        if inner.keys() <= rule.besides and inner.keys() & rule.messages:
            return _first_kind(inner.values(), rule) or "api_message"
    if any(_is_issue_list(member, rule) for member in members.values()):
        return "validation"
    return _first_kind(found, rule)


def _first_kind(values: Any, rule: Rule) -> str | None:
    """Return the kind of the first text that is an error; a list of texts counts if each of them is an error."""
    for value in values:
        if isinstance(value, str) and (kind := text_kind(value, rule)):
            return kind
        if isinstance(value, list) and value and all(isinstance(text, str) for text in value):
            kinds = [text_kind(text, rule) for text in value]
            if all(kinds):
                return kinds[0]
    return None


def _fields_of_a_form(members: dict[str, Any], rule: Rule) -> str | None:
    """Judge the answer of Rails and Django REST framework to a form: field -> list of messages, each an error."""
    lists = list(members.values())
    if lists and all(
        isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts) for texts in lists
    ):
        said = [text for texts in lists for text in texts]
        # A single word is not a message.
        kinds = [text_kind(text, rule) for text in said if " " in text or not text.isascii()]
        return kinds[0] if len(kinds) == len(said) and all(kinds) else None
    return None


def _is_issue_list(value: Any, rule: Rule) -> bool:
    """Return whether this is a validator's report: a list of objects, each with the keys of one of `issues`."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, dict) and _is_issue(item, rule) for item in value)
    )


def _is_issue(item: dict[Any, Any], rule: Rule) -> bool:
    members = _members(item)
    places = (members[name] for name in ("loc", "path") if name in members)
    return any(keys <= members.keys() for keys in rule.issues) and all(isinstance(place, list) for place in places)


def _tells(value: Any, when: str | frozenset[str], rule: Rule) -> bool:
    """Return whether a field's value meets the condition `when`."""
    if isinstance(when, frozenset):
        return isinstance(value, str) and value.strip().lower() in when
    if when == "content":
        return _has_content(value, rule, _DEPTH)
    if when == "problems":
        return _has_problems(value, rule)
    if when in ("flag", "no"):
        return _truth(value) is (when == "flag")
    if when == "class":
        return isinstance(value, str) and bool(_CLASS.fullmatch(value.strip()))
    number = whole_number(value)
    return number is not None and (number != 0 if when == "code" else 400 <= number <= 599)


_CLASS = re.compile(r"(?:[\w-]{1,60}[.#\\:/]{1,2}){0,8}(?:[A-Z]\w{0,60})?(?:Error|Exception|Fault)")


def _has_problems(value: Any, rule: Rule) -> bool:
    if isinstance(value, str):
        return _has_content(value, rule, _DEPTH)
    if isinstance(value, dict):  # field name -> its problem
        return bool(value) and all(
            _has_content(member, rule, 1)
            if isinstance(member, str)
            else isinstance(member, list) and _has_problems(member, rule)
            for member in value.values()
        )
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, str | dict) for item in value)
        and _has_content(value, rule, _DEPTH)
    )


def _has_content(value: Any, rule: Rule, depth: int) -> bool:
    if isinstance(value, str):
        return value.strip().rstrip(".").lower() not in rule.no_error and whole_number(value) != 0
    if isinstance(value, dict | list) and depth:
        members = value.values() if isinstance(value, dict) else value
        return any(_has_content(member, rule, depth - 1) or whole_number(member) for member in members)
    return value is True


def whole_number(value: Any) -> int | None:
    """Return a code written as a number or as digits. A measured error (`"error": 0.02`) is a float, not a code."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,9}\s*", value):
        return int(value)
    return None


def _first_text(value: Any) -> str:
    """Return the text in a field's value that is most like a message: the longest at the first level that has texts."""
    level = [value]
    for _ in range(3):
        texts = [member for member in level if isinstance(member, str)]
        if texts:
            return max(texts, key=len)
        level = [inner for member in level for inner in _inner(member)]
    return ""


def _inner(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


# XML and HTML --------------------------------------------------------------------------------------------------------


def _markup_kind(text: str, rule: Rule, depth: int) -> str | None:
    """Return the kind of error a text in markup is, "" if it is a result, None if it is not markup."""
    value = read_markup(text)
    if value is None:
        return None
    if _HTML.match(text):
        return next((kind for heading in _headings(value) if (kind := _heading_kind(heading, rule))), "")
    return value_kind(value, rule, depth) or ""


_HTML = re.compile(
    r"\s*(?:<!--.{0,500}?-->\s*)?<(?:!doctype html|(?:html|head|body|title|h1|center|p|div|pre)\b)",
    re.I | re.S,
)


def _headings(value: Any, depth: int = _DEPTH) -> Iterator[str]:
    """Yield the title and the headings of a page, or its text if it has neither."""
    if not isinstance(value, dict) or not depth:
        return
    for name, member in value.items():
        if name in ("title", "h1", "pre", "message"):
            yield _plain(member)
        elif isinstance(member, dict):
            yield from _headings(member, depth - 1)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(filter(None, map(_plain, value.values())))
    return " ".join(value.split()) if isinstance(value, str) else ""


def _heading_kind(heading: str, rule: Rule) -> str | None:
    return "http" if rule.page and rule.page.fullmatch(heading) else None
