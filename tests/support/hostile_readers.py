"""Every reader of files, each with good files that it reads: what `tests/faults/test_hostile_files.py` damages.

Readers of trajectories, benchmarks and environments come from their registries: one that is added later is attacked
with the records of all others, and `tests/faults/test_hostile_files.py` asks for records of its own here.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import OmegaConf

from tests.support import bfcl_package, format_samples, irm_records, rotbench_records, toolalpaca_records
from tests.support.hostile_inputs import LONGEST, file_of, mutated, swapped
from tests.support.reader_samples import CHAT, LOVE, RAW, TOOLS
from tltrain import config, data
from tltrain.data import bfcl, native, rotbench, toolalpaca, turns
from tltrain.data.reading import ReadReport
from tltrain.environments import bfcl as bfcl_environment
from tltrain.environments import python_tools, registry, tooleyes
from tltrain.evaluation import benchmarks
from tltrain.runtime import targets

QUESTION = {
    "id": "simple_0",
    "question": [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Advice?"}]],
    "function": [
        {
            "name": "math.search",
            "description": "Finds.",
            "parameters": {
                "type": "dict",
                "properties": {"query": {"type": "string"}, "sizes": {"type": "array", "items": {"type": "integer"}}},
                "required": ["query"],
            },
        }
    ],
}
ANSWER = {"id": "simple_0", "ground_truth": [{"math.search": {"query": ["love", "Love"], "sizes": [[1, 2], ""]}}]}
PYTHON = {"id": "simple_0", "ground_truth": ["math.search(query='love', sizes=[1, -2])"]}
MULTI = bfcl_package.ENTRIES["multi_turn_miss_func"][0]
TOOLEYES = {
    "id": "Turn 1: x",
    "conversations": [
        {
            "from": "system",
            "value": "You have access of the following tools:\n"
            + json.dumps([{"name": tool.name, "parameters": dict(tool.parameters)} for tool in TOOLS])
            + "\n\nLet's Begin!",
        },
        {"from": "user", "value": "Advice?"},
    ],
    "path": "ToolEyes/Tool_Library/Text/Words",
    "scenario": "TG",
}

Read = Callable[[Path, str, ReadReport], Any]


@dataclass(frozen=True)
class Reader:
    """One reader under attack.

    Attributes:
        files: name below the folder that `read` is given -> what stands in it: a list of records (a file of JSON lines,
            or of one list), another JSON value (a dict), text, or bytes. Those of `damaged` are damaged, one at a time.
        read: `(folder, on_error, report)` -> the items that were read, as far as they can be used.
        whole: the records of the first file are one JSON list.
        imports: whether reading may import modules, as libraries do for what a file names.
    """

    files: Mapping[str, Any]
    read: Read
    damaged: tuple[str, ...] = ()
    whole: bool = False
    imports: bool = False

    def put(self, folder: Path, rng: random.Random | None = None) -> bytes:
        """Write the files into `folder`, with `rng` one of them damaged; returns the bytes of that one."""
        chosen = None if rng is None else rng.choice(self.damaged or tuple(self.files))
        shown = b""
        for name, content in self.files.items():
            content = damaged(content, rng) if name == chosen and rng is not None else self._good(content)
            if name == chosen:
                shown = content
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return shown

    def _good(self, content: Any) -> bytes:
        if isinstance(content, bytes):
            return content
        if isinstance(content, list):
            text = json.dumps(content) if self.whole else "".join(json.dumps(record) + "\n" for record in content)
            return text.encode()
        return (content if isinstance(content, str) else json.dumps(content)).encode()


def damaged(content: Any, rng: random.Random) -> bytes:
    """Bytes of a file that held `content`, damaged."""
    if isinstance(content, list):
        return file_of(content, rng)
    if isinstance(content, bytes):
        return _broken(content, rng)
    if isinstance(content, str):
        return _broken(mutated(content, rng)[:LONGEST].encode("utf-8", "surrogatepass"), rng, 0.2)
    copy, changes = json.loads(json.dumps(content)), rng.choice((0, 1, 1, 1, 3))
    for _ in range(changes):
        copy = swapped(copy, rng)
    try:
        text = json.dumps(copy, ensure_ascii=rng.random() < 0.6)
    except RecursionError:
        text = "[" * 3000
    if not changes or rng.random() < 0.3:
        text = rng.choice((mutated(text, rng), "[" * 100_000, "null", "[]", "{}", '"x"', "1", ""))
    return _broken(text[:LONGEST].encode("utf-8", "surrogatepass"), rng, 0.1)


def _broken(data: bytes, rng: random.Random, share: float = 1.0) -> bytes:
    """`data` with bytes cut, added or changed, in `share` of all cases."""
    if rng.random() >= share:
        return data
    at = rng.randint(0, len(data))
    match rng.randrange(4):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + bytes(rng.randrange(256) for _ in range(rng.choice((1, 2, 50)))) + data[at:]
        case 2:
            return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
    return b""


# --- readers of the registries --------------------------------------------------------------------------------------


def _node(function: Callable, common: type, **keys: Any) -> Any:
    """The node of the configuration that such a function is called with; None where it reads no file."""
    schema = targets.schema_of(function, common)
    known = {each.name for each in fields(schema)}
    if "path" not in known:
        return None
    return OmegaConf.merge(OmegaConf.structured(schema), {key: keys[key] for key in keys.keys() & known})


def _trajectories(name: str, file: str, folder: Path, on_error: str, report: ReadReport) -> Any:
    path = folder if name == "rotbench" else folder / file
    node = _node(data.READERS[name], config.Data, name=name, path=str(path), on_error=on_error, levels=["clean"])
    return data.trajectories(node, 0, report)


def _samples(name: str, file: str, folder: Path, on_error: str, report: ReadReport, **keys: Any) -> Any:
    path = folder / file if name == "openai" else folder
    node = _node(benchmarks.LOADERS[name], config.Benchmark, name=name, path=str(path), **keys)
    return [sample for samples in benchmarks.load(node, 0).values() for sample in samples]


def _bfcl_entries(folder: Path, on_error: str, report: ReadReport) -> Any:
    bfcl_environment._documented.cache_clear()
    bfcl_environment.read_entries.cache_clear()
    bfcl_environment.read_entries(folder, "multi_turn_miss_func")
    return []


def _tooleyes(folder: Path, on_error: str, report: ReadReport) -> Any:
    schema = OmegaConf.structured(config.ToolEyesConversations)
    tooleyes.tasks(OmegaConf.merge(schema, {"name": "tooleyes", "path": str(folder), "multi": True}), 0)
    return []


def _python_tools(folder: Path, on_error: str, report: ReadReport) -> Any:
    schema = OmegaConf.structured(config.PythonToolsConversations)
    places = {"module": str(folder / MODULE), "path": str(folder / TASKS)}
    python_tools.tasks(OmegaConf.merge(schema, {"name": "python_tools", **places}), 0)
    return []


MODULE, TASKS = "my_tools.py", "tasks.jsonl"
FUNCTIONS = '''
def add(x: float, y: float) -> float:
    """Add two numbers.

    Args:
        x: the first.
        y: the second.
    """
    return x + y


def right(answer: str) -> bool:
    return "3" in answer
'''
TASK = {
    "id": "sum",
    "question": "1 + 2?",
    "calls": ["add(x=1, y=2)"],
    "answer": 3,
    "check": "right",
    "scenario": "sums",
}
QUESTIONS, ANSWERS = "BFCL_v4_simple_python.json", "possible_answer/BFCL_v4_simple_python.json"
MULTI_TURN = "data/BFCL_v4_multi_turn_miss_func.json"
MULTI_TURN_ANSWERS = "data/possible_answer/BFCL_v4_multi_turn_miss_func.json"
DATA: dict[str, list[Any]] = {
    **{name: [record] for name, record in format_samples.SAMPLES.items()},
    "auto": [format_samples.SAMPLES["sharegpt"]],
    "tl_training": [RAW],
    "openai": [CHAT],
    "tltrain": [json.loads(native.dumps(LOVE))],
    "irm": [irm_records.RECORD],
    "turns": turns.turn_records(LOVE),
    "rotbench": [rotbench_records.THIRD],
}
"""Records of each reader of trajectories."""
PLACES = {"rotbench": "third_turn/clean.json"}
"""Where a reader looks for its file; else it is told."""
WHEN2CALL = {
    "uuid": "w",
    "question": "What time is it in Lima?",
    "correct_answer": "tool_call",
    "answers": {"tool_call": '{"name": "clock", "arguments": {"zone": "Lima"}}', "direct": "Noon."},
    "tools": [
        '{"name": "clock", "description": "Tells the time.", "parameters": {"type": "dict", "properties": '
        '{"zone": {"type": "string", "description": "Where."}}, "required": ["zone"]}}'
    ],
}
BENCHMARKS: dict[str, tuple[str, list[Any], Mapping[str, Any]]] = {
    "openai": ("data.json", [CHAT], {}),
    "rotbench": ("first_turn/clean.json", [rotbench_records.FIRST], {"levels": ["clean"], "turns": ["first"]}),
    "toolalpaca": ("eval_real.json", [toolalpaca_records.API], {}),
    "bfcl": (QUESTIONS, [QUESTION], {"categories": ["simple_python"]}),
    "when2call": ("data.json", [WHEN2CALL], {}),
}
"""Each benchmark of one call a sample: its file, records, and keys of its configuration."""
ENVIRONMENTS: dict[str, Reader] = {
    "tooleyes": Reader({f"Test_Data/{tooleyes.QUERIES}": [TOOLEYES]}, _tooleyes),
    "bfcl": Reader(
        {
            MULTI_TURN: [MULTI[0]],
            MULTI_TURN_ANSWERS: [{"id": MULTI[0]["id"], "ground_truth": MULTI[1]}],
            "data/multi_turn_func_doc/gorilla_file_system.json": bfcl_package.DOCUMENTED,
            "data/multi_turn_func_doc/math_api.json": [
                bfcl_package.tool("power", ["base", "exponent"], base="float", exponent="float")
            ],
            "constants/default_prompts.py": "DEFAULT_USER_PROMPT_FOR_ADDITIONAL_FUNCTION_FC = 'There is more now.'\n",
        },
        _bfcl_entries,
    ),
    "python_tools": Reader({TASKS: [TASK], MODULE: FUNCTIONS}, _python_tools, damaged=(TASKS,), imports=True),
}
"""Each environment whose conversations stand in files."""


def reads_file(function: Callable, common: type) -> bool:
    """Whether a function of a registry has a key for a file."""
    return _node(function, common, name="", path="") is not None


def containers() -> dict[str, bytes]:
    """Records of data=openai in each kind of file that is not JSON text."""
    lines = (json.dumps(CHAT) + "\n").encode() * 3
    sinks = {kind: pa.BufferOutputStream() for kind in ("Parquet", "Arrow", "zstd")}
    table = pa.table({key: [json.dumps(CHAT[key])] * 3 for key in ("messages", "tools")})
    pq.write_table(table, sinks["Parquet"])
    with pa.ipc.new_stream(sinks["Arrow"], table.schema) as writer:
        writer.write_table(table)
    with pa.CompressedOutputStream(sinks["zstd"], "zstd") as stream:
        stream.write(lines)
    found = {kind: sink.getvalue().to_pybytes() for kind, sink in sinks.items()}
    return found | {"gzip": gzip.compress(lines), "UTF-16": lines.decode().encode("utf-16")}


def of_registries() -> dict[str, Reader]:
    """The readers of all registries that read files; of one that has no records here, with those of all others."""
    found: dict[str, Reader] = {}
    foreign = [record for records in DATA.values() for record in records]
    for name, function in data.READERS.items():
        if reads_file(function, config.Data):
            file = PLACES.get(name, "data.json")
            found[f"data={name}"] = Reader({file: DATA.get(name, foreign)}, partial(_trajectories, name, file))
    for kind, content in containers().items():
        found[f"data=openai in {kind}"] = Reader({"data": content}, partial(_trajectories, "openai", "data"))
    for name, function in benchmarks.LOADERS.items():
        if reads_file(function, config.Benchmark):
            file, records, keys = BENCHMARKS.get(name, ("data.json", foreign, {}))
            files = {file: records} | ({ANSWERS: [ANSWER]} if name == "bfcl" else {})
            found[f"benchmark={name}"] = Reader(files, partial(_samples, name, file, **keys))
    _, _, keys = BENCHMARKS["bfcl"]
    python = {QUESTIONS: [QUESTION], ANSWERS: [PYTHON]}
    found["benchmark=bfcl in Python"] = Reader(python, partial(_samples, "bfcl", QUESTIONS, **keys), (ANSWERS,))
    for name in registry.ENVIRONMENTS.keys() & ENVIRONMENTS.keys():
        found[f"benchmark={name}_multi"] = ENVIRONMENTS[name]
    return found


@contextmanager
def any_number_of_records() -> Iterator[None]:
    """Accept other numbers of records than those that were published."""
    with ExitStack() as stack:
        level = {"clean": mock.ANY}
        for module, counts in (
            (rotbench, {"first": level, "third": level}),
            (toolalpaca, {}),
            (tooleyes, {**tooleyes.EXPECTED_COUNTS, "queries": mock.ANY}),
            (bfcl, {"simple_python": mock.ANY}),
            (bfcl_environment, {"multi_turn_miss_func": mock.ANY}),
        ):
            stack.enter_context(mock.patch.object(module, "EXPECTED_COUNTS", counts))
        yield
