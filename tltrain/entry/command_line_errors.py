"""Turn composition errors of Hydra, OmegaConf and YAML into one line that names the key and the remedy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hydra.errors import OverrideParseException
from omegaconf import OmegaConf
from yaml import MarkedYAMLError

from tltrain import config
from tltrain.entry import program, words
from tltrain.errors import suggestion

_LISTED = 12
"""Most keys that a message lists."""
_THOUSANDS = {"k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}
_BELOW_NULL = "Unexpected type for root"
"""OmegaConf's assertion for a key below a mapping that is null."""


def of_composition(error: AssertionError) -> bool:
    """Return whether an assertion failed because of the composed configuration, and not because of a bug."""
    return _BELOW_NULL in str(error)


def one_line(error: BaseException, typed: Sequence[str] = ()) -> str:
    """Return a composition error of Hydra, OmegaConf or YAML as one line that names the key and the remedy.

    Args:
        typed: the words of the command line.
    """
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:  # OmegaConf's chains may be circular
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    texts = [str(link) for link in chain]
    text = "\n".join(texts)
    if isinstance(error, AssertionError):
        return _below_null(typed)
    if isinstance(error, OverrideParseException):
        problem = texts[0].partition("\nSee https")[0].splitlines()[-1].partition(" expecting {")[0]
        return f"{error.override}: expected key=value, found: {problem}"
    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        return f"{mark.name}, line {mark.line + 1}: expected YAML, found: {error.problem}" if mark else str(error)
    if found := re.search(r"Additional config directory '(?P<folder>[^']*)' not found", text):
        what = "is not a folder" if Path(found["folder"]).exists() else "does not exist"
        return f"--config-dir: {found['folder']} {what}"
    if found := re.search(r"In '(?P<file>[^']+)': Could not load '(?P<choice>[^']+)'", text):
        choices = [*config.SCHEMAS, *(_choice(file) for file in config.CONF_DIR.glob("*/**/*.yaml"))]
        near = suggestion(found["choice"], choices)
        return f"{found['file']}.yaml: defaults: there is no {found['choice']}{near}"
    if found := re.search(r"In '(?P<file>[^']+)': ConfigKeyError.*\n?.*\n\s*full_key: (?P<key>\S+)", text):
        if (conflict := _conflict(found["file"], found["key"], typed)) is not None:
            return conflict
        return f"{found['file']}.yaml: {found['key']}: no such key{_near_key(found['key'])}"
    if found := re.search(r"Ambiguous value for argument '(?P<word>.*)'$", text, re.MULTILINE):
        return words.ambiguous(found["word"])
    if found := re.search(r"Could not find '(?P<group>\w+)/(?P<choice>[^']+)'", text):
        choices = re.findall(r"^\t(\S+)$", text, re.MULTILINE)
        near = suggestion(found["choice"].lower(), choices)
        return f"{found['group']}={found['choice']}: no such choice{near}; there are: {', '.join(choices)}"
    if found := re.search(r"An item is already at '(?P<key>[^']+)'", text):
        return f"{found['key']}: this key exists already, so leave out the +: {found['key']}=VALUE"
    if found := re.search(r"(?:Could not override|Could not append to config.*) '(?P<key>[^']+)'", text):
        return f"{found['key']}: no such key{_near_key(found['key'])}; see `{program.name()} --cfg job`"
    if found := re.search(r"(?P<what>(?:Value|Invalid value|Cannot|field ).*)\n\s*full_key: (?P<key>\S+)", text):
        given = re.search(r"^Error merging override [^=\n]*=(.*)$", text, re.MULTILINE)
        return f"{found['key']}: {wrong_type(found['what'], given[1] if given else '')}"
    return " ".join(texts[0].split())


def wrong_type(what: str, given: str = "") -> str:
    """Reword OmegaConf's message about a value of the wrong type, with the expected type.

    Args:
        given: the value as typed, if OmegaConf's message does not contain it.
    """
    pattern = r"Value '(?P<value>.*)' of type '\w+' could not be converted to (?P<type>Integer|Float)"
    if found := re.search(pattern, what):
        kind = "a whole number" if found["type"] == "Integer" else "a number"
        unit = re.fullmatch(r"(?P<number>[-+]?[\d_]*\.?\d+) ?(?P<unit>[a-zA-Z%]+)", found["value"])
        hint = f"; write it without a unit: {_without_unit(unit)}" if unit else ""
        if found["value"].startswith("["):
            hint = f"; several values are a sweep, without brackets: -m KEY={found['value'][1:-1].replace(' ', '')}"
        return f"expected {kind}, found {found['value']}{hint}"
    if found := re.search(r"Value '(?P<value>.*)' is not a valid bool", what):
        return f"expected true or false, found {found['value']}"
    if "is not Optional" in what:
        return "expected a value, found null"
    if given and re.match(r"Cannot assign \w+ to Dict|Cannot merge DictConfig with ListConfig", what):
        return f"expected a mapping, found {given}"
    if given and re.match(r"Cannot assign \w+ to List|Cannot merge ListConfig with DictConfig", what):
        return f"expected a list, found {given}"
    return what


def _without_unit(found: re.Match[str]) -> str:
    """Return the number in `80GB`; write out the digits of `10k`."""
    factor = _THOUSANDS.get(found["unit"].lower())
    return found["number"] if factor is None else f"{float(found['number']) * factor:.0f}"


def _choice(file: Path) -> str:
    """Return a file of `conf/` as a defaults list names it: `model/tiny`."""
    return file.relative_to(config.CONF_DIR).with_suffix("").as_posix()


def _below_null(typed: Sequence[str]) -> str:
    """Return the line for a key below a mapping that is null: `model.random` of most models."""
    keys = [word.lstrip("+").partition("=")[0] for word in typed]
    key = next((key for key in keys if key.startswith("model.random.")), "model.random")
    return f"{key}: the chosen model has no random weights; model=tiny has"


def _conflict(file: str, key: str, typed: Sequence[str]) -> str | None:
    """Return the line for an experiment with a stage for which it was not written; None if it was written for it.

    Args:
        key: the key that the file sets and the typed stage lacks.
    """
    if not file.startswith("experiment/") or not key.startswith("stage."):
        return None
    chosen = dict(word.split("=", 1) for word in typed if "=" in word)
    place = next((folder for folder in _folders(typed) if (folder / f"{file}.yaml").is_file()), None)
    stated = {} if place is None else config.plain(config.merged(OmegaConf.load(place / f"{file}.yaml")), resolve=False)
    overridden = {
        key: own for each in stated.get("defaults", []) if isinstance(each, dict) for key, own in each.items()
    }
    own, stage = overridden.get("override /stage"), chosen.get("stage")
    if (
        own not in config.STAGES
        or stage in (None, own)
        or key.split(".")[1] not in config.keys_of(config.stage_schema(own))
    ):
        return None
    experiment = f"+experiment={file.removeprefix('experiment/')}"
    return (
        f"{experiment} is for stage={own} and sets {key}, which stage={stage} does not have: leave out stage={stage} "
        f"or {experiment}"
    )


def _folders(typed: Sequence[str]) -> list[Path]:
    """Return the folders of choices: the user's `--config-dir`, then ours."""
    own = []
    for word, following in zip(typed, [*typed[1:], ""], strict=True):
        flag, _, value = word.partition("=")
        if flag in ("--config-dir", "-cd"):
            own.append(Path(value or following))
    return [*own, config.CONF_DIR]


def _near_key(key: str) -> str:
    """Suggest a key for a misspelt `node.key`: one with a similar name, or one whose meaning begins with the word."""
    where, _, name = key.rpartition(".")
    if "@" in key:
        return f"; {key.partition('@')[0]}=CHOICE chooses, without @"
    if where == "stage":
        having = [stage for stage in config.STAGES if name in config.keys_of(config.stage_schema(stage))]
        if having:
            return f"; it is a key of {', '.join(f'stage={stage}' for stage in having)}"
    known = {each: found for schema in _schemas_at(where) for each, found in config.keys_of(schema).items()}
    if near := suggestion(name, sorted(known)):
        return near
    meant = [each for each, found in known.items() if re.match(rf"{re.escape(name)}\b", found.meaning, re.IGNORECASE)]
    if len(meant) == 1:
        return f"; did you mean {f'{where}.' if where else ''}{meant[0]}?"
    return f"; there are: {', '.join(known)}" if where and 0 < len(known) <= _LISTED else ""


def _schemas_at(where: str) -> list[type]:
    """Return the schemas of a node such as `model.lora`; "" is the root."""
    group, *below = where.split(".") if where else ["config"]
    found = [schema for place, schema in config.SCHEMAS.items() if place.split("/")[1] == group]
    found += [known.schema for name, known in config.keys_of(config.Config).items() if name == group and known.schema]
    for name in below:
        nested = [config.keys_of(schema).get(name) for schema in found]
        found = [known.schema for known in nested if known is not None and known.schema is not None]
    return list(dict.fromkeys(found))
