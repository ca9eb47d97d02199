"""Read offline runs of wandb with wandb's own reader."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

FEW = ("stage.args.max_steps=2", "stage.args.per_device_train_batch_size=2", "data.holdout=0.2")
"""Settings that keep a tracked training short."""


@dataclass
class Tracked:
    """A run's records in order, and its folder."""

    records: list[dict[str, Any]]
    folder: Path

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [record[kind] for record in self.records if record["type"] == kind]

    @property
    def run(self) -> dict[str, Any]:
        return self.of("run")[0]

    @property
    def config(self) -> dict[str, Any]:
        return self.run["config"]["update"]

    @property
    def history(self) -> list[dict[str, Any]]:
        """Return what was logged, without wandb's own numbers."""
        rows = [record["item"] for record in self.of("history")]
        return [{name: value for name, value in row.items() if not name.startswith("_")} for row in rows]

    @property
    def names(self) -> set[str]:
        """Return every name that something was logged under; the several parts of a table count once."""
        return {name.partition(".")[0] for row in self.history for name in row}

    @property
    def artifacts(self) -> list[dict[str, Any]]:
        """Return the artifacts except those that wandb makes of tables."""
        return [found for found in self.of("artifact") if found["type"] != "run_table"]

    def tables(self, name: str) -> list[dict[str, Any]]:
        """Return the tables logged under a name, in order: `columns` and `data`."""
        paths = [row[f"{name}.path"] for row in self.history if f"{name}.path" in row]
        return [json.loads((self.folder / "files" / path).read_text()) for path in paths]


def read(folder: Path) -> Tracked:
    """Read the single offline run in a run folder."""
    (found,) = read_all(folder)
    return found


def read_all(folder: Path) -> list[Tracked]:
    """Read the offline runs in the tree of a sweep or a single run, in the order in which they were started."""
    files = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    return sorted(map(_read, files), key=lambda found: found.run["start_time"])


def _read(file: Path) -> Tracked:
    """Read a run's file."""
    reader = str(distribution("wandb").locate_file("wandb/bin/wandb-core"))  # as `wandb leet inspect` starts it
    words = ["leet", "inspect", "--no-observability", "--json", "--run-file", str(file), str(file.parents[1])]
    ran = subprocess.run([reader, *words], cwd=file.parents[1], capture_output=True, text=True, check=True)
    return Tracked([json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")], file.parent)
