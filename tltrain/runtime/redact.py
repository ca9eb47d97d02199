"""Mask secrets (API keys, access tokens, passwords) in everything that a run writes or prints.

Secrets are recognized in two ways. By name: a key, a header, a URL or an option names a secret (`api_key`,
`Authorization`, `https://USER:PASSWORD@...`, `?token=`), or a value has a well-known form (`secret_words`). By value: a
learned value is masked wherever it occurs, also in the encodings of URLs, JSON, HTML and base64. Values are learned
from environment variables with such names (`HF_TOKEN`), from the command line (`begin`), from the composed
configuration including its references (`learn_config`), and from code that reads a secret elsewhere (`learn`).

Texts that describe a run are masked by name and value: command lines, configurations, settings of requests, errors,
logs (`text`, `container`). Results of a run (answers, tables, pages) are masked by value only (`known`, `known_in`),
since a parameter named `token` is data there. `runs.writing` and, after `begin`, the standard streams and Hydra's
record of a run are masked automatically.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import IO, Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import OmegaConfDumper, get_omega_conf_dumper

from tltrain import config as schemas
from tltrain.runtime import secret_words
from tltrain.runtime.secret_words import MASK, is_reference, names_secret

SHORTEST, SHORTEST_NUMBER = 6, 8
"""Minimum characters, or digits, of a value that is masked by value; shorter ones would occur in ordinary words."""
_WORDS = frozenset(
    ("changeme", "default", "disabled", "enabled", "optional", "password", "postgres", "private", "public", "required")
)
_WHO = ("user", "username", "name", "type", "id", "region", "host", "url", "email", "scope", "scheme")
"""Keys below `credentials` whose values are not secrets."""
_FIELDS = ("name", "key", "header")
_OVERRIDE = re.compile(r"(?P<key>[+~]{0,2}[A-Za-z_][\w.@/\[\]-]*)=(?P<value>.*)", re.DOTALL)
_learned: set[str] = set()

Hide = Callable[[str], str]

# --- learning ---------------------------------------------------------------------------------------------------------


def begin(words: Sequence[str] = ()) -> None:
    """Learn the secrets of a command line, forget those of an earlier one, and mask the standard streams."""
    _learned.clear()
    for word in words:
        learn_override(word)
    install()


def install() -> None:
    """Mask the standard streams of this process, and the YAML that Hydra writes."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None:
            setattr(sys, name, Stream(stream._file if isinstance(stream, Stream) else stream))
    OmegaConf.to_yaml = staticmethod(_to_yaml)  # type: ignore[method-assign]


def begin_job(cfg: DictConfig) -> None:
    """Learn the secrets of a job's configuration, and mask its logs under any logging configuration."""
    learn_config(cfg)
    for logger in (logging.getLogger(), logging.getLogger("tltrain")):
        for handler in logger.handlers:
            if not any(isinstance(each, Filter) for each in handler.filters):
                handler.addFilter(Filter())


def learn(value: str) -> None:
    """Mask a value, and the token after `Bearer` in it, from now on, unless it could be an ordinary word."""
    for each in secret_words.credentials(value):
        if not is_reference(each):
            _learned.add(each)


def learn_override(word: str) -> None:
    """Learn the secrets in a word of the command line: `+source.extra.api_key=VALUE`, a URL, a mapping."""
    for value in secret_words.in_text(word):
        learn(value)
    found = _OVERRIDE.fullmatch(word)
    if not found:
        return
    key, value = found["key"], found["value"].strip()
    parsed: Any = value
    if value[:1] in tuple("{['\"\\") or "," in value or "(" in value:
        try:
            from hydra.core.override_parser.overrides_parser import OverridesParser

            parsed = _parsed(OverridesParser.create().parse_override(word)._value)
        except Exception:  # a syntax error, whose message quotes parts of the word
            for piece in secret_words.pieces(f"{key.rpartition('.')[2]}={value} {value}"):
                learn(piece)
    if _names_secret(key, value):
        for leaf in _leaves(parsed):
            learn(leaf)
    elif isinstance(parsed, dict | list):
        _learn_in(parsed)


def _parsed(value: Any) -> Any:
    """Convert a value of Hydra's grammar to plain containers, the choices of a sweep to a list."""
    if hasattr(value, "list"):
        return [_parsed(each) for each in value.list]
    if isinstance(value, dict):
        return {str(getattr(key, "text", key)): _parsed(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_parsed(each) for each in value]
    return getattr(value, "text", value)


def learn_config(cfg: DictConfig) -> None:
    """Learn the values of a configuration's keys that name secrets, including the values they refer to."""
    _learn_in(OmegaConf.to_container(cfg, enum_to_str=True), cfg)


def _learn_in(node: Any, cfg: DictConfig | None = None) -> None:
    for path, value, secret in _walk(node):
        if secret and cfg is not None and "${" in value:
            with suppress(Exception):  # a dangling reference, which is reported elsewhere
                value = str(OmegaConf.select(cfg, path))
        for each in (value, *value.split(",")) if secret else ():  # `hydra.sweeper.params` has all values in one text
            learn(each.strip(" '\""))
        for found in secret_words.in_text(value):
            learn(found)
        if path.endswith("_env") and value in os.environ:
            learn(os.environ[value])


def _walk(node: Any, path: str = "", secret: bool = False) -> Iterator[tuple[str, str, bool]]:
    """Yield the path and text of each value, and whether it is a secret."""
    if isinstance(node, dict):
        for key, value in node.items():
            below = secret and str(key).lower() not in _WHO
            named = below or _is_secret(key, value) or (key == "value" and _labelled(node))
            yield from _walk(value, f"{path}.{key}" if path else str(key), named)
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _walk(value, f"{path}[{number}]", secret or _follows_name(node, number))
    elif isinstance(node, str) or (secret and isinstance(node, int | float) and not isinstance(node, bool)):
        yield path, str(node), secret


def _leaves(node: Any) -> Iterator[str]:
    return (value for _, value, _ in _walk(node, secret=True))


def _is_secret(key: Any, value: Any) -> bool:
    return not (value is None or isinstance(value, bool)) and names_secret(str(key), value)


def _names_secret(key: str, value: str) -> bool:
    """Return whether any part of `+source.extra.headers.authorization` names a secret."""
    words = re.split(r"[.@\[\]/]", key.lstrip("+~"))
    return any(names_secret(word) for word in words if word) or names_secret(words[-1], value)


def _labelled(node: dict[Any, Any]) -> bool:
    """Return whether a mapping has the form `{name: Authorization, value: ...}`."""
    return any(isinstance(node.get(field), str) and names_secret(node[field]) for field in _FIELDS)


def _follows_name(items: list[Any], number: int) -> bool:
    """Return whether the previous item names an item: `[Authorization, VALUE]`, `[..., --api-key, VALUE]`."""
    before = items[number - 1] if number else None
    if not isinstance(before, str) or not re.fullmatch(r"[A-Za-z][\w-]*|--[\w-]+", before):
        return False
    return names_secret(before) and (before.startswith("--") or (len(items) == 2 and not before.islower()))


# --- masking ----------------------------------------------------------------------------------------------------------


def text(words: str) -> str:
    """Mask a text that describes a run (an error, a log line) by name and by value."""
    return secret_words.masked(known(words))


def known(words: str) -> str:
    """Mask the known secret values in a text."""
    return _known()(words)


def command(words: Iterable[str]) -> list[str]:
    """Mask the words of a command line."""
    return container(list(words))


def container(node: Any) -> Any:
    """Mask plain containers that describe a run (a configuration, settings of a request) by name and by value."""
    return _container(node, _known())


def known_in(node: Any) -> Any:
    """Mask the known secret values in plain containers."""
    pattern = _pattern(_values())
    return node if pattern is None else _known_in(node, partial(pattern.sub, _unless_number))


def config(cfg: DictConfig) -> dict[str, Any]:
    """Return the resolved configuration as masked plain containers, enumerations by name."""
    learn_config(cfg)
    return container(OmegaConf.to_container(cfg, resolve=True, enum_to_str=True))


def _container(node: Any, hide: Hide) -> Any:
    if isinstance(node, dict):
        labelled = _labelled(node)
        return {
            hide(key) if isinstance(key, str) else key: _hidden(value)
            if _is_secret(key, value) or (labelled and key == "value")
            else _container(value, hide)
            for key, value in node.items()
        }
    if isinstance(node, list | tuple):
        items = list(node)
        return [_hidden(item) if _follows_name(items, i) else _container(item, hide) for i, item in enumerate(items)]
    return _override(node, hide) if isinstance(node, str) else node


def _known_in(node: Any, hide: Hide) -> Any:
    if isinstance(node, dict):
        return {hide(key) if isinstance(key, str) else key: _known_in(value, hide) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_known_in(item, hide) for item in node]
    return hide(node) if isinstance(node, str) else node


def _hidden(node: Any) -> Any:
    """Mask a secret, or all values in a container; `${oc.env:NAME}`, which only names its place, is kept."""
    if isinstance(node, dict):
        return {key: _hidden(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_hidden(item) for item in node]
    if node is None or isinstance(node, bool) or node == "" or (isinstance(node, str) and is_reference(node)):
        return node
    return secret_words.without_default(node) if isinstance(node, str) else MASK


def _override(word: str, hide: Hide) -> str:
    """Mask a string of a configuration, which may be an override: `+source.extra.headers={authorization: VALUE}`."""
    found = _OVERRIDE.fullmatch(word)
    if found and _names_secret(found["key"], found["value"]):
        return f"{found['key']}={_hidden(found['value'])}"
    return secret_words.masked(hide(word))


def _to_yaml(cfg: Any, *, resolve: bool = False, sort_keys: bool = False) -> str:
    """Do the same as `OmegaConf.to_yaml`, but without secrets; Hydra uses it for a run's files and `--cfg`."""
    plain = OmegaConf.to_container(cfg, resolve=resolve, enum_to_str=True) if OmegaConf.is_config(cfg) else cfg
    if isinstance(cfg, DictConfig):  # a launcher's process has not learned the secrets
        _learn_in(plain, cfg)
    masked = container(plain)
    if isinstance(masked, dict | list):
        return as_yaml(masked, sort_keys)
    return _yaml(masked, resolve=resolve, sort_keys=sort_keys)  # of a dataclass


_yaml = OmegaConf.to_yaml


class _Dumper(getattr(yaml, "CDumper", yaml.Dumper)):  # type: ignore[misc]
    """OmegaConf's dumper on libyaml, which is three times as fast; a run writes four files of YAML before it begins."""


_Dumper.add_representer(str, OmegaConfDumper.str_representer)


def as_yaml(plain: dict[Any, Any] | list[Any], sort_keys: bool = False) -> str:
    """Return plain containers as `OmegaConf.to_yaml` writes them."""
    # The two dumpers differ in what they escape, and libyaml refuses lone surrogates.
    words = repr(plain)
    dumper = _Dumper if words.isascii() and "\\" not in words else get_omega_conf_dumper()
    return yaml.dump(plain, default_flow_style=False, allow_unicode=True, sort_keys=sort_keys, Dumper=dumper)


class Stream:
    """A text stream that masks known values in what is written to it."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._hide, self._learned = _known(), len(_learned)

    def write(self, words: str) -> int:
        """Write text; returns its length, as callers expect."""
        if len(_learned) != self._learned:
            self._hide, self._learned = _known(), len(_learned)
        self._file.write(self._hide(words))
        return len(words)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of `lines`."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        if name == "_file":  # while a copy is being made
            raise AttributeError(name)
        return getattr(self._file, name)


class Filter(logging.Filter):
    """Masks secrets in the messages of a log handler, and in their tracebacks and stacks."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if (masked := text(message)) != message:
            record.msg, record.args = masked, ()
        if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
            record.exc_text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        if record.exc_text:
            record.exc_text = text(record.exc_text)
        if record.stack_info:
            record.stack_info = text(record.stack_info)
        return True


# --- what is known ----------------------------------------------------------------------------------------------------


def _known() -> Hide:
    """Return a function that masks the values known now."""
    pattern = _pattern(_values())
    return str if pattern is None else partial(pattern.sub, _unless_number)


def _values() -> frozenset[str]:
    """Return the learned values and those of the current environment."""
    found = set(_learned)
    for name, value in os.environ.items():
        if secret_words.variable_names_secret(name):
            found.add(value)
        elif "://" in value and "@" in value:  # a proxy, a database
            found.update(secret_words.in_urls(value))
    return frozenset(found)


@lru_cache(maxsize=8)
def _pattern(values: frozenset[str]) -> re.Pattern[str] | None:
    """Return a pattern of all encodings of the values that are not ordinary words, longer ones first."""
    forms = {form for value in values if _distinct(value) for form in secret_words.forms(value)}
    found = sorted((form for form in forms if len(form) >= SHORTEST), key=lambda form: (-len(form), form))
    return re.compile("|".join(map(_exact, found))) if found else None


def _exact(form: str) -> str:
    return rf"(?<!\d)(?<!\d\.){form}(?!\.?\d)" if form.isdecimal() else re.escape(form)


def _unless_number(found: re.Match[str]) -> str:
    """Return the mask, but keep a number in JSON, where the key decides."""
    if found[0].isdecimal():
        before, behind = found.string[: found.start()].rstrip()[-1:], found.string[found.end() :].lstrip()[:1]
        if before in tuple(":[,") and behind in tuple(",]}"):
            return found[0]
    return MASK


@cache
def _distinct(value: str) -> bool:
    """Return whether a value can be told from words of ordinary texts."""
    if len(value) < (SHORTEST_NUMBER if value.isdecimal() else SHORTEST) or is_reference(value):
        return False
    if value.startswith(("/", "./", "../", "~")) and Path(value).expanduser().exists():
        return False
    return value.lower() not in _vocabulary()


@cache
def _vocabulary() -> frozenset[str]:
    """Return the words of our own configuration, which must stay readable in files and reports, and placeholders."""
    files = schemas.CONF_DIR.rglob("*.yaml")
    keys = (key for schema in schemas.SCHEMAS.values() for key in schemas.keys_of(schema))
    return frozenset({*_WORDS, *schemas.STAGES, *keys, *(file.stem for file in files)})
