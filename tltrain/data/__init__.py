"""Readers of trajectories, one for each kind of source; `data=...` chooses one."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig

from tltrain import toolworld
from tltrain.config import FileData, OnError, RotbenchData, ToolworldData
from tltrain.data import (
    adp,
    anthropic,
    api_log,
    auto,
    checked,
    gemini,
    glaive,
    hub,
    irm,
    langchain,
    native,
    openai,
    preference,
    prompt_completion,
    responses,
    rotbench,
    sharegpt,
    tl_training,
    toolace,
    toolbench,
    turns,
    xlam,
)
from tltrain.data.reading import ReadReport, check_file, files_of, read_file, read_json
from tltrain.errors import FieldError, TltrainError
from tltrain.runtime import targets
from tltrain.trajectory import Trajectory

TRAINED_ON = "trained_on.json"
"""The file in a trained model's folder that holds a `query_key` and a `split.opening_key` of each conversation that it
was trained on, of its base model's too."""
Reader = Callable[..., Any]


def _turns(data: FileData, seed: int, report: ReadReport) -> Iterator[Trajectory]:
    return turns.read(_path(data), data.on_error.name, report)


def _rotbench(data: RotbenchData, seed: int, report: ReadReport) -> Iterator[Trajectory]:
    return rotbench.read_training(_path(data), list(data.levels), data.on_error.name, report)


def _toolworld(data: ToolworldData, seed: int, report: ReadReport) -> Iterator[Trajectory]:
    for trajectory in toolworld.generate(data.size, seed, data.error_rate, str(data.split), str(data.tools)):
        report.read += 1
        yield trajectory


READERS: dict[str, Reader] = {
    "tl_training": tl_training.parse,
    "auto": auto.Auto,
    "openai": openai.parse,
    "sharegpt": sharegpt.parse,
    "xlam": xlam.parse,
    "toolace": toolace.parse,
    "glaive": glaive.parse,
    "toolbench": toolbench.parse,
    "anthropic": anthropic.parse,
    "responses": responses.parse,
    "gemini": gemini.parse,
    "langchain": langchain.parse,
    "adp": adp.parse,
    "prompt_completion": prompt_completion.parse,
    "preference": preference.parse,
    "api_log": api_log.parse,
    "tltrain": native.parse,
    "turns": _turns,
    "irm": irm.parse,
    "rotbench": _rotbench,
    "toolworld": _toolworld,
}
"""Readers by the name of their `data` choice. A reader with a parameter `record` is called with each record of
`data.path`, its number and `notes`; any other opens its source itself. Its further parameters, or the annotation of its
first one, define the choice's keys."""


def _path(data: FileData | DictConfig) -> Any:
    if not data.path:
        raise TltrainError(f"data={data.name} reads a file: give data.path=PATH")
    return list(data.path) if isinstance(data.path, ListConfig) else data.path


def check_place(data: DictConfig) -> None:
    """Raise a TltrainError if the files of a built-in reader do not exist; nothing is read."""
    if "path" not in data:
        return
    if data.get(targets.TARGET) is not None:
        if "record" in targets.called_with(targets.named(data, READERS, "data")):
            _check_files(_path(data))
        return
    path = _path(data)
    if data.name == "rotbench":
        rotbench.check_place(path, ["third"], data.levels)
    else:
        _check_files(path)


def _check_files(path: Any) -> None:
    """Raise a TltrainError if a file does not exist; files on the hub are downloaded only when they are read."""
    for each in path if isinstance(path, list) else [path]:
        for file in [] if hub.is_dataset(each) else files_of(each):
            check_file(file)


def trajectories(data: DictConfig, seed: int, report: ReadReport) -> Iterator[Trajectory]:
    """Yield the configured source's trajectories one at a time and list unreadable records in `report`.

    Raises:
        TltrainError: the reader does not exist, it needs a `data.path` and has none, or a record cannot be read
            (with `data.on_error=stop`).
    """
    return islice(_read(data, seed, report), data.limit)


def _read(data: DictConfig, seed: int, report: ReadReport) -> Iterable[Trajectory]:
    read = targets.named(data, READERS, "data")
    of_user = data.get(targets.TARGET)
    if "on_error" in data:
        report.remedy = "data.on_error=skip leaves such records out and lists them"
    if "record" in targets.called_with(read):
        parse = targets.bound(data, read, "data")
        ours = partial(_parse, parse, data.name)
        parse_record = ours if of_user is None else checked.parser(parse, of_user, Trajectory)
        return read_file(_path(data), parse_record, OnError(data.on_error).name, report)
    if of_user is None:
        return targets.call(data, READERS, "data", seed=seed, report=report)
    return checked.reader(lambda: targets.call(data, READERS, "data", seed=seed, report=report), of_user, report)


def _parse(parse: Callable, name: str, record: Any, number: int, notes: Counter[str]) -> Iterable[Trajectory]:
    """Parse a record; if it has another format, the error names the reader of that format."""
    try:
        return list(parse(record=record, number=number, notes=notes))
    except FieldError as error:
        other, unread = auto.recognised(record), auto.unread(record)
        if name == "auto" or (other is not None and other[0] == name) or (other is None and unread is None):
            raise
        remedy = f"{other[1]}, as in data={other[0]}" if other else "it looks like {}: {}".format(*unread or ())
        raise FieldError(error.field, error.expected, error.found, remedy) from None


def hold_out(items: Iterable[Trajectory], share: float, seed: int) -> tuple[list[Trajectory], list[Trajectory]]:
    """Split into training and held-out trajectories by query, so that no query is in both; hold out `share` of them."""
    items = list(items)
    queries = sorted({item.query for item in items}, key=lambda query: _digest(f"{seed}:{query}"))
    held = set(queries[: round(share * len(queries))])
    return [item for item in items if item.query not in held], [item for item in items if item.query in held]


def query_key(query: str) -> str:
    """Return a short digest of a query, so that a trained model's folder can record it without its text."""
    return _digest(" ".join(query.split()))[:16]


def trained_on(model: str | PathLike[str]) -> list[str]:
    """Return the digests of what a model was trained on, as its folder records them; an empty list without a record.

    Raises:
        TltrainError: the record cannot be read.
    """
    record = Path(model) / TRAINED_ON
    found = read_json(record) if record.is_file() else []
    if not isinstance(found, list) or not all(isinstance(key, str) for key in found):
        raise TltrainError(f"{record}: expected a list of strings; without this file all queries count as unseen")
    return found


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
