"""Whether a tool's answer is an error, and of which kind.

A `Rule` is data in `conf/mae/`: `paper` is the released rule of TL-Training (arXiv 2412.15495), `strict` ours. An
answer is text from a stranger: it is matched and parsed, never evaluated, no text makes any function here raise, and
the cost is linear in its length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tltrain.errors import TltrainError
from tltrain.formats.answers import read_structure


def error_kind(answer: str, rule: Rule) -> str | None:
    """The kind of error that a tool's answer is under `rule`, None if it is none."""
    return _substring_kind(answer, rule) if rule.match == "normalized_substring" else _structure_kind(answer, rule)


# A rule is data ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pattern:
    """Texts that show one kind of error: a normalised substring (`text`), or how an answer begins or is as a whole."""

    kind: str
    text: str = ""
    starts: re.Pattern[str] | None = None
    whole: re.Pattern[str] | None = None


@dataclass(frozen=True)
class Field:
    """Keys of a structured answer whose value tells an error; `when`, `bare` and `items` as in conf/mae/strict.yaml."""

    kind: str
    keys: frozenset[str]
    when: str | frozenset[str]
    bare: bool
    items: bool


@dataclass(frozen=True)
class Rule:
    """What counts as an error. Build it with `from_config`."""

    match: str
    patterns: tuple[Pattern, ...]
    prefixes: re.Pattern[str] | None = None
    fields: tuple[Field, ...] = ()
    no_error: frozenset[str] = frozenset()
    messages: frozenset[str] = frozenset()
    wrappers: frozenset[str] = frozenset()
    besides: frozenset[str] = frozenset()
    """Keys that hold no result: those of `fields`, `messages`, `wrappers` and the file's `about`."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Rule:
        """The rule that a file of conf/mae/ describes (the head of strict.yaml documents the keys).

        Raises:
            TltrainError: a key is missing or unknown, or an expression cannot be compiled.
        """
        match = config.get("match")
        if match == "normalized_substring":
            _check_keys(config, "mae rule", required={"match", "patterns"})
            return cls(match, _substring_patterns(config["patterns"]))
        if match == "structure":
            return _structure_rule(config)
        raise TltrainError(f"mae rule: match: expected normalized_substring or structure, found {match!r}")


def _substring_patterns(entries: list[Mapping[str, str]]) -> tuple[Pattern, ...]:
    """The patterns, longest first: which one matches decides the kind alone, and the longest says most."""
    for entry in entries:
        _check_keys(entry, "mae rule: patterns", required={"kind", "text"})
    patterns = [Pattern(entry["kind"], text=_normalize(entry["text"])) for entry in entries]
    if any(not pattern.text for pattern in patterns):
        raise TltrainError("mae rule: patterns: expected a text with a letter or digit, found one that occurs anywhere")
    return tuple(sorted(patterns, key=lambda pattern: -len(pattern.text)))


def _structure_rule(config: Mapping[str, Any]) -> Rule:
    keys = {"match", "fields", "no_error", "messages", "about", "wrappers", "prefixes", "patterns"}
    _check_keys(config, "mae rule", required=keys)
    fields, patterns = [], []
    for entry in config["fields"]:
        _check_keys(entry, "mae rule: fields", required={"kind", "keys", "when"}, optional={"bare", "items"})
        fields.append(_field(entry))
    for entry in config["patterns"]:
        _check_keys(entry, "mae rule: patterns", required={"kind"}, optional={"starts", "whole"})
        starts, whole = (_any_of(entry.get(part), f"patterns: {entry['kind']}: {part}") for part in ("starts", "whole"))
        patterns.append(Pattern(entry["kind"], starts=starts, whole=whole))
    messages, wrappers, about = (frozenset(map(_key, config[part])) for part in ("messages", "wrappers", "about"))
    return Rule(
        match="structure",
        patterns=tuple(patterns),
        prefixes=_any_of(config["prefixes"], "prefixes"),
        fields=tuple(fields),
        no_error=frozenset(config["no_error"]),
        messages=messages,
        wrappers=wrappers,
        besides=messages | wrappers | about | {key for field in fields for key in field.keys},
    )


def _field(entry: Mapping[str, Any]) -> Field:
    when = entry["when"]
    if isinstance(when, str) and when not in ("content", "code", "http", "no"):
        raise TltrainError(f"mae rule: fields: when: expected content, code, http, no or a list of words, found {when}")
    return Field(
        kind=entry["kind"],
        keys=frozenset(map(_key, entry["keys"])),
        when=when if isinstance(when, str) else frozenset(when),
        bare=entry.get("bare", False),
        items=entry.get("items", False),
    )


def _check_keys(
    config: Mapping[str, Any], where: str, required: set[str], optional: set[str] | frozenset[str] = frozenset()
) -> None:
    wrong = [f"{key} is missing" for key in sorted(required - set(config))]
    wrong += [f"{key} is unknown" for key in sorted(set(config) - required - optional)]
    if wrong:
        raise TltrainError(f"{where}: {', '.join(wrong)} (expected {', '.join(sorted(required | optional))})")


def _any_of(lines: str | None, where: str) -> re.Pattern[str] | None:
    """One compiled expression that matches where any of these, one a line, does."""
    if not lines:
        return None
    expressions = lines.splitlines()
    for expression in expressions:
        try:
            re.compile(expression, re.IGNORECASE)
        except re.error as error:
            raise TltrainError(f"mae rule: {where}: {expression!r} is no regular expression: {error}") from None
    return re.compile("|".join(f"(?:{expression})" for expression in expressions), re.IGNORECASE)


# The released rule ---------------------------------------------------------------------------------------------------

_STRIPPED = re.compile(r"[^a-zA-Z0-9^\u4e00-\u9fa5]+")


def _normalize(text: str) -> str:
    # Stripped first: a Kelvin sign goes, where lowering first would make it a k.
    return _STRIPPED.sub("", text).lower()


def _substring_kind(answer: str, rule: Rule) -> str | None:
    normalized = _normalize(answer)
    return next((pattern.kind for pattern in rule.patterns if pattern.text in normalized), None)


# An answer read as structure -----------------------------------------------------------------------------------------

_MESSAGE_LENGTH = 1000  # a text longer than this is no error message, though it may begin like one
_DEPTH = 8  # how far wrappers, and structures written inside a text, are followed


def _structure_kind(answer: str, rule: Rule, depth: int = _DEPTH) -> str | None:
    text = answer.strip()
    if depth and text.startswith(("{", "[", '"')):
        value, exact = read_structure(text)
        kind = _value_kind(value, rule, depth - 1)
        if exact or kind:
            return kind
    return _text_kind(text, rule)


def _value_kind(value: Any, rule: Rule, depth: int) -> str | None:
    """The kind of error a parsed answer is: an object by its fields, a list if each object in it is an error."""
    if isinstance(value, str):
        return _structure_kind(value, rule, depth)
    if depth and isinstance(value, dict):
        return _object_kind(value, rule, depth)
    if isinstance(value, list) and value:
        kinds = [_item_kind(item, rule) for item in value]
        return kinds[0] if all(kinds) else None
    return None


def _item_kind(item: Any, rule: Rule) -> str | None:
    if not isinstance(item, dict):
        return None
    return _fields_kind({_key(key): value for key, value in item.items()}, rule, items=True)


def _object_kind(value: dict[Any, Any], rule: Rule, depth: int) -> str | None:
    members = {_key(key): member for key, member in value.items()}
    kind = _fields_kind(members, rule)
    if kind:
        return kind
    bare = _is_bare(members, rule)
    for key, member in members.items():
        # A text beside a result is content, such as a note's; it says how the call went only where it stands alone.
        if key in rule.wrappers and (bare or not isinstance(member, str)):
            kind = _value_kind(member, rule, depth - 1)
            if kind:
                return kind
    return _message_kind(members, rule) if bare else None


def _fields_kind(members: dict[str, Any], rule: Rule, items: bool = False) -> str | None:
    for field in rule.fields:
        if items and not field.items:
            continue
        for key, member in members.items():
            if key in field.keys and _tells(member, field.when, rule) and (not field.bare or _is_bare(members, rule)):
                # The field says that it is an error, the message which.
                return _text_kind(_first_text(member), rule) or _message_kind(members, rule) or field.kind
    return None


def _is_bare(members: dict[str, Any], rule: Rule) -> bool:
    """Whether an object holds no result: every member is empty or has a key that `besides` names."""
    return all(key in rule.besides or member in (None, "", [], {}) for key, member in members.items())


def _message_kind(members: dict[str, Any], rule: Rule) -> str | None:
    texts = (members[key] for key in members if key in rule.messages)
    return next((kind for text in texts if isinstance(text, str) and (kind := _text_kind(text, rule))), None)


def _tells(value: Any, when: str | frozenset[str], rule: Rule) -> bool:
    """Whether a field's value is what `when` asks for."""
    if isinstance(when, frozenset):
        return isinstance(value, str) and value.strip().lower() in when
    if when == "content":
        return _has_content(value, rule, _DEPTH)
    if when == "no":
        return value is False or (isinstance(value, str) and value.strip().lower() == "false")
    number = _whole_number(value)
    return number is not None and (number != 0 if when == "code" else 400 <= number <= 599)


def _has_content(value: Any, rule: Rule, depth: int) -> bool:
    if isinstance(value, str):
        return value.strip().rstrip(".").lower() not in rule.no_error and _whole_number(value) != 0
    if isinstance(value, dict | list) and depth:
        members = value.values() if isinstance(value, dict) else value
        return any(_has_content(member, rule, depth - 1) or _whole_number(member) for member in members)
    return value is True


def _whole_number(value: Any) -> int | None:
    """A code, written as a number or as digits. A measured error (`"error": 0.02`) is a float, and no code."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,9}\s*", value):
        return int(value)
    return None


def _first_text(value: Any) -> str:
    """The first text in a field's value, looking two levels down."""
    level = [value]
    for _ in range(3):
        text = next((member for member in level if isinstance(member, str)), None)
        if text is not None:
            return text
        level = [inner for member in level for inner in _members(member)]
    return ""


def _members(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _key(name: object) -> str:
    """A key without case and separators: errorMessage, error_message and "Error Message" are one."""
    return re.sub(r"[\W\d_]+", "", str(name)).lower()


# An answer read as text ----------------------------------------------------------------------------------------------


def _text_kind(text: str, rule: Rule) -> str | None:
    text = text.strip()
    messages = _peeled(text[:_MESSAGE_LENGTH], rule)
    if text.startswith("Traceback (most recent call last)"):  # its last line says what happened
        messages = _peeled(text[-_MESSAGE_LENGTH:].rpartition("\n")[2], rule) + messages
    for message in messages:
        for pattern in rule.patterns:
            if pattern.starts and pattern.starts.match(message):
                return pattern.kind
            if pattern.whole and len(text) <= _MESSAGE_LENGTH and pattern.whole.fullmatch(message.rstrip(".! ")):
                return pattern.kind
    return None


def _peeled(message: str, rule: Rule) -> list[str]:
    """The message without its prefixes ("Error: TypeError: ..."), then with one more each, up to all of it."""
    messages = [message]
    while len(messages) < 4 and rule.prefixes and (prefix := rule.prefixes.match(messages[0])):
        messages.insert(0, message := message[prefix.end() :])
    return messages
