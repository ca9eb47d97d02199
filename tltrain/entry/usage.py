"""The text of `--help`: the program's own page, or the keys of the choices that the command line names."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from omegaconf import OmegaConf

from tltrain import config
from tltrain.entry import program
from tltrain.runtime import own_code


def text(words: Sequence[str]) -> str:
    """Return the help for a command line: for each choice that it names, such as `stage=pkt`, or for the program.

    Raises:
        HydraException, OmegaConfBaseException: there is no such choice.
    """
    own = own_folders(words)
    whole = "\n".join([page(), *_listed(own)])
    if not any("=" in word and not word.startswith("-") for word in words):
        return whole
    from tltrain.entry import reference  # imported late, so that the page appears at once

    named: dict[str, list[str]] = {}
    for word in words:
        group, _, names = word.lstrip("+").partition("=")
        if group in reference.GROUPS and names:
            named[group] = names.split(",")  # a sweep names several
    return "\n".join(_choices(named, own)) if named else whole


def page() -> str:
    """Return Hydra's `--help` page; Hydra itself would first search all groups, which takes half a second."""
    stated = OmegaConf.load(config.CONF_DIR / "hydra" / "help" / "tltrain.yaml")
    whole = OmegaConf.create({"hydra": {"help": stated}})
    return whole.hydra.help.template.replace("python -m tltrain", program.name())


def _config_dir(words: Sequence[str]) -> Path | None:
    """Return the folder of Hydra's `--config-dir`."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        flag, _, value = word.partition("=")
        if flag in ("--config-dir", "-cd"):
            return Path(value or following).absolute()
    return None


def own_folders(words: Sequence[str]) -> list[Path]:
    """Return the folders of choices other than ours: `--config-dir`, and those of installed packages."""
    named = _config_dir(words)
    return [*own_code.of_plugins(), *([] if named is None else [named])]


def _listed(folders: Sequence[Path]) -> Iterator[str]:
    """Yield the choices in each of these folders, with the first line of the comment at the top of each file."""
    for folder in folders:
        files = sorted(file for file in folder.glob("*/*.yaml") if file.is_file())
        if files:
            yield f"  Choices of {folder}"
        for file in files:
            first = file.read_text(encoding="utf-8").partition("\n")[0]
            said = first.removeprefix("#").strip() if first.startswith("# ") and "@package" not in first else ""
            key = "stage.rule" if file.parent.name == "mae" else file.parent.name
            name = f"{key}={file.stem}"
            yield f"    {name:<24}{said}".rstrip()
        if files:
            yield ""


def _choices(named: dict[str, list[str]], folders: Sequence[Path]) -> Iterator[str]:
    """Yield the lines that explain the choices, with a single composition if each group has only one choice."""
    from tltrain.entry import reference

    own_code.find(folders)
    first = {group: names[0] for group, names in named.items()}
    search = [f"hydra.searchpath={[f'file://{folder}' for folder in folders]!r}"] if folders else []
    for group, names in named.items():
        for name in names:
            cfg = reference.composed(first | {group: name}, search)
            having = [folder for folder in folders if (folder / group / f"{name}.yaml").is_file()]
            own = having[-1] if having else config.CONF_DIR
            choice = reference.choice_of(cfg, group, name, own)
            yield f"{group}={name}"
            yield from (f"  {line.replace('python -m tltrain', program.name())}" for line in choice.comment)
            yield ""
            yield from _keys(choice.rows)
            yield from ([f"  {choice.reads}"] if choice.reads else [])
            yield ""
    words = " ".join(f"{group}={name}" for group, name in first.items())
    yield f"{program.name()} {words} --cfg job prints the whole configuration, {program.name()} --help the groups;"
    yield "each of their choices has a help like this: model=tiny --help, data=rotbench --help, ..."


def _keys(rows: Sequence) -> Iterator[str]:
    width = min(shutil.get_terminal_size().columns, 120)
    for row in rows:
        said = f"{row.key}={row.default}" if row.default not in ("", "not set") else row.key
        kind = "; ".join(filter(None, (row.type, row.range)))
        yield from textwrap.wrap(
            f"{said:<40}  {kind}",
            width,
            initial_indent="  ",
            subsequent_indent=" " * 8,
            break_long_words=False,
            break_on_hyphens=False,
            drop_whitespace=True,
            replace_whitespace=False,
        )
        yield from textwrap.wrap(row.meaning, width, initial_indent=" " * 6, subsequent_indent=" " * 6)
