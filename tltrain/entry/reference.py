"""The configuration reference: every key of every choice with its type, default, range and meaning.

`rows` reads the dataclasses of `tltrain.config` and a composed configuration. `markdown` makes pages for the
documentation from them, and `tltrain.entry.usage` makes what `stage=pkt --help` prints. Nothing here loads torch.
"""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tltrain import config
from tltrain.config import reads
from tltrain.entry import choices
from tltrain.entry.arguments import ARGUMENTS, library_fields
from tltrain.runtime import targets
from tltrain.training.arguments import IRM_ARGUMENTS

GROUPS = ("stage", "model", "format", "data", "weighting", "benchmark", "source", "hardware", "tracking", "reward")
"""The groups whose choices have keys that a schema explains."""
VERBATIM = {
    "experiment": "Sweeps that end in a report: `+experiment=NAME`.",
    "recipe": "Settings of a training by the GPU there is: `+recipe=NAME`.",
    "mae": "Rules that say which tool answers are errors; `stage.rule` chooses one.",
}
"""Folders of `conf/` whose files are shown verbatim, and what they contain."""


@dataclass(frozen=True)
class Row:
    """One key: `default` is its value in the choice, `origin` the interpolation from which the value comes."""

    key: str
    type: str
    default: str
    range: str
    meaning: str
    origin: str = ""


@dataclass(frozen=True)
class Choice:
    """A choice of a group: the comment at the top of its file, its keys, and for a stage what it reads."""

    group: str
    name: str
    comment: tuple[str, ...]
    rows: tuple[Row, ...]
    reads: str = ""


# --- reading the schemas and conf/ ------------------------------------------------------------------------------------


def names_of(group: str) -> list[str]:
    """Return the choices of a group."""
    return sorted(file.stem for file in (config.CONF_DIR / group).glob("*.yaml"))


def comment_of(file: Path) -> tuple[str, ...]:
    """Return the lines of the comment at the top of a file, without their `# `."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").removeprefix(" "))
    return tuple(line for line in lines if not line.startswith("@package"))


def schema_of(cfg: DictConfig, group: str) -> type:
    """Return the schema of a group in a composed configuration."""
    if group == "stage":
        return config.stage_schema(cfg.stage.name)
    if group in config.CHOICES:
        return choices.schema_of(group, cfg[group])
    return config.SCHEMAS[f"schema/{group}"]


def choice_of(cfg: DictConfig, group: str, name: str, folder: Path = config.CONF_DIR) -> Choice:
    """Return a choice, from a configuration that was composed with it.

    Args:
        folder: the folder with the choice's file; if the file is not there, the choice has no comment.
    """
    file = folder / group / f"{name}.yaml"
    comment = comment_of(file) if file.is_file() else ()
    if group in config.CHOICES and cfg[group].get(targets.TARGET) is not None:  # its schema lacks keys
        cfg[group] = choices.bound(group, OmegaConf.masked_copy(cfg[group], list(cfg[group])), name)
    own = tuple(rows(cfg[group], schema_of(cfg, group), group))
    return Choice(group, name, comment, own, read_by(cfg.stage.name) if group == "stage" else "")


def read_by(stage: str) -> str:
    """Return a sentence about the groups whose keys a stage reads."""
    groups = reads.groups_of(stage)
    return f"Reads the keys of {', '.join(groups)}." if groups else "Reads the keys of no other group."


def rows(node: DictConfig | None, schema: type, where: str = "") -> Iterator[Row]:
    """Yield a row for each key in and below `schema`, with the values of `node` (None: not set)."""
    hints = typing.get_type_hints(schema)
    for name, known in config.keys_of(schema).items():
        key = f"{where}.{name}" if where else name
        value, origin = _value(node, name)
        only = " or ".join(f"{other}={','.join(values)}" for other, values in known.only.items())
        meaning = f"{known.meaning}; only {only}" if only else known.meaning
        kind = _either([word for each in known.types for word in _words(each)]) if known.types else ""
        row = Row(key, kind or _type_words(hints[name]), _text(value), _range(known), meaning, origin)
        if known.schema is not None:
            yield replace(row, type="mapping", default="")
            yield from rows(value if isinstance(value, DictConfig) else None, known.schema, key)
        elif known.library is not None:
            yield from _library_rows(row, node, known.library, value)
        elif isinstance(value, DictConfig):
            yield replace(row, type="mapping", default="" if value else "{}")
            yield from _open_rows(value, key)
        else:
            yield row


def _value(node: DictConfig | None, name: str) -> tuple[Any, str]:
    """Return the value of a key, `...` if it has none, and the interpolation from which it comes, if any."""
    if node is None or name not in node or OmegaConf.is_missing(node, name):
        return ..., ""
    if not OmegaConf.is_interpolation(node, name):
        return node[name], ""
    origin = config.plain(node, resolve=False)[name]
    try:
        return node[name], origin
    except OmegaConfBaseException:  # it refers to a key of another choice
        return origin, ""


def _library_rows(row: Row, node: DictConfig | None, library: str, value: Any) -> Iterator[Row]:
    """Yield a row for the node of a library's arguments, and one for each argument with a value."""
    if library == "algorithm":
        kind = IRM_ARGUMENTS["ppo" if node is None else node.algorithm.name]
        named = ", ".join(f"{name}: {kind}" for name, kind in IRM_ARGUMENTS.items())
        yield replace(row, type=f"arguments of the class of stage.algorithm ({named})", default="")
    else:
        kind = library
        yield replace(row, type=f"arguments of {kind}", default="")
    fields = library_fields(ARGUMENTS[kind])
    for each in _open_rows(value, row.key) if isinstance(value, DictConfig) else ():
        name = each.key.removeprefix(f"{row.key}.").partition(".")[0]
        yield replace(each, type=fields.get(name, each.type).replace(" | ", " or ").replace("None", "null"))


def _open_rows(node: DictConfig, where: str) -> Iterator[Row]:
    """Yield a row for each value in a node without a schema."""
    for name in map(str, node):
        key = f"{where}.{name}"
        value, origin = _value(node, name)
        if isinstance(value, DictConfig):
            yield from _open_rows(value, key)
        else:
            yield Row(key, _type_words(type(value)), _text(value), "", "", origin)


def _type_words(hint: Any) -> str:
    """Return a type annotation in words: `int or null`, `strict or lenient`, `list of str`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _either([word for each in arguments for word in _words(each)])
    return _either(_words(hint)) if origin is None else _words(hint)[0]


def _words(hint: Any) -> list[str]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is list:
        return ["list" if arguments[0] is Any else f"list of {_type_words(arguments[0])}"]
    if origin is dict or hint is DictConfig:
        return ["mapping"]
    if hint is type(None):
        return ["null"]
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return [member.name for member in hint]
    return ["any"] if hint is Any or not isinstance(hint, type) else [hint.__name__.replace("ListConfig", "list")]


def _either(words: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _range(known: config.Key) -> str:
    if known.among:
        return _either([str(each).lower() for each in known.among])
    return str(known.bounds).removeprefix("a number ") if known.bounds else ""


def _text(value: Any) -> str:
    """Return a value as it is written on the command line."""
    if value is ...:
        return "not set"
    if isinstance(value, enum.Enum):
        return value.name
    plain = OmegaConf.to_container(value, resolve=True, enum_to_str=True) if OmegaConf.is_config(value) else value
    return yaml.safe_dump(plain, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")


# --- composing --------------------------------------------------------------------------------------------------------


def composed(chosen: Mapping[str, str], overrides: Sequence[str] = ()) -> DictConfig:
    """Return the configuration with these choices of groups.

    Raises:
        HydraException, OmegaConfBaseException: there is no such choice.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    config.register()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config.CONF_DIR), version_base="1.3", job_name="tltrain"):
            return compose("config", [*(f"{group}={name}" for group, name in chosen.items()), *overrides])
    finally:
        GlobalHydra.instance().clear()


@cache
def all_choices() -> dict[str, list[Choice]]:
    """Map each group to its choices. One composition serves one choice of each of several groups, as long as no value
    depends on another group's choice; stages depend on the model.
    """
    found: dict[str, list[Choice]] = {group: [] for group in GROUPS}
    others = [group for group in GROUPS if group != "model"]
    rounds = [dict(zip(others, names, strict=True)) for names in zip_longest(*map(names_of, others))]
    for chosen in (*rounds, *({"model": name} for name in names_of("model"))):
        given = {group: name for group, name in chosen.items() if name is not None}
        cfg = composed(given)
        for group, name in given.items():
            found[group].append(choice_of(cfg, group, name))
    return found


# --- Markdown ---------------------------------------------------------------------------------------------------------


def markdown() -> dict[str, str]:
    """Return the reference as Markdown pages: file name -> text. `index.md` links to the others beside it."""
    pages = {"index.md": _index()}
    for group, members in all_choices().items():
        meaning = config.keys_of(config.Config)[group].meaning
        sections = [f"# {group}", f"{_sentence(meaning)} `{group}=CHOICE` chooses; a heading below is a choice."]
        pages[f"{group}.md"] = _page([*sections, *(part for choice in members for part in _section(choice))])
    for folder, meaning in VERBATIM.items():
        pages[f"{folder}.md"] = _page([f"# {folder}", meaning, *_files(folder)])
    return pages


def _index() -> str:
    root = config.keys_of(config.Config)
    nodes = {name: known for name, known in root.items() if name not in (*GROUPS, *VERBATIM)}
    cfg = composed({})
    own = [row for row in rows(cfg, config.Config) if row.key.partition(".")[0] in nodes]
    groups = [(f"[{group}]({group}.md)", _cell(root[group].meaning), _codes(names_of(group))) for group in GROUPS]
    groups += [(f"[{folder}]({folder}.md)", _cell(text), _codes(names_of(folder))) for folder, text in VERBATIM.items()]
    return _page(
        [
            "# Configuration reference",
            "Every key can be set on the command line as `KEY=VALUE`, and every group's choice as `GROUP=CHOICE`. "
            "`tltrain stage=pkt --help` prints the keys of a choice, and `tltrain stage=pkt --cfg job` the whole "
            "configuration. This reference is generated from the dataclasses in `tltrain/config/` and the files in "
            "`conf/`.",
            "## Groups",
            _table(("Group", "Meaning", "Choices"), groups),
            "## Keys outside of groups",
            _key_table(own),
        ]
    )


def _section(choice: Choice) -> list[str]:
    return [f"## {choice.name}", *_comment(choice.comment), _key_table(choice.rows), *filter(None, [choice.reads])]


def _files(folder: str) -> Iterator[str]:
    for name in names_of(folder):
        file = config.CONF_DIR / folder / f"{name}.yaml"
        text = file.read_text(encoding="utf-8").splitlines()
        yield f"## {name}"
        yield from _comment(comment_of(file))
        body = "\n".join(text[next(at for at, line in enumerate(text) if not line.startswith("#")) :]).strip("\n")
        yield f"```yaml\n{body}\n```"


def _comment(lines: Sequence[str]) -> list[str]:
    """Return a file's comment as Markdown: commands and indented lines as code, the rest as paragraphs."""
    parts: list[tuple[bool, list[str]]] = []
    for line in lines:
        line = line.replace("python -m tltrain", "tltrain")
        code = line.startswith(("tltrain", "  "))
        if not parts or parts[-1][0] != code:
            parts.append((code, []))
        parts[-1][1].append(line.strip())
    return ["```text\n" + "\n".join(text) + "\n```" if code else _escaped(" ".join(text)) for code, text in parts]


def _key_table(rows: Sequence[Row]) -> str:
    cells = [
        (
            f"`{row.key}`",
            _cell(row.type),
            f"{_code(row.default)} ({_code(row.origin)})" if row.origin else _code(row.default),
            _cell(row.range),
            _cell(row.meaning),
        )
        for row in rows
    ]
    return _table(("Key", "Type", "Default", "Range", "Meaning"), cells)


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def _page(parts: Sequence[str]) -> str:
    return "\n\n".join(parts) + "\n"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;")


def _cell(text: str) -> str:
    return _escaped(text).replace("|", "\\|")


def _code(text: str) -> str:
    """Return a text as code, with `|` escaped, which would end a table cell."""
    return "not set" if text == "not set" else f"`{text}`".replace("|", "\\|") if text else ""


def _codes(words: Sequence[str]) -> str:
    return ", ".join(map(_code, words))
