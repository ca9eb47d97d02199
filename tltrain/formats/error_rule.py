"""Rules that say which tool answers are errors, read from files of `conf/mae/`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tltrain.errors import TltrainError

FLAGGED = "flagged"
"""The kind of an error that a flag alone reports, without further information."""


@dataclass(frozen=True)
class Pattern:
    """A pattern of one kind of error: a normalized substring (`text`), or regular expressions by their position.

    `starts` matches at the beginning of the text, `whole` its whole first line, `ends` at the beginning of its last
    line, `lines` at the beginning of any line. `latin`: False for a language whose script has no ASCII letters; it is
    not tried on ASCII texts.
    """

    kind: str
    text: str = ""
    starts: re.Pattern[str] | None = None
    whole: re.Pattern[str] | None = None
    ends: re.Pattern[str] | None = None
    lines: re.Pattern[str] | None = None
    latin: bool = True


@dataclass(frozen=True)
class Field:
    """Keys of a structured answer whose value reports an error; strict_rule.yaml documents the attributes."""

    kind: str
    keys: frozenset[str]
    when: str | frozenset[str]
    bare: bool
    items: bool
    beside: frozenset[str]


@dataclass(frozen=True, eq=False)
class Rule:
    """A rule that says which answers are errors, made by `from_config`; compared by identity, for fast hashing."""

    match: str
    patterns: tuple[Pattern, ...]
    function: Callable[[str, bool | None], str | None] | None = None
    """The user's own function, which decides instead: `(answer, is_error)` -> kind of error."""
    prefixes: re.Pattern[str] | None = None
    explains: re.Pattern[str] | None = None
    exit_status: re.Pattern[str] | None = None
    page: re.Pattern[str] | None = None
    flags: frozenset[str] = frozenset()
    exit_codes: frozenset[str] = frozenset()
    fields: tuple[Field, ...] = ()
    issues: tuple[frozenset[str], ...] = ()
    no_error: frozenset[str] = frozenset()
    messages: frozenset[str] = frozenset()
    wrappers: frozenset[str] = frozenset()
    besides: frozenset[str] = frozenset()
    """Keys that hold no result: those of `fields`, `messages`, `wrappers` and the file's `about`."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Rule:
        """Make the rule that a file of conf/mae/ describes (the head of strict_rule.yaml documents the keys).

        Raises:
            TltrainError: a key is missing or unknown, or an expression cannot be compiled.
        """
        config = with_tables(config)
        match = config.get("match")
        if match == "normalized_substring":
            _check_keys(config, "mae rule", required={"match", "patterns"})
            return cls(match, _substring_patterns(config["patterns"]))
        if match == "structure":
            return _structure_rule(config)
        raise TltrainError(f"mae rule: match: expected normalized_substring or structure, found {match!r}")


def with_tables(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a file of conf/mae/ merged with the tables that it names; its own keys take precedence.

    The tables are not in the composed configuration, which every command reads and every run stores.

    Raises:
        TltrainError: there are no tables of this name.
    """
    if "tables" not in config:
        return config
    file = tables_file(config)
    if not file.is_file():
        raise TltrainError(f"mae rule: tables: expected strict_rule, found {config['tables']}")
    return {**_tables(file), **{name: value for name, value in config.items() if name != "tables"}}


def tables_file(config: Mapping[str, Any]) -> Path:
    """Return the file of the tables that a file of conf/mae/ names."""
    return Path(__file__).with_name(f"{Path(str(config['tables'])).name}.yaml")


@cache
def _tables(file: Path) -> Mapping[str, Any]:
    return yaml.load(file.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def normalize(text: str) -> str:
    """Normalize a text as the released rule does before it compares."""
    # Stripped first, which removes a Kelvin sign; lowering first would make it a k.
    return _STRIPPED.sub("", text).lower()


_STRIPPED = re.compile(r"[^a-zA-Z0-9^\u4e00-\u9fa5]+")


def key(name: object) -> str:
    """Normalize a key: errorMessage, error_message and "Error Message" become equal."""
    return re.sub(r"[\W\d_]+", "", str(name)).lower()


def _substring_patterns(entries: list[Mapping[str, str]]) -> tuple[Pattern, ...]:
    """Make the patterns, longest first: the first match decides the kind, and the longest is the most specific."""
    for entry in entries:
        _check_keys(entry, "mae rule: patterns", required={"kind", "text"})
    patterns = [Pattern(entry["kind"], text=normalize(entry["text"])) for entry in entries]
    if any(not pattern.text for pattern in patterns):
        raise TltrainError("mae rule: patterns: expected a text with a letter or digit, found one that occurs anywhere")
    return tuple(sorted(patterns, key=lambda pattern: -len(pattern.text)))


_STRUCTURE_KEYS = {
    "match", "flags", "exit_codes", "fields", "issues", "no_error", "messages", "about", "wrappers",
    "terms", "prefixes", "explains", "exit_status", "page", "patterns", "languages",
}  # fmt: skip
_ANCHORS = ("starts", "whole", "ends", "lines")


def _structure_rule(config: Mapping[str, Any]) -> Rule:
    _check_keys(config, "mae rule", required=_STRUCTURE_KEYS)
    terms = _terms(config["terms"])
    for entry in config["fields"]:
        _check_keys(entry, "mae rule: fields", required={"kind", "keys", "when"}, optional={"bare", "items", "beside"})
    fields = tuple(map(_field, config["fields"]))
    messages, wrappers, about, flags, exit_codes = (
        frozenset(map(key, config[part])) for part in ("messages", "wrappers", "about", "flags", "exit_codes")
    )
    return Rule(
        match="structure",
        patterns=(
            *(_pattern(entry, terms) for entry in config["patterns"]),
            *(_language(entry, terms) for entry in config["languages"]),
        ),
        prefixes=_any_of(config["prefixes"], "prefixes", terms),
        explains=_any_of(config["explains"], "explains", terms),
        exit_status=_any_of(config["exit_status"], "exit_status", terms),
        page=_any_of(config["page"], "page", terms),
        flags=flags,
        exit_codes=exit_codes,
        fields=fields,
        issues=tuple(frozenset(map(key, keys)) for keys in config["issues"]),
        no_error=frozenset(config["no_error"]),
        messages=messages,
        wrappers=wrappers,
        besides=messages | wrappers | about | flags | exit_codes | {name for field in fields for name in field.keys},
    )


def _field(entry: Mapping[str, Any]) -> Field:
    when = entry["when"]
    words = ("content", "problems", "code", "http", "flag", "no", "class")
    if isinstance(when, str) and when not in words:
        raise TltrainError(f"mae rule: fields: when: expected {', '.join(words)} or a list of words, found {when}")
    return Field(
        kind=entry["kind"],
        keys=frozenset(map(key, entry["keys"])),
        when=when if isinstance(when, str) else frozenset(when),
        bare=entry.get("bare", False),
        items=entry.get("items", False),
        beside=frozenset(map(key, entry.get("beside", ()))),
    )


def _pattern(entry: Mapping[str, str], terms: Mapping[str, str]) -> Pattern:
    _check_keys(entry, "mae rule: patterns", required={"kind"}, optional=set(_ANCHORS))
    where = f"patterns: {entry['kind']}"
    starts, whole, ends, lines = (_any_of(entry.get(at), f"{where}: {at}", terms) for at in _ANCHORS)
    return Pattern(entry["kind"], starts=starts, whole=whole, ends=ends, lines=lines)


def _language(entry: Mapping[str, str], terms: Mapping[str, str]) -> Pattern:
    """Make the pattern of one language.

    The word for an error matches alone or before a colon, `begins` at the beginning, `ends` as the predicate of the
    first sentence. `results` are words for the results of a search: an empty search result is not an error.
    """
    _check_keys(entry, "mae rule: languages", required={"language", "error", "begins", "ends", "results"})
    error, begins, ends, results = (
        "|".join(filter(None, map(str.strip, entry[part].splitlines())))
        for part in ("error", "begins", "ends", "results")
    )
    nothing_found = f"(?!.{{0,40}}(?:{results}))"
    latin = re.search("[a-z]", error) is not None
    word = r"\b" if latin else ""  # scripts without spaces have no word boundaries
    expressions = [
        rf"(?:{error})(?:\s?[:：!！].*)?",
        rf"{nothing_found}(?:{begins})\w{{0,8}}(?:{{{{boundary}}}}.*)?",
        rf"{nothing_found}.{{0,120}}?{word}(?:{ends}){{{{sentence_end}}}}",
    ]
    whole = _any_of("\n".join(expressions), f"languages: {entry['language']}", terms)
    return Pattern("api_message", whole=whole, latin=latin)


def _terms(entries: Mapping[str, str]) -> dict[str, str]:
    """Return named parts of expressions; `{{name}}` in a part refers to an earlier part."""
    terms: dict[str, str] = {}
    for name, expression in entries.items():
        alternatives = [_filled(line.strip(), terms) for line in expression.splitlines() if line.strip()]
        terms[name] = f"(?:{'|'.join(alternatives)})"
    return terms


def _filled(expression: str, terms: Mapping[str, str]) -> str:
    for name, part in terms.items():
        expression = expression.replace(f"{{{{{name}}}}}", part)
    return expression


def _check_keys(
    config: Mapping[str, Any], where: str, required: set[str], optional: set[str] | frozenset[str] = frozenset()
) -> None:
    wrong = [f"{name} is missing" for name in sorted(required - set(config))]
    wrong += [f"{name} is unknown" for name in sorted(set(config) - required - optional)]
    if wrong:
        raise TltrainError(f"{where}: {', '.join(wrong)} (expected {', '.join(sorted(required | optional))})")


@cache
def _compiled(expression: str) -> re.Pattern[str]:
    """Compile a rule's expression. The cache of `re` holds only 512, and compiling those of `strict` takes 0.7 s."""
    return re.compile(expression, re.IGNORECASE)


def _any_of(lines: str | None, where: str, terms: Mapping[str, str]) -> re.Pattern[str] | None:
    """Compile the alternatives, one per line, into one expression; lines that begin with `# ` are comments."""
    expressions = [_filled(line, terms) for line in (lines or "").splitlines() if not line.startswith("# ")]
    if not expressions:
        return None
    try:
        return _compiled("|".join(f"(?:{expression})" for expression in expressions))
    except re.error:
        for expression in expressions:  # find the invalid one
            try:
                re.compile(expression, re.IGNORECASE)
            except re.error as error:
                raise TltrainError(f"mae rule: {where}: {expression!r} is not a regular expression: {error}") from None
        raise
