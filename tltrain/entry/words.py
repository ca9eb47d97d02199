"""Report mistakes in the words of a command line, each in one line with the correct word.

They are found before anything is composed. Hydra's parser would only point at a character, and argparse would print its
usage.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any, NoReturn

from tltrain import config
from tltrain.config import reads
from tltrain.entry import program
from tltrain.errors import TltrainError, suggestion

ADDED = ("experiment", "recipe")
"""Groups of which none is chosen by default: `+experiment=NAME`."""
GROUPS = ("stage", *(group for group in reads.GROUPS if group != "mae"))
"""Groups for which `conf/config.yaml` always has a choice."""
_OPENING, _CLOSING = "“”„«»‘’‚", "“”„«»‘’‚"
_SPECIAL = "()[]{},=:;'\"$ \t\\#&|<>*?!~`%"
"""Characters with a meaning for Hydra or a shell."""


def check(words: Sequence[str]) -> None:
    """Raise a TltrainError for the first mistake.

    Args:
        words: the command line without the program.
    """
    overrides = _overrides(words)
    for at, word in enumerate(overrides):
        if "=" in word.lstrip("~"):
            _check_value(word, overrides[at + 1 :])
        else:
            _check_no_value(word, overrides[at - 1] if at else "", overrides[at + 1 :])
    _check_repeated(overrides)


def quoted(key: str, value: str) -> str:
    """Return the word that sets `key` to exactly this text, quoted for a shell and, if necessary, for Hydra."""
    plain = f"{key}={value}"
    if _parsed(plain) != value:
        escaped = re.sub(r'(\\*)"', r'\1\1\\"', value)  # Hydra halves only backslashes before a quote
        escaped += re.search(r"\\*$", escaped)[0]  # type: ignore[index]  # it matches the empty end too
        plain = f'{key}="{escaped}"'
    return shlex.quote(plain)


# --- flags ------------------------------------------------------------------------------------------------------------


def _overrides(words: Sequence[str]) -> list[str]:
    """Return the words that are neither flags nor values of flags."""
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    parser.allow_abbrev = False  # else --experiment would be read as --experimental-rerun
    parser.error = _refuse_flag  # type: ignore[method-assign]
    for at, word in enumerate(words):
        if word[:1] != "-" and _is_dash(word[:1]):
            _refuse_long_dash(word, {flag for action in parser._actions for flag in action.option_strings})
        if word == "--" and at:
            raise TltrainError("--: leave it out; every word that is not a flag is key=value")
    known, rest = parser.parse_known_args(list(words))
    for word in rest:
        if word.startswith("-"):
            at = list(words).index(word)
            _refuse_unknown_flag(word, words[at + 1] if at + 1 < len(words) else "")
    if rest:  # argparse only accepts consecutive words
        flags = [word for word in words if word not in (*known.overrides, *rest)]
        right = shlex.join([*flags, *known.overrides, *rest])
        raise TltrainError(f"{rest[0]} is separated from the other words by a flag: {program.name()} {right}")
    return list(known.overrides)


def _refuse_flag(message: str) -> NoReturn:
    raise TltrainError(f"{message}; `{program.name()} --help` lists flags, groups and choices")


def _is_dash(character: str) -> bool:
    return character == "\N{MINUS SIGN}" or (bool(character) and unicodedata.category(character) == "Pd")


def _refuse_long_dash(word: str, flags: set[str]) -> NoReturn:
    name = word.lstrip("".join(filter(_is_dash, word)))
    right = next((flag for flag in (f"-{name}", f"--{name}") if flag.partition("=")[0] in flags), name)
    raise TltrainError(f"{word} begins with {unicodedata.name(word[0]).lower()}, which is not a hyphen: {right}")


def _refuse_unknown_flag(word: str, after: str) -> NoReturn:
    name, _, value = word.lstrip("-").partition("=")
    if name.partition(".")[0] in (*config.keys_of(config.Config), *ADDED, "hydra"):
        typed = word
        if not value and after and "=" not in after and not after.startswith("-"):
            value, typed = after, f"{word} {after}"
        plus = "+" if name in ADDED else ""
        raise TltrainError(f"{typed}: choices and keys have no dashes: {plus}{name}={value or 'VALUE'}")
    from hydra._internal.utils import get_args_parser

    flags = [flag for action in get_args_parser()._actions for flag in action.option_strings]
    raise TltrainError(
        f"{word}: no such flag{suggestion(word, flags)}; `{program.name()} --help` lists flags, groups and choices"
    )


# --- words ------------------------------------------------------------------------------------------------------------


def _check_no_value(word: str, before: str, following: Sequence[str]) -> None:
    """Report a word without `=`, by its neighbours."""
    if word.startswith("~"):
        name = word.lstrip("~")
        if name in GROUPS:
            hint = f"; {name}=none records nothing" if name == "tracking" else ""
            raise TltrainError(f"{word}: a choice is required; {name}=CHOICE chooses another{hint}")
        return
    if following and following[0].startswith("="):
        typed = [word, *following[: 2 if following[0] == "=" else 1]]
        right = quoted(word, "".join(typed[1:])[1:] or "VALUE")
        raise TltrainError(f"{' '.join(typed)}: without spaces: {right}")
    name, colon, value = word.partition(":")
    if colon and value and name.lstrip("+").partition(".")[0] in config.keys_of(config.Config):
        raise TltrainError(f"{word}: expected key=value: {name}={value}")
    group = next((group for group in (*GROUPS, *ADDED) if word in _choices(group)), None)
    if group is not None:
        raise TltrainError(f"{word}: expected key=value: {'+' if group in ADDED else ''}{group}={word}")
    hint = ""
    if before.endswith("="):
        hint = f": without a space: {quoted(before[:-1], word)}"
    elif "=" in before:
        key, _, value = before.partition("=")
        hint = f"; if it belongs to {key}, whose value has a space: {quoted(key, f'{value} {word}')}"
    raise TltrainError(f"{word}: expected key=value{hint}")


def _check_value(word: str, following: Sequence[str]) -> None:
    """Report mistakes in a word with `=`, by the words after it."""
    key, _, value = word.partition("=")
    name = key.strip().lstrip("+").strip()
    if key != key.strip():
        raise TltrainError(f"{word}: without spaces: {quoted(key.strip(), value.strip())}")
    if not name:
        raise TltrainError(f"{word}: expected key=value without spaces, found nothing before =")
    if value.startswith("="):
        raise TltrainError(f"{word}: one = is enough: {quoted(key, value.lstrip('='))}")
    if not value and following and "=" not in following[0]:
        return  # the error of the next word names both
    if value[:1] and value[0] in _OPENING:
        right = quoted(key, value.strip(_OPENING + _CLOSING))
        raise TltrainError(f"{word}: the shell does not treat {value[0]} as a quotation mark: {right}")
    if key.startswith("~"):
        return
    if name in ADDED or name in GROUPS:
        _check_choice(key, name, value)
    elif name == "mae" or (value == "null" and re.fullmatch(r"hydra(/\w+)?|mae@[\w.]+", name)):
        group = "mae@mae.strict" if name == "mae" else name
        hint = "; stage.rule takes one of the two rules, mae.paper and mae.strict" if name == "mae" else ""
        raise TltrainError(f"{word}: expected a choice: {group}=NAME{hint}")
    if any(character in value for character in _SPECIAL):
        _check_syntax(word, key, value)


def _check_choice(key: str, group: str, value: str) -> None:
    """Report mistakes in the choice of a group."""
    added = group in ADDED
    right = f"+{group}" if added else group
    found = _parsed(f"{key}={value}")
    if not value or found is None:
        there = ", ".join(_choices(group))
        raise TltrainError(f"{key}={value}: expected a choice: {right}=NAME; there are: {there}")
    if isinstance(found, list) and not added:
        of = found[0] if len(found) == 1 else "CHOICE"
        several = f"; -m {right}={','.join(map(str, found))} runs them one after another" if len(found) > 1 else ""
        raise TltrainError(f"{key}={value}: expected one choice, without brackets: {right}={of}{several}")
    if key != right:
        why = f"no {group} is chosen by default" if added else "this replaces the default choice"
        raise TltrainError(f"{key}={value}: {right}={value} ({why})")


def _check_syntax(word: str, key: str, value: str) -> None:
    """Report what Hydra's grammar does not accept."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(word)
        return
    except HydraException:
        pass
    right = quoted(key, value)
    if value.endswith(",") and _parsed(bare := word.rstrip(",")) is not None:
        raise TltrainError(f"{word}: it ends with a comma: {shlex.quote(bare)}; with the comma: {right}")
    if value.startswith("~/"):
        raise TltrainError(f"{word}: the shell expands ~ only at the beginning of a word: {key}=$HOME{value[1:]}")
    for opening, closing in ("[]", "{}", "()"):
        if value.startswith(opening) and value.count(opening) > value.count(closing):
            closed = shlex.quote(word + closing * (value.count(opening) - value.count(closing)))
            raise TltrainError(f"{word}: expected key=value, found {opening} without {closing}: {closed}, or {right}")
    if value[0] in "'\"" and value.count(value[0]) % 2:
        bare = quoted(key, value.strip(value[0]))
        raise TltrainError(f"{word}: expected key=value, found an unpaired {value[0]}: {bare}, or {right}")
    found = " ".join(c for c in dict.fromkeys(value) if _parsed(f"{key}=a{c}a") is None)
    raise TltrainError(f"{word}: expected key=value, found {found or value[0]}, which must be quoted: {right}")


def _check_repeated(words: Sequence[str]) -> None:
    """Report a key with two values, of which Hydra would take the last."""
    given: dict[str, str] = {}
    for word in words:
        key, sign, value = word.partition("=")
        name = key.lstrip("+")
        if not sign or name.startswith("~"):
            continue
        if name in given and given[name] != value:
            raise TltrainError(f"{name} is given twice, as {given[name]} and as {value}: leave one of them out")
        given[name] = value


def ambiguous(word: str) -> str:
    """Return the message about several values outside a sweep."""
    key, _, value = word.partition("=")
    if key.lstrip("+") in (*GROUPS, *ADDED):
        return f"{word}: several choices need a sweep: {program.name()} -m {shlex.quote(word)}"
    return (
        f"{word}: several values need a sweep with -m; as one value: {quoted(key, value)}; as a list: "
        f"{shlex.quote(f'{key}=[{value}]')}"
    )


def _parsed(word: str) -> Any:
    """Return the value of a word as Hydra reads it, the word itself for a sweep; None if Hydra refuses it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import QuotedString
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:
        return None
    if override.is_sweep_override():
        return word
    value = override.value()
    return value.text if isinstance(value, QuotedString) else value


@cache
def _choices(group: str) -> tuple[str, ...]:
    return tuple(sorted(file.stem for file in (config.CONF_DIR / group).glob("*.yaml")))
