"""Layering: packages form layers, and imports run downward. Read from the imports themselves."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.support.floors import FLOORS
from tests.support.paths import ROOT

FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}


def files() -> dict[str, Path]:
    """Return the file of every module of the package, by dotted name."""
    found = {}
    for file in sorted((ROOT / "tltrain").rglob("*.py")):
        parts = list(file.relative_to(ROOT).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


@cache
def modules() -> dict[str, ast.Module]:
    """Return the parsed source of every module of the package, by dotted name."""
    return {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in files().items()}


def imports(name: str) -> set[str]:
    """Return the modules of the package that module `name` imports anywhere, including those for type checkers."""
    found = set()
    for node in ast.walk(modules()[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            if node.module:
                found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {module for module in found if module in modules() and module not in ("tltrain", name)}


def room(module: str) -> str:
    """Return the file or package directly below `tltrain` that contains a module."""
    return module.split(".")[1]


NAMES = sorted(name for name in files() if name != "tltrain")


def test_every_package_has_a_layer():
    assert {room(name) for name in NAMES} == set(FLOOR_OF)


@pytest.mark.parametrize("name", NAMES)
def test_imports_run_downward(name):
    upward = {
        module
        for module in imports(name)
        if room(module) != room(name) and FLOOR_OF[room(module)] >= FLOOR_OF[room(name)]
    }
    assert not upward


def test_no_import_cycles():
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"circle: {' -> '.join([*path[path.index(name) :], name])}"
        if name in done:
            return
        for module in imports(name):
            if not name.startswith(f"{module}."):  # a package whose own module imports names from it
                visit(module, (*path, name))
        done.add(name)

    for name in NAMES:
        visit(name, ())


@pytest.mark.parametrize("words", [["--help"], ["--cfg", "job"], ["stage=pkt", "model=tiny", "--cfg", "job"]])
def test_help_and_composition_load_no_torch(words):
    code = (
        "import sys\n"
        f"sys.argv = ['tltrain', *{words!r}]\n"
        "from tltrain.__main__ import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    heavy = {'torch', 'transformers', 'trl', 'deepspeed', 'matplotlib'} & set(sys.modules)\n"
        "    assert not heavy, heavy\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


TEST_FILES = sorted(file.relative_to(ROOT).as_posix() for file in (ROOT / "tests").rglob("*.py"))
BORROWED = re.compile(r"(from|import)\s+tests(\.\w+)*(\.| import \(?)(test_\w+|conftest)\b")


@pytest.mark.parametrize("file", TEST_FILES)
def test_shared_test_code_is_in_support_or_in_a_conftest(file):
    """No file imports from a test module or a conftest, not even in code inside a string."""
    assert not [found[0] for found in BORROWED.finditer((ROOT / file).read_text(encoding="utf-8"))]


def test_support_holds_no_tests():
    assert not [file for file in TEST_FILES if file.startswith("tests/support/") and "/test_" in file]


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Return the names of a function's parameters without `self`, `cls`, `*args` and `**kwargs`."""
    declared = function.args
    found = [argument.arg for argument in (*declared.posonlyargs, *declared.args, *declared.kwonlyargs)]
    return found[1:] if found[:1] in (["self"], ["cls"]) else found


def test_no_function_has_more_than_seven_parameters():
    """Parameters that belong together form a dataclass."""
    long = {
        f"{name}.{node.name}": parameters(node)
        for name in NAMES
        for node in ast.walk(modules()[name])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and len(parameters(node)) > 7
    }
    assert not long
