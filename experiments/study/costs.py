"""What the stages of a row took, as their own `metrics.json` says: the same in every row that shares a stage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tltrain.runtime import json_files


def of_run(folder: Path) -> dict[str, Any]:
    """Costs of a pipeline's run: by stage its seconds (paid now or when it was made) and what its training counted."""
    stages = json_files.read_object(folder / "metrics.json")["stages"]
    found = {}
    for stage in stages:
        place = next((each for each in sorted(folder.iterdir()) if _is_entry(each, stage["fingerprint"])), None)
        counted = of_training(json_files.read_object(place / "metrics.json")) if place is not None else {}
        name = place.name if place is not None else stage["name"]
        found[name] = {"seconds": stage["seconds"], "reused": stage["reused"], **counted}
    return {"stages": found}


def _is_entry(place: Path, fingerprint: str) -> bool:
    """Whether a link in the run's folder leads to the cache entry of this fingerprint."""
    return place.is_symlink() and bool(fingerprint) and place.resolve().name.endswith(fingerprint[:16])


def of_training(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The counts of a training: whatever it calls `costs`."""
    costs = metrics.get("costs")
    return dict(costs) if isinstance(costs, dict) else {}
