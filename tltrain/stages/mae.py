"""stage=mae: read any source, say which calls may be learned, write the trajectories with that said.

    python -m tltrain stage=mae data=tl_training data.path=raw_data.json

Writes `train.jsonl` (reads back as `data=tltrain`), or with `stage.write=turns` the released per-turn `mae_data.json`,
or with `stage.write=raw` the paper's `raw_data.json`; `metrics.json` with the counts; `error_kinds.png`. One trajectory
is held at a time, so memory does not grow with a JSON-lines file.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tltrain import tracking
from tltrain.data import native, trajectories, turns
from tltrain.data.judged import MaeReport, judged_trajectories, rule_of
from tltrain.data.reading import ReadReport
from tltrain.runtime import runs, terminal
from tltrain.tracking import names
from tltrain.trajectory import Trajectory

log = logging.getLogger(__name__)


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the stage into `folder`; returns what it wrote to `metrics.json`."""
    read, report = ReadReport(), MaeReport()
    source = terminal.track(trajectories(cfg.data, cfg.seed, read), "judging calls")
    judged = judged_trajectories(source, rule_of(cfg), report)
    path = folder / WRITERS[cfg.stage.write.name][0]
    WRITERS[cfg.stage.write.name][1](path, judged)
    report.error_kinds = dict(sorted(report.error_kinds.items(), key=lambda item: -item[1]))
    counts = asdict(report)
    metrics = counts | {"rule": cfg.stage.rule.name if cfg.stage.mae else None} | read_metrics(read, folder)
    if report.error_kinds:
        from tltrain.views.plots import bar_chart  # matplotlib takes a second to load

        bar_chart(
            folder / "error_kinds.png", counts["error_kinds"], "Training calls dropped, by kind of error", "calls"
        )
    with tracking.job(cfg, folder) as tracker:
        tracker.metrics(names.of_mae(counts))
        tracker.artifact("data", path)
    runs.finish(folder, cfg, metrics)
    terminal.table(
        "MAE",
        ["calls", "number", "share"],
        [
            [name.replace("_", " "), counts[name], f"{counts[name] / max(report.calls, 1):.1%}"]
            for name in ("calls", "kept", "dropped_error", "dropped_no_answer", "not_learned_by_source")
        ],
    )
    terminal.console.print(f"Written to {path}", markup=False)
    return metrics


def read_metrics(read: ReadReport, folder: Path) -> dict[str, Any]:
    """What reading left out, for `metrics.json`; skipped records are listed in `skipped.txt`."""
    if read.skipped:
        runs.write_lines(folder / "skipped.txt", read.skipped)
        log.warning("%d records could not be read and were skipped: see %s", len(read.skipped), folder / "skipped.txt")
    return {"records_read": read.read, "records_skipped": len(read.skipped), "reading_notes": dict(read.notes)}


def _write_trajectories(path: Path, items: Iterable[Trajectory]) -> None:
    runs.write_lines(path, map(native.dumps, items))


def _write_turns(path: Path, items: Iterable[Trajectory]) -> None:
    _write_list(path, (record for item in items for record in turns.turn_records(item)))


def _write_raw(path: Path, items: Iterable[Trajectory]) -> None:
    from tltrain.data import tl_training

    _write_list(path, map(tl_training.raw_record, items))


def _write_list(path: Path, records: Iterable[Any]) -> None:
    """A JSON list, written record by record."""
    with runs.writing(path) as file:
        file.write("[")
        for number, record in enumerate(records):
            file.write((",\n" if number else "\n") + json.dumps(record, ensure_ascii=False))
        file.write("\n]\n")


WRITERS = {
    "trajectories": ("train.jsonl", _write_trajectories),
    "turns": ("mae_data.json", _write_turns),
    "raw": ("raw_data.json", _write_raw),
}
