"""Find the source files that determine a stage's result, from the code's own imports, and compute a digest of them.

A stage's result depends on the modules that its code can reach: imports anywhere in a module (those inside functions
too), modules named by a string (`"tltrain.stages.supervised:run"`, `resolver`), and scripts beside a module that it
starts in a process of their own (`"sandbox_child.py"`). Modules that only show or track what a stage does are not
followed: editing them does not invalidate a stage. Comments and layout do not count; docstrings do, because those of
toolworld's tools are the tools' documentation, which models read.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

PACKAGE = Path(__file__).parents[1]
WITHOUT_EFFECT = (
    "tltrain.config",  # shapes and documents the configuration, whose values are in a fingerprint themselves
    "tltrain.plan",  # announces memory and time
    "tltrain.report",
    "tltrain.runtime.advice",
    "tltrain.runtime.durations",
    "tltrain.runtime.source_digest",
    "tltrain.runtime.terminal",
    "tltrain.sweeps",  # decides what is built again, not its result
    "tltrain.tracking",
    "tltrain.views",
)
"""Modules and packages that show, track and document; they determine no number of a result."""

_NAMED = re.compile(r"tltrain(?:\.\w+)+(?=$|:)")
_SCRIPT = re.compile(r"\w+\.py")


def reached(roots: Iterable[str]) -> frozenset[str]:
    """Return the names of the package's modules that the modules `roots` can load, including themselves."""
    files = _modules()
    found: set[str] = set()
    waiting = [name for root in roots for name in _with_packages(root, files)]
    while waiting:
        name = waiting.pop()
        if name not in found and not is_without_effect(name):
            found.add(name)
            mentioned = _source(name, files[name]).names & files.keys()
            waiting.extend(module for name in mentioned for module in _with_packages(name, files))
    return frozenset(found)


def digest(roots: Iterable[str], configuration: Any = None) -> str:
    """Return 16 hexadecimal digits for the code behind a stage.

    Args:
        roots: modules in which the stage begins.
        configuration: plain values; each `_target_` in them names an object that the stage uses, whose module counts
            too, wherever it comes from.
    """
    inside, outside = set(roots), {}
    for name in targets(configuration):
        if name.split(".")[0] == PACKAGE.name:
            inside.add(name)
        elif file := _file_outside(name):
            outside[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    files = _modules()
    code = {name: _source(name, files[name]).digest for name in sorted(reached(inside))}
    return hashlib.sha256(repr((sorted(code.items()), sorted(outside.items()))).encode()).hexdigest()[:16]


def targets(configuration: Any) -> set[str]:
    """Return the modules that `_target_` keys name, at any depth."""
    if isinstance(configuration, Mapping):
        nested = set().union(*map(targets, configuration.values()))
        target = configuration.get("_target_")
        return nested | ({_module_of(target)} if isinstance(target, str) else set())
    if isinstance(configuration, list | tuple):
        return set().union(*map(targets, configuration))
    return set()


def _module_of(target: str) -> str:
    """Return the module in `package.module.Class` or `package.module:Class`."""
    return target.partition(":")[0] if ":" in target else target.rpartition(".")[0]


def _file_outside(module: str) -> Path | None:
    """Return the source file of another package's module; None for a missing or a compiled module."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin is not None and Path(spec.origin).is_file() else None


def is_without_effect(name: str) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in WITHOUT_EFFECT)


def _modules() -> dict[str, Path]:
    """Return the file of each module of this package."""
    found = {}
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def _with_packages(name: str, files: Mapping[str, Path]) -> Iterator[str]:
    """Yield a module and its parent packages, whose `__init__` runs first; nothing if there is no such module."""
    if name in files:
        parts = name.split(".")
        yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))


class _Source(NamedTuple):
    """A source file: a digest without comments and layout, and the dotted names that it imports or mentions."""

    digest: str
    names: frozenset[str]


def _source(name: str, path: Path) -> _Source:
    stat = path.stat()
    return _read(path, name, stat.st_size, stat.st_mtime_ns)


@cache
def _read(path: Path, name: str, size: int, mtime_ns: int) -> _Source:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in _running(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names |= _named(node.value, name)
    return _Source(hashlib.sha256(ast.dump(tree).encode()).hexdigest(), frozenset(names))


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a module, except those under `if TYPE_CHECKING`, which never run, and docstrings."""
    body = getattr(node, "body", None)
    if isinstance(body, list) and body and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
        first = body[0]
        docstring = first if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) else None
    else:
        docstring = None
    for child in ast.iter_child_nodes(node):
        if child is docstring:
            continue
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        yield child
        yield from _running(child)


def _named(text: str, where: str) -> set[str]:
    """Return the module that a string names by its dotted name, or as a script beside the module `where`."""
    if dotted := _NAMED.match(text):
        return {dotted[0]}
    return {f"{where.rpartition('.')[0]}.{text[:-3]}"} if _SCRIPT.fullmatch(text) else set()
