"""Trajectories with MAE's verdict on each call, and the counts of what MAE did."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from omegaconf import DictConfig

from tltrain import config, mae
from tltrain.formats.tool_errors import Rule
from tltrain.mae import Verdict
from tltrain.trajectory import Trajectory, actions


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
    return Rule.from_config(config.plain(cfg.mae[cfg.stage.rule.name])) if cfg.stage.mae else None


def judged_trajectories(items: Iterable[Trajectory], rule: Rule | None, report: MaeReport) -> Iterator[Trajectory]:
    """The trajectories with their calls judged, counted in `report`."""
    for item in items:
        report.trajectories += 1
        learn = [action.learn for action in actions(item.messages)]
        for (verdict, kind), wanted in zip(mae.verdicts(item, rule), learn, strict=True):
            report.calls += 1
            if not wanted:
                report.not_learned_by_source += 1
            elif verdict is Verdict.KEPT:
                report.kept += 1
            elif kind is not None:
                report.dropped_error += 1
                report.error_kinds[kind] = report.error_kinds.get(kind, 0) + 1
            else:
                report.dropped_no_answer += 1
        yield mae.apply(item, rule)
