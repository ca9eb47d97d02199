"""Composition errors of Hydra, OmegaConf and YAML in one line that names the key and what would be right."""

from __future__ import annotations

import re
from pathlib import Path

from hydra.errors import OverrideParseException
from yaml import MarkedYAMLError

from tltrain import config
from tltrain.entry import arguments, program


def one_line(error: BaseException) -> str:
    """A composition error of Hydra, OmegaConf or YAML in one line that names the key and what would be right."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:  # OmegaConf's chains may be circular
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    texts = [str(link) for link in chain]
    text = "\n".join(texts)
    if isinstance(error, OverrideParseException):
        problem = texts[0].partition("\nSee https")[0].splitlines()[-1].partition(" expecting {")[0]
        return f"{error.override}: expected key=value, found: {problem}"
    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        return f"{mark.name}, line {mark.line + 1}: expected YAML, found: {error.problem}" if mark else str(error)
    if found := re.search(r"Additional config directory '(?P<folder>[^']*)' not found", text):
        what = "is no folder" if Path(found["folder"]).exists() else "does not exist"
        return f"--config-dir: {found['folder']} {what}"
    if found := re.search(r"In '(?P<file>[^']+)': Could not load '(?P<choice>[^']+)'", text):
        choices = [*config.SCHEMAS, *(_choice(file) for file in config.CONF_DIR.glob("*/**/*.yaml"))]
        near = arguments.suggestion(found["choice"], choices)
        return f"{found['file']}.yaml: defaults: there is no {found['choice']}{near}"
    if found := re.search(r"In '(?P<file>[^']+)': ConfigKeyError.*\n?.*\n\s*full_key: (?P<key>\S+)", text):
        return f"{found['file']}.yaml: {found['key']}: no such key{_near_key(found['key'])}"
    if found := re.search(r"Could not find '(?P<group>\w+)/(?P<choice>[^']+)'", text):
        choices = re.findall(r"^\t(\S+)$", text, re.MULTILINE)
        return f"{found['group']}={found['choice']}: no such choice; there are: {', '.join(choices)}"
    if found := re.search(r"(?:Could not override|Could not append to config.*) '(?P<key>[^']+)'", text):
        return f"{found['key']}: no such key{_near_key(found['key'])}; see `{program.name()} --cfg job`"
    if found := re.search(r"(?P<what>(?:Value|Invalid value|Cannot).*)\n\s*full_key: (?P<key>\S+)", text):
        return f"{found['key']}: {found['what']}"
    return " ".join(texts[0].split())


def _choice(file: Path) -> str:
    """A file of `conf/` as a defaults list names it: `model/tiny`."""
    return file.relative_to(config.CONF_DIR).with_suffix("").as_posix()


def _near_key(key: str) -> str:
    """A suggestion for a misspelt `node.key`, from the schemas."""
    node, _, name = key.rpartition(".")
    fields = {
        f
        for place, schema in config.SCHEMAS.items()
        if place.split("/")[1] == (node or "config")
        for f in config.keys_of(schema)
    }
    return arguments.suggestion(name, sorted(fields))
