"""Where trajectories come from: one reader a source, chosen by `data=...`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from os import PathLike
from pathlib import Path

from omegaconf import DictConfig

from tltrain import toolworld
from tltrain.config import FileData, RotbenchData, ToolworldData
from tltrain.data import irm, native, openai, rotbench, tl_training, turns
from tltrain.data.reading import ReadReport, check_file, read_file, read_json
from tltrain.errors import TltrainError
from tltrain.runtime import targets
from tltrain.trajectory import Trajectory

TRAINED_ON = "trained_on.json"
"""In a trained model's folder: the `query_key`s of what it was trained on."""
Reader = Callable[..., Iterable[Trajectory]]


def _of_file(parse: Callable) -> Reader:
    """The reader of a file whose records `parse` reads."""

    def read(data: FileData, seed: int, report: ReadReport) -> Iterator[Trajectory]:
        return read_file(_path(data), parse, data.on_error.name, report)

    return read


def _turns(data: FileData, seed: int, report: ReadReport) -> Iterator[Trajectory]:
    return turns.read(_path(data), data.on_error.name, report)


def _rotbench(data: RotbenchData, seed: int, report: ReadReport) -> Iterator[Trajectory]:
    return rotbench.read_training(_path(data), list(data.levels), data.on_error.name, report)


def _toolworld(data: ToolworldData, seed: int, report: ReadReport) -> Iterator[Trajectory]:
    for trajectory in toolworld.generate(data.size, seed, data.error_rate):
        report.read += 1
        yield trajectory


READERS: dict[str, Reader] = {
    "tl_training": _of_file(tl_training.parse),
    "openai": _of_file(openai.parse),
    "tltrain": _of_file(native.parse),
    "turns": _turns,
    "irm": _of_file(irm.parse),
    "rotbench": _rotbench,
    "toolworld": _toolworld,
}
"""The readers, each by the name that a choice of `data` gives; the annotation of its settings says its keys."""


def _path(data: FileData | DictConfig) -> str:
    if data.path is None:
        raise TltrainError(f"data={data.name} reads a file: give data.path=PATH")
    return data.path


def check_place(data: DictConfig) -> None:
    """Raise a TltrainError where what one of our readers would read is not there; nothing is read."""
    if data.get(targets.TARGET) is not None or "path" not in data:
        return
    path = _path(data)
    if data.name == "rotbench":
        rotbench.check_place(path, ["third"], data.levels)
    else:
        check_file(path)


def trajectories(data: DictConfig, seed: int, report: ReadReport) -> Iterator[Trajectory]:
    """The configured source's trajectories, one at a time; what could not be read is listed in `report`.

    Raises:
        TltrainError: there is no such reader, no `data.path` where it needs one, or (`data.on_error=stop`) a record
            cannot be read.
    """
    return islice(targets.call(data, READERS, "data", seed=seed, report=report), data.limit)


def hold_out(items: Iterable[Trajectory], share: float, seed: int) -> tuple[list[Trajectory], list[Trajectory]]:
    """Training and held-out trajectories. All of one query go to the same side; `share` is of the queries."""
    items = list(items)
    queries = sorted({item.query for item in items}, key=lambda query: _digest(f"{seed}:{query}"))
    held = set(queries[: round(share * len(queries))])
    return [item for item in items if item.query not in held], [item for item in items if item.query in held]


def query_key(query: str) -> str:
    """A short digest by which a trained model's folder remembers a query without holding its text."""
    return _digest(" ".join(query.split()))[:16]


def trained_on(model: str | PathLike[str]) -> list[str]:
    """The `query_key`s that a model's folder remembers; none where it remembers none.

    Raises:
        TltrainError: what it remembers cannot be read.
    """
    record = Path(model) / TRAINED_ON
    found = read_json(record) if record.is_file() else []
    if not isinstance(found, list) or not all(isinstance(key, str) for key in found):
        raise TltrainError(f"{record}: expected a list of strings; without this file all queries count as unseen")
    return found


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
