"""The Berkeley function calling leaderboard's single-turn sets (BFCL), as the package `bfcl-eval` ships them.

    data/BFCL_v4_{category}.json           a question per line: {"id", "question": [[message, ...]], "function": [...]}
    data/possible_answer/                  {"id", "ground_truth": [{name: {parameter: [accepted value, ...]}}, ...]}
    data/unused_datasets/question/         BFCL_v4_exec_*.json: the executable sets of BFCL v3, the paper's 240
    data/unused_datasets/possible_answer/  {"id", "ground_truth": ["name(parameter=literal)", ...]}

A question with several golden calls asks for all of them, in any order (`Sample.parallel`). A model that makes one call
at a time may make any of them; `tltrain.evaluation.scoring` has `any_call`, `each_call` and `every_call`.

No call is right for the questions of the irrelevance sets (`Sample.abstain`), which have no file of answers. Four
questions of the live irrelevance set offer no tools and are asked without any.

If the possible answers include "", the parameter may be left out (`OneOf.optional`). Types are renamed to JSON schema
types (`dict` to `object`, `float` to `number`, `tuple` to `array`, `any` to `string`, as the package does). The Java
and JavaScript sets are not read: their answers are literals of those languages.

Six golden calls fail BFCL's own checker (they name undocumented parameters, or accept nothing), so the best possible
accuracy is 99.0 on parallel_multiple, 99.2 on live_simple and 99.8 on live_multiple.
"""

from __future__ import annotations

import ast
import importlib.util
import logging
import operator
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from os import PathLike
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Literal

from tltrain.data import nearby
from tltrain.data.reading import ReadReport, expect, expect_choice, expect_tools, member, read_file, records, shown
from tltrain.errors import FieldError, RecordError, TltrainError
from tltrain.runtime.resolver import resolve
from tltrain.trajectory import Call, Message, OneOf, Role, Sample, Tool

log = logging.getLogger(__name__)

PACKAGE = "bfcl_eval"
ROLES: tuple[Role | Literal["system"], ...] = ("system", "user", "assistant")
EXECUTABLE = ("exec_simple", "exec_multiple", "exec_parallel", "exec_parallel_multiple")
IRRELEVANCE = ("irrelevance", "live_irrelevance")
"""Categories for whose questions no call is right."""
EXPECTED_COUNTS = {
    **dict(zip(EXECUTABLE, (100, 50, 50, 40), strict=True)),
    "simple_python": 400,
    "multiple": 200,
    "parallel": 200,
    "parallel_multiple": 200,
    "live_simple": 258,
    "live_multiple": 1053,
    "live_parallel": 16,
    "live_parallel_multiple": 24,
    "irrelevance": 240,
    "live_irrelevance": 884,
}
"""Number of questions by category. The executable sets' are the paper's; the others may change between releases."""

SETS = {"exec": EXECUTABLE, **{category: (category,) for category in EXPECTED_COUNTS}}
"""The categories read for each value of `benchmark.categories`. `exec` is the paper's 240 questions as one set."""

_OLD_NAMES = {"simple_python": "simple"}  # up to BFCL v3


def folder(path: str | PathLike[str] | None) -> Path:
    """Return the folder with BFCL's data: `path`, or that of the installed package, located without importing it.

    Raises:
        TltrainError: the folder does not exist, or the package is not installed.
    """
    if path is None:
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise TltrainError(
                "benchmark=bfcl reads the data of the package bfcl-eval: pip install --no-deps bfcl-eval (its pinned "
                "dependencies conflict with ours and are not needed), or give benchmark.path=FOLDER"
            )
        path = next(iter(spec.submodule_search_locations))
    data = Path(path)
    if (data / "data").is_dir():
        data = data / "data"
    if not data.is_dir():
        hint = nearby.folder_hint(path, ["BFCL_v*.json"])
        raise TltrainError(f"{path}: expected the folder `data` of bfcl-eval, found no folder{hint}")
    return data


def read_samples(
    path: str | PathLike[str] | None, category: str, report: ReadReport | None = None, check_counts: bool = True
) -> list[Sample]:
    """Return the samples of one category of `EXPECTED_COUNTS`; `meta["scenario"]` is the category.

    Args:
        path: see `folder`.
        check_counts: if a set's size differs from the published one, raise (executable sets) or warn (the others).

    Raises:
        TltrainError: the files do not exist or do not match each other, or a record is malformed.
    """
    questions, answers = _files(folder(path), category)
    golden = {} if answers is None else dict(_answers(answers))
    position = iter(golden)

    def parse(record: Any, number: int, notes: Counter[str]) -> Iterator[Sample]:
        record = expect(record, dict, "record")
        identity = member(record, "id", str)
        if answers is not None and identity != next(position, None):
            raise FieldError("id", f"the id at the same position in {answers}", identity)
        functions = member(record, "function", list)
        tools = expect_tools(
            [function(entry, f"function[{i}]") for i, entry in enumerate(functions)], "function", notes
        )
        messages, instructions = _question(record)
        if answers is None:
            yield Sample(identity, tools, messages, (), instructions, {"scenario": category}, abstain=True)
            return
        calls = tuple(_golden(entry, tools, answers, identity) for entry in golden[identity])
        yield Sample(identity, tools, messages, calls, instructions, {"scenario": category}, parallel=len(calls) > 1)

    samples = list(read_file(questions, parse, report=report))
    if answers is not None and len(samples) != len(golden):
        raise TltrainError(
            f"{answers}: expected {len(samples)} records, one for each of {questions}, found {len(golden)}"
        )
    expected = EXPECTED_COUNTS[category]
    if check_counts and len(samples) != expected:
        said = f"{questions}: expected BFCL's {expected} questions, found {len(samples)}"
        if category in EXECUTABLE:
            raise TltrainError(said)
        log.warning("%s: another release?", said)
    return samples


# --- files ----------------------------------------------------------------------------------------------------------


def check_place(path: str | PathLike[str] | None, categories: Iterable[str]) -> None:
    """Raise a TltrainError if the files of a category do not exist."""
    data = folder(path)
    for category in categories:
        _files(data, category)


def _files(data: Path, category: str) -> tuple[Path, Path | None]:
    """Return the question and answer files of a category in any version of BFCL; irrelevance sets have no answers."""
    pairs = (
        (data, data / "possible_answer"),
        (data / "unused_datasets" / "question", data / "unused_datasets" / "possible_answer"),
    )
    for name in filter(None, (category, _OLD_NAMES.get(category))):
        for questions, answers in pairs:
            found = sorted(file.name for file in questions.glob("BFCL_v*.json") if _is_of(file.name, name))
            if found and category in IRRELEVANCE:
                return questions / found[-1], None
            if found and (answers / found[-1]).is_file():
                return questions / found[-1], answers / found[-1]
    hint = nearby.folder_hint(data, [f"BFCL_v*_{category}.json"])
    too = "" if category in IRRELEVANCE else ", and the same in possible_answer/"
    raise TltrainError(f"{data}: expected BFCL_v4_{category}.json{too}{hint}")


def _is_of(file: str, category: str) -> bool:
    """Return whether this is the category's file (`multiple` must not match `live_multiple`)."""
    return re.fullmatch(rf"BFCL_v\d+_{category}\.json", file) is not None


def _answers(path: Path) -> Iterator[tuple[str, list[Any]]]:
    """Yield each question's id with its golden calls, unparsed."""
    for number, record in records(path):
        try:
            record = expect(record, dict, "record")
            identity, golden = member(record, "id", str), member(record, "ground_truth", list)
            if not golden:
                raise FieldError("ground_truth", "at least one golden call", "an empty list")
        except FieldError as error:
            raise RecordError(path, number, error) from None
        yield identity, golden


def _question(record: dict[str, Any]) -> tuple[tuple[Message, ...], str]:
    """Return the messages of the single turn and the system message."""
    turns = member(record, "question", list)
    if len(turns) != 1:
        raise FieldError("question", "one turn", f"{len(turns)} turns")
    messages, instructions = [], []
    for i, entry in enumerate(expect(turns[0], list, "question[0]")):
        where = f"question[0][{i}]"
        entry = expect(entry, dict, where)
        role = expect_choice(entry.get("role"), ROLES, f"{where}.role")
        content = member(entry, "content", str, where)
        if role == "system":
            instructions.append(content)
        else:
            messages.append(Message(role, content))
    if not messages or messages[-1].role != "user":
        raise FieldError("question[0]", "a user's message at its end", shown(turns[0])[:80])
    return tuple(messages), "\n\n".join(instructions)


# --- tools ----------------------------------------------------------------------------------------------------------

_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": "string"}


def function(entry: Any, where: str) -> dict[str, Any]:
    entry = expect(entry, dict, where)
    return {**entry, "parameters": _schema(member(entry, "parameters", dict, where))}


def _schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Rename BFCL's types to JSON schema types at every depth of a schema."""
    changed = dict(schema)
    if isinstance(schema.get("type"), str):
        changed["type"] = _TYPES.get(schema["type"], schema["type"])
    if isinstance(schema.get("items"), dict):
        changed["items"] = _schema(schema["items"])
    if isinstance(schema.get("properties"), dict):
        changed["properties"] = {
            name: _schema(inner) if isinstance(inner, dict) else inner for name, inner in schema["properties"].items()
        }
    return changed


# --- golden calls ---------------------------------------------------------------------------------------------------


def _golden(entry: Any, tools: Sequence[Tool], path: Path, identity: str) -> Call:
    try:
        return _python_call(entry, tools) if isinstance(entry, str) else _possible_answer(entry, tools)
    except FieldError as error:
        raise TltrainError(f"{path}, {identity}: {error}") from None


def _possible_answer(entry: Any, tools: Sequence[Tool]) -> Call:
    """Parse a golden call from `{name: {parameter: accepted values}}`."""
    entry = expect(entry, dict, "ground_truth")
    if len(entry) != 1:
        raise FieldError("ground_truth", "one tool's name", ", ".join(entry) or "none")
    ((name, parameters),) = entry.items()
    where = f"ground_truth.{name}"
    tool = next((tool for tool in tools if tool.name == name), Tool(name, "", {}))
    accepted = {
        parameter: _accepted(
            expect(options, list, f"{where}.{parameter}"),
            _within(tool.properties, parameter),
            parameter in tool.required,
        )
        for parameter, options in expect(parameters, dict, where).items()
    }
    return Call(name, accepted)


def _accepted(options: list[Any], schema: Mapping[str, Any], required: bool = False) -> Any:
    """Return the golden value that accepts any of `options`: a single value or a `OneOf`.

    "" means that the parameter may be left out, unless the tool requires it; for a string parameter it is a value as
    well. An empty list of options means that the value is an empty list (two records of the live sets).
    """
    if not options:
        return []
    optional = "" in options and not required
    values = [_option(option, schema) for option in options if option != ""]
    if "" in options and (schema.get("type", "string") == "string" or (required and not values)):
        values.append("")
    return values[0] if len(values) == 1 and not optional else OneOf(tuple(values), optional)


def _option(option: Any, schema: Mapping[str, Any]) -> Any:
    """Parse one accepted value.

    A dict, also one in a list, has a list of accepted values for each key; values nested deeper are literal.
    """
    properties = _within(schema, "properties")
    if isinstance(option, dict):
        return {
            key: _accepted(inner, _within(properties, key)) if isinstance(inner, list) else inner
            for key, inner in option.items()
        }
    items = _within(schema, "items")
    if isinstance(option, list) and items.get("type") == "object":
        return [_option(inner, items) if isinstance(inner, dict) else inner for inner in option]
    return option


def _within(schema: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return the schema under `key`, or an empty one."""
    found = schema.get(key)
    return found if isinstance(found, dict) else {}


_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {ast.Mult: operator.mul, ast.Div: operator.truediv}


def _python_call(text: str, tools: Sequence[Tool]) -> Call:
    """Parse a golden call written in Python without evaluating it.

    Values are literals, or `1/6` and `500*500` (once each). Positional arguments (in one record) are the tool's
    parameters in documented order.
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
        if not isinstance(node, ast.Call):
            raise ValueError
        keywords = [(keyword.arg, keyword.value) for keyword in node.keywords if keyword.arg is not None]
        if len(keywords) < len(node.keywords):  # `**dict` has no name
            raise ValueError
        name = ast.unparse(node.func)
        properties = next((tuple(tool.properties) for tool in tools if tool.name == name), ())
        positional = dict(zip(properties, map(_literal, node.args), strict=False))
        if len(positional) < len(node.args):
            raise ValueError
        return Call(name, positional | {key: _literal(value) for key, value in keywords})
    except (ValueError, TypeError, SyntaxError, ArithmeticError, RecursionError, MemoryError):
        raise FieldError("ground_truth", "a call `name(parameter=literal, ...)`", text) from None


def _literal(node: ast.expr | None) -> Any:
    """Return the value of a literal, tuples as lists. Raises ValueError for anything else."""
    if node is None:  # the key of a `**` entry in a dict
        raise ValueError
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _literal(node.left), _literal(node.right)
        if not all(isinstance(side, int | float) for side in (left, right)):
            raise ValueError
        return _OPERATORS[type(node.op)](left, right)
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        return {str(_literal(key)): _literal(value) for key, value in zip(node.keys, node.values, strict=True)}
    value = ast.literal_eval(node)
    if not isinstance(value, str | int | float | bool | None):
        raise ValueError
    return value


# --- BFCL's own checker ---------------------------------------------------------------------------------------------

_CHECKER = f"{PACKAGE}.eval_checker.ast_eval.ast_checker"
_MODEL_TABLE = f"{PACKAGE}.constants.model_config"
_US = "tltrain"


def official_verdicts(
    answers: Sequence[Sequence[Call]], path: str | PathLike[str] | None, category: str
) -> list[bool] | None:
    """Return the verdict of BFCL's `ast_checker` on each answer (a list of calls) to a category's first questions.

    Return None for the executable sets, which have no possible answers (BFCL ran the calls), for the irrelevance sets,
    and if the package cannot be imported. An answer that makes the checker raise counts as wrong.
    """
    checker = _checker() if category in EXPECTED_COUNTS and category not in (*EXECUTABLE, *IRRELEVANCE) else None
    if checker is None:
        return None
    questions, possible = _files(folder(path), category)
    assert possible is not None
    language = sys.modules[checker.__module__].Language.PYTHON
    verdicts = []
    for calls, (_, record), (_, golden) in zip(answers, records(questions), _answers(possible), strict=False):
        said = [{call.name: dict(call.arguments)} for call in calls]
        try:
            verdicts.append(bool(checker(record["function"], said, golden, language, category, _US)["valid"]))
        except Exception:  # the checker does not expect every output of a model
            verdicts.append(False)
    return verdicts


@cache
def _checker() -> Callable[..., dict[str, Any]] | None:
    """Import `ast_checker` with a one-entry stub for its table of models, as the real one imports the vendors' SDKs."""
    if importlib.util.find_spec(PACKAGE) is None:
        log.warning("BFCL's own accuracy (SET/ast) is left out: pip install --no-deps bfcl-eval for its checker")
        return None
    table = ModuleType(_MODEL_TABLE)
    vars(table)["MODEL_CONFIG_MAPPING"] = {_US: SimpleNamespace(underscore_to_dot=False)}
    before = sys.modules.get(_MODEL_TABLE)
    sys.modules[_MODEL_TABLE] = table
    try:
        return resolve(f"{_CHECKER}:ast_checker")
    except Exception as error:  # another release may have another layout
        log.warning("BFCL's own accuracy (SET/ast) is left out: its checker cannot be imported: %s", error)
        return None
    finally:
        if before is None:
            del sys.modules[_MODEL_TABLE]
        else:
            sys.modules[_MODEL_TABLE] = before
