"""stage=cache: list the cached results of stages, and remove some.

    python -m tltrain stage=cache
    python -m tltrain stage=cache stage.prune=old stage.older_than_days=7

`stage.prune=unfinished` removes the remains of stopped jobs, `old` also entries not used for `stage.older_than_days`
days, `all` every entry. Entries that a running job builds or uses are kept, and so are folders that the cache did not
make. Runs that link to a removed entry lose it; running the same command again rebuilds it.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tltrain.runtime import runs, terminal
from tltrain.sweeps.stage_cache import Manifest, StageCache, last_used, size

log = logging.getLogger(__name__)

DAY = 86400


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the stage in `folder` and return what it wrote to `metrics.json`."""
    cache = StageCache(Path(cfg.cache.dir) / "stages")
    rows, kept, freed = [], 0, 0
    for entry, manifest in cache.entries():
        bytes_, idle = size(entry), (time.time() - last_used(entry)) / DAY
        state = "whole" if manifest else "unfinished"
        if _unwanted(cfg, manifest, idle):
            removed = cache.remove(entry)
            state = "removed" if removed else "in use"
            freed += bytes_ if removed else 0
        kept += state != "removed"
        seconds = f"{manifest.seconds:.0f}" if manifest else ""
        rows.append([entry.name, state, f"{bytes_ / 2**20:.1f}", seconds, f"{idle:.1f}"])
    metrics = {"entries": len(rows), "kept": kept, "bytes_freed": freed}
    runs.finish(folder, cfg, metrics)
    terminal.table(str(cache.root), ["entry", "state", "MiB", "seconds to build", "days since last use"], rows)
    if foreign := cache.foreign():
        log.warning(
            "%d folders in %s were not made by the cache and are left alone: %s",
            len(foreign),
            cache.root,
            ", ".join(path.name for path in foreign[:5]),
        )
    if cfg.stage.prune.name != "none":
        terminal.console.print(f"{len(rows) - kept} entries removed, {freed / 2**20:.1f} MiB freed", markup=False)
    return metrics


def _unwanted(cfg: DictConfig, manifest: Manifest | None, idle_days: float) -> bool:
    match cfg.stage.prune.name:
        case "none":
            return False
        case "all":
            return True
        case "old":
            return manifest is None or idle_days > cfg.stage.older_than_days
        case _:
            return manifest is None
