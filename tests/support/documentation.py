"""The content of the repository's documents: text, links, anchors, code blocks, and documented commands."""

from __future__ import annotations

import ast
import inspect
import io
import re
import shlex
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.support.paths import ROOT
from tltrain.config import CONF_DIR

GENERATED = ROOT / "docs" / "configuration"
"""Pages that the documentation build writes and that are not in the repository."""
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "experiments/README.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if not page.is_relative_to(GENERATED)),
]
SOURCES = [
    *sorted(CONF_DIR.rglob("*.yaml")),
    *sorted((ROOT / "examples").rglob("*.yaml")),
    *sorted((ROOT / "tltrain").rglob("*.py")),
    *(file for file in sorted((ROOT / "experiments").rglob("*")) if file.suffix in (".py", ".sh")),
]
"""Files other than pages that document commands."""

_FENCED = re.compile(r"^( *)```(\S*).*?\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^()\s]+)\)")
_PROGRAM = re.compile(r"(?:tltrain|.*(?:-m|--module) tltrain)((?: .*)?)")


def code_blocks(text: str, language: str) -> list[str]:
    """Return the fenced code blocks of a language."""
    return [block for _, found, block in _FENCED.findall(text) if found == language]


def prose(text: str) -> str:
    """Return the text without fenced code, indented code and code spans."""
    text = re.sub(r"^(?: {4}).*$", "", _FENCED.sub("", text), flags=re.MULTILINE)
    return re.sub(r"`[^`]*`", "`code`", text)


def links(page: Path) -> list[str]:
    """Return the targets of all links and pictures except web addresses."""
    targets = _LINK.findall(prose(page.read_text(encoding="utf-8")))
    return [target for target in targets if not re.match(r"https?://|mailto:", target)]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub and the site give to a page's headings."""
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#{1,6} +(.*?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def code_lines(file: Path) -> Iterator[str]:
    """Yield a file's lines of code: a page's code and code spans, a YAML file's comments and help text, the indented
    lines of a Python file's docstring, or all lines of a script.
    """
    text = re.sub(r" *\\\n *#? *", " ", file.read_text(encoding="utf-8"))
    if file.suffix == ".py":
        yield from (line.strip() for line in _docstring(text).splitlines() if line.startswith("    "))
    elif file.suffix == ".sh":
        variables = re.sub(r"\$(\w+)", r"\1", text.replace('"', ""))
        yield from (line.strip() for line in variables.splitlines() if not line.startswith("#"))
    elif file.suffix == ".yaml":
        yield from (line.strip().removeprefix("#").strip() for line in text.splitlines())
    else:
        indented = re.findall(r"^ {4}.*$", text, re.MULTILINE)
        fenced = [line for _, _, block in _FENCED.findall(text) for line in block.splitlines()]
        spans = re.findall(r"`([^`]+)`", _FENCED.sub("", re.sub(r"^ {4}.*$", "", text, flags=re.MULTILINE)))
        yield from (line.strip() for line in [*indented, *fenced, *spans])


def _docstring(text: str) -> str:
    """Return a module's docstring; parsing all of every module takes a second."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.STRING:
            return inspect.cleandoc(ast.literal_eval(token.string))
        if token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE):
            break
    return ""


def commands(file: Path) -> Iterator[str]:
    """Yield the words after `tltrain` in the commands of a file."""
    for line in code_lines(file):
        command = re.split(r" {2,}| #", line)[0]  # without the trailing comment
        if (found := _PROGRAM.fullmatch(command)) and (not found[1] or "=" in found[1] or "--" in found[1]):
            yield found[1].strip()


@cache
def documented_commands() -> dict[str, str]:
    """Return the commands of the pages, of `conf/`, of docstrings and of scripts, each with a file that has it.

    A command whose words all occur in another command is left out: it is right if the other one is.
    """
    found: dict[str, str] = {}
    for file in [*PAGES, *SOURCES]:
        for command in commands(file):
            found.setdefault(command, str(file.relative_to(ROOT)))
    words = {command: set(filled_in(command)) for command in found}
    longest: list[str] = []
    for command in sorted(found, key=lambda command: -len(words[command])):
        if not any(words[command] <= words[longer] for longer in longest):
            longest.append(command)
    return {command: found[command] for command in longest}


def filled_in(command: str) -> list[str]:
    """Return the words of a command with FOLDER, TIME, NAME and the like filled in, without flags for output."""
    command = re.sub(r"\$\w+", "1", re.sub(r"\[[^\]=]+=[^\]]*\]", "", command))
    command = re.sub(r"\b(stage|data|benchmark|experiment)=NAME\b", _first_choice, command)
    command = re.sub(r"(?:outputs|out)/[\w/]+/model\b", "FOLDER", command)  # a model's folder must exist
    command = command.replace("stage=stage", "stage=pkt").replace("data=...", "data=toolworld")
    command = re.sub(r"((?:\bpaths\.\w+|\bpath|\.dir|\.url)=)[^\s\[]\S*", r"\1FOLDER", command)  # any name will do
    words = [re.sub(r"=\.\.\.$", "=FOLDER", word) for word in shlex.split(command)]
    at = words.index("--cfg") if "--cfg" in words else len(words)
    return [word for word in words[:at] + words[at + 2 :] if word not in ("...", "-m", "--multirun")]


def _first_choice(found: re.Match[str]) -> str:
    return f"{found[1]}={min((CONF_DIR / found[1]).glob('*.yaml')).stem}"
