"""stage=mae: read any source, say which calls may be learned, write the trajectories with that said.

    python -m tltrain stage=mae data=tl_training data.path=raw_data.json

Writes `train.jsonl` (reads back as `data=tltrain`), or with `stage.write=turns` the released per-turn `mae_data.json`,
or with `stage.write=raw` the paper's `raw_data.json`; `metrics.json` with the counts; `error_kinds.png`. One trajectory
is held at a time, so memory does not grow with a JSON-lines file.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tltrain import mae, tracking
from tltrain.data import native, trajectories, turns
from tltrain.data.reading import ReadReport
from tltrain.mae import Rule, Verdict
from tltrain.runtime import runs, terminal
from tltrain.tracking import names
from tltrain.trajectory import Trajectory

log = logging.getLogger(__name__)


@dataclass
class MaeReport:
    """Counts of what MAE did, for `metrics.json`."""

    trajectories: int = 0
    calls: int = 0
    kept: int = 0
    dropped_error: int = 0
    dropped_no_answer: int = 0
    not_learned_by_source: int = 0
    error_kinds: dict[str, int] = field(default_factory=dict)


def rule_of(cfg: DictConfig) -> Rule | None:
    """The rule that `stage.rule` chooses from `conf/mae/`, None where `stage.mae=false`."""
    return Rule.from_config(OmegaConf.to_container(cfg.mae[cfg.stage.rule.name])) if cfg.stage.mae else None


def apply(items: Iterable[Trajectory], rule: Rule | None, report: MaeReport) -> Iterator[Trajectory]:
    """The trajectories with their calls judged, counted in `report`."""
    for item in items:
        report.trajectories += 1
        learn = [message.learn for message in item.messages if message.role == "assistant"]
        for (verdict, kind), wanted in zip(mae.verdicts(item, rule), learn, strict=True):
            report.calls += 1
            if not wanted:
                report.not_learned_by_source += 1
            elif verdict is Verdict.KEPT:
                report.kept += 1
            elif verdict is Verdict.ERROR:
                report.dropped_error += 1
                report.error_kinds[kind] = report.error_kinds.get(kind, 0) + 1
            else:
                report.dropped_no_answer += 1
        yield mae.apply(item, rule)


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the stage into `folder`; returns what it wrote to `metrics.json`."""
    read, report = ReadReport(), MaeReport()
    source = terminal.track(trajectories(cfg.data, cfg.seed, read), "judging calls")
    judged = apply(source, rule_of(cfg), report)
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
