"""Run folders: Hydra's. `metrics.json` is written last, so that a folder without it is unfinished."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from tltrain import distributed, redact


def folder() -> Path:
    """The folder of the run that is going on."""
    return Path(HydraConfig.get().runtime.output_dir)


@contextmanager
def writing(path: Path) -> Iterator[IO[str]]:
    """A text file that appears under its name only when it is whole. Of several processes the first alone writes."""
    if not distributed.leads():
        yield io.StringIO()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8", errors="backslashreplace") as file:
            yield file
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    with writing(path) as file:
        json.dump(value, file, ensure_ascii=False, indent=2, sort_keys=False)
        file.write("\n")


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines (without their ends), whole or not at all."""
    with writing(path) as file:
        for line in lines:
            file.write(line + "\n")


def finish(directory: Path, cfg: DictConfig, metrics: dict[str, Any]) -> None:
    """Leave the resolved configuration, without secrets, then the metrics: from here on the run counts as finished."""
    with writing(directory / "config.yaml") as file:
        file.write(OmegaConf.to_yaml(redact.config(cfg)))
    write_json(directory / "metrics.json", metrics)
