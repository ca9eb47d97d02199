"""ToolAlpaca's evaluation files as released (github.com/tangqiaoyu/ToolAlpaca, `data/`).

    eval_real.json         11 real APIs, 114 instructions
    eval_simulated.json    10 simulated APIs, 100 instructions as published

A record is one API. `Function_Description` has a text for each of its tools; `Golden_Answers` has, for each of its
`Instructions`, calls `{"Action": name, "Action_Input": JSON text}`; the first is the golden call. A tool's text:

    Get long weekends for a given country
    Parameters: {"year": "Required. integer. ", "countryCode": "Required. string. Two-character code."}
    Output: Success.
     - Format: text/plain
     - Structure: Array[#LongWeekendV3Dto]

The first line may be missing. The entry `components` describes answers and is not a tool.

Pitfalls: in `eval_real.json` the golden tool of 6 instructions of AviationAPI is not documented. A tool that is not
offered cannot be called, so at most 108 of 114 can be right (`meta["golden_on_offer"]` marks them). 34 golden
calls contain an API key that is nowhere in the prompt, so a model can hardly get more than 74 right. In
`eval_simulated.json` some golden calls ask the user with `getDetails(Question=...)`, a tool that ToolAlpaca's agents
have in addition to the documented ones: it is offered there, and the wording of the question is not compared.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

from tltrain.data import nearby
from tltrain.data.reading import ReadReport, expect, member, parse_json, read_file, shown
from tltrain.errors import FieldError, TltrainError
from tltrain.formats.answers import read_structure
from tltrain.trajectory import ANY, Call, Message, Sample, Tool

FILES = {"real": "eval_real.json", "simulated": "eval_simulated.json"}
EXPECTED_COUNTS = {"real": 114}
"""Number of instructions in a file of the release."""

ASK = Tool(
    "getDetails",
    "Asks the user for details without which the request cannot be met.",
    {
        "type": "object",
        "properties": {"Question": {"type": "string", "description": "What to ask the user."}},
        "required": ["Question"],
    },
)

NOT_ON_OFFER = "samples whose golden tool is not among those on offer: they cannot be answered"

_PARAMETERS = re.compile(r"(?:(.*?)\n)?Parameters: (\{.*?\})(?:\nOutput: .*)?", re.DOTALL)
_PARAMETER = re.compile(r'"([^"]+)": "(.*?)"(?=, "[^"]+": "|\}\Z)', re.DOTALL)
_SPECIFICATION = re.compile(r"(Required\. )?(?:(\w+)(?:\[[^.]*\]|\{[^.]*\})?\.(?: |\Z))?(.*)", re.DOTALL)
_TYPES = {
    **{kind: kind for kind in ("string", "integer", "number", "boolean", "object", "array")},
    "Array": "array",
    "Object": "object",
}
_KEY_TWICE = re.compile(r'("\w+"):\s*\1:')


def files(path: str | PathLike[str]) -> dict[str, Path]:
    """Return the path of `real` and `simulated`, as far as they exist, given one of the files or their folder.

    Raises:
        TltrainError: neither exists.
    """
    path = Path(path)
    names = {path.name} if not path.is_dir() else set(FILES.values())
    folders = [path.parent] if not path.is_dir() else [path, path / "data"]
    found = {
        kind: folder / name
        for folder in reversed(folders)
        for kind, name in FILES.items()
        if name in names and (folder / name).is_file()
    }
    if not found:
        hint = nearby.folder_hint(path, list(FILES.values()))
        raise TltrainError(
            f"{path}: expected {' or '.join(FILES.values())} of ToolAlpaca's data, or their folder{hint}"
        )
    return {kind: found[kind] for kind in FILES if kind in found}


def read_samples(
    file: str | PathLike[str], kind: str, report: ReadReport | None = None, check_counts: bool = True
) -> list[Sample]:
    """Return the samples of one file, one for each instruction; `meta["scenario"]` is the API's name.

    Args:
        kind: `real` or `simulated`.
        check_counts: raise unless there are as many as in the release.

    Raises:
        TltrainError: a record differs from the release's format.
    """

    def parse(record: Any, number: int, notes: Counter[str]) -> Iterator[Sample]:
        record = expect(record, dict, "record")
        api = member(record, "Name", str)
        tools = tuple(
            _tool(name, expect(text, str, f"Function_Description.{name}"), notes)
            for name, text in member(record, "Function_Description", dict).items()
            if name != "components"
        )
        if kind == "simulated":
            tools = (*tools, ASK)
        instructions, answers = member(record, "Instructions", list), member(record, "Golden_Answers", list)
        if len(instructions) != len(answers):
            raise FieldError("Golden_Answers", f"{len(instructions)}, one for each instruction", len(answers))
        for i, (instruction, answer) in enumerate(zip(instructions, answers, strict=True)):
            golden = _golden(answer, f"Golden_Answers[{i}]", notes)
            on_offer = golden.name in {tool.name for tool in tools}
            notes[NOT_ON_OFFER] += not on_offer
            yield Sample(
                f"{kind}/{api}/{i + 1}",
                tools,
                (Message("user", expect(instruction, str, f"Instructions[{i}]")),),
                (golden,),
                meta={"scenario": api, "golden_on_offer": on_offer},
            )

    samples = list(read_file(file, parse, report=report))
    expected = EXPECTED_COUNTS.get(kind, len(samples)) if check_counts else len(samples)
    if len(samples) != expected:
        raise TltrainError(f"{file}: expected ToolAlpaca's {expected} instructions, found {len(samples)}")
    return samples


def _tool(name: str, text: str, notes: Counter[str]) -> Tool:
    found = _PARAMETERS.fullmatch(text.strip())
    if found is None:
        raise FieldError(f"Function_Description.{name}", "`Parameters: {...}`, then `Output: ...`", shown(text))
    notes["tools: `Output: ...` is not in the stub"] += 1
    properties, required = {}, []
    for parameter, specification in _parameters(found[2], name).items():
        specification = expect(specification, str, f"Function_Description.{name}, Parameters.{parameter}")
        matched = _SPECIFICATION.fullmatch(specification)
        needed, kind, description = matched.groups() if matched else (None, None, specification)
        if kind not in _TYPES:  # no type is stated: the word in its place is the first of the description
            kind, description = None, specification.removeprefix(needed or "")
        properties[parameter] = {**({"type": _TYPES[kind]} if kind else {}), "description": description.strip()}
        if needed:
            required.append(parameter)
    parameters = {"type": "object", "properties": properties, "required": required}
    return Tool(name, (found[1] or "").strip(), parameters)


def _parameters(text: str, tool: str) -> dict[str, Any]:
    """Return each parameter's specification. The release builds this JSON by hand and does not escape inner quotes."""
    where = f"Function_Description.{tool}, Parameters"
    try:
        return expect(parse_json(text, where), dict, where)
    except FieldError:
        found = dict(_PARAMETER.findall(text))
        if not found and '"' in text:
            raise
        return found  # empty if the release has only a schema's name, `{Pet}`


def _golden(answer: Any, where: str, notes: Counter[str]) -> Call:
    """Parse the first of an instruction's golden calls."""
    calls = expect(answer, list, where)
    if not calls:
        raise FieldError(where, "at least one golden call", "an empty list")
    notes["golden calls after the first, not asked for"] += len(calls) - 1
    where = f"{where}[0]"
    call = expect(calls[0], dict, where)
    name = member(call, "Action", str, where)
    arguments = _arguments(call.get("Action_Input"), f"{where}.Action_Input", notes)
    return Call(name, dict.fromkeys(arguments, ANY) if name == ASK.name else arguments)


def _arguments(given: Any, where: str, notes: Counter[str]) -> dict[str, Any]:
    """Parse the arguments from JSON text. Four of `eval_real.json` repeat a key: `"symbols": "symbols": [...]`."""
    if isinstance(given, dict):
        return given
    text = expect(given, str, where)
    try:
        return expect(parse_json(text, where), dict, where)
    except FieldError:
        arguments, _ = read_structure(_KEY_TWICE.sub(r"\1:", text))
        if not isinstance(arguments, dict):
            raise
        notes["golden calls whose arguments are broken JSON, repaired"] += 1
        return arguments
