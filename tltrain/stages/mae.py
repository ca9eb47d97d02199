"""stage=mae: read any source, decide which calls are learned, and write the trajectories with these verdicts.

    python -m tltrain stage=mae data=tl_training data.path=raw_data.json

Writes `train.jsonl` (to be read with `data=tltrain`), with `stage.write=turns` the released per-turn `mae_data.json`,
with `stage.write=raw` the paper's `raw_data.json`, or a file for another trainer (`tltrain.data.trainer_files`);
`metrics.json` with counts, also of the answers on which the paper's rule and the strict rule differ; `error_kinds.png`.
It holds one trajectory at a time, so memory does not grow with a JSON-lines file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tltrain import tracking
from tltrain.data import native, turns
from tltrain.data.judged import JudgedSource, log_judging, log_reading, read_metrics
from tltrain.data.rule_comparison import RuleComparison
from tltrain.data.rules import named_rule, rule_name
from tltrain.data.trainer_files import TRAINERS
from tltrain.runtime import runs
from tltrain.tracking import names
from tltrain.trajectory import Trajectory


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the stage in `folder` and return what it wrote to `metrics.json`."""
    word = cfg.stage.write.name
    trainer = TRAINERS.get(word)
    source = JudgedSource(cfg, "judging calls", whole_messages=trainer is not None)
    name, write = (trainer.file, trainer.write) if trainer else WRITERS[word]
    comparison = RuleComparison(named_rule(cfg, "paper"), named_rule(cfg, "strict")) if cfg.stage.mae else None
    written = write(folder / name, comparison.watch(source) if comparison else source)
    log_reading(source.read, folder)
    log_judging(source.judged)
    report = source.judged
    report.error_kinds = dict(sorted(report.error_kinds.items(), key=lambda item: -item[1]))
    counts = asdict(report)
    metrics = {
        **counts,
        "rule": rule_name(cfg) if cfg.stage.mae else None,
        "rules_differ": comparison.metrics() if comparison else None,
        "file": name,
        "written": asdict(written) if written else None,
        "settings": trainer.settings if trainer else None,
        **read_metrics(source.read),
    }
    with tracking.job(cfg, folder) as tracker:
        tracker.metrics(names.of_mae(counts))
        tracker.artifact("data", folder / name)
    runs.finish(folder, cfg, metrics)
    return metrics


def _write_trajectories(path: Path, items: Iterable[Trajectory]) -> None:
    runs.write_lines(path, map(native.dumps, items), data=True)


def _write_turns(path: Path, items: Iterable[Trajectory]) -> None:
    _write_list(path, (record for item in items for record in turns.turn_records(item)))


def _write_raw(path: Path, items: Iterable[Trajectory]) -> None:
    from tltrain.data import tl_training

    _write_list(path, map(tl_training.raw_record, items))


def _write_list(path: Path, records: Iterable[Any]) -> None:
    """Write a JSON list record by record."""
    with runs.writing(path, data=True) as file:
        file.write("[")
        for number, record in enumerate(records):
            file.write((",\n" if number else "\n") + json.dumps(record, ensure_ascii=False))
        file.write("\n]\n")


WRITERS = {
    "trajectories": ("train.jsonl", _write_trajectories),
    "turns": ("mae_data.json", _write_turns),
    "raw": ("raw_data.json", _write_raw),
}
