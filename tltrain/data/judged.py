"""Judge the calls of trajectories with MAE and count the verdicts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tltrain import mae
from tltrain.config import Mask
from tltrain.data import hold_out, mae_controls, trajectories
from tltrain.data.reading import ReadReport
from tltrain.data.rules import named_rule
from tltrain.formats.tool_errors import Rule
from tltrain.mae import Judgement, Verdict
from tltrain.runtime import runs, terminal
from tltrain.runtime.shares import share
from tltrain.trajectory import Trajectory, actions

log = logging.getLogger(__name__)


@dataclass
class MaeReport:
    """Counts of MAE's verdicts, for `metrics.json`.

    `replies_not_learned`: the part of `dropped_no_answer` that is text after which the conversation continues
    (`data.learn_replies`). `dropped_with_message`: good calls left out because another call of their message is
    (`stage.mask=message`).
    """

    trajectories: int = 0
    calls: int = 0
    kept: int = 0
    dropped_error: int = 0
    dropped_no_answer: int = 0
    dropped_at_random: int = 0
    not_learned_by_source: int = 0
    dropped_with_message: int = 0
    replies_not_learned: int = 0
    error_kinds: dict[str, int] = field(default_factory=dict)


Judge = Callable[[Trajectory], list[Judgement]]
"""Returns the verdict on each of a trajectory's `actions`. Called once for each trajectory, in their order."""


def judge_of(cfg: DictConfig) -> Judge:
    """Return the judge that `stage.rule` chooses; `stage.mae=false` drops only turns without an answer.

    With `data.learn_replies=true` only calls need an answer; text does not.
    """
    judge = _calls_judge(cfg)
    return partial(_with_replies, judge) if cfg.data.get("learn_replies") else judge


def judge_by(rule: Rule, learn_replies: bool) -> Judge:
    """Return the judge for a rule; `learn_replies` is the value of `data.learn_replies`."""
    judge: Judge = partial(mae.verdicts, rule=rule)
    return partial(_with_replies, judge) if learn_replies else judge


def _with_replies(judge: Judge, trajectory: Trajectory) -> list[Judgement]:
    """Return the judge's verdicts, but keep text that only lacks an answer."""
    return [
        (Verdict.KEPT, None) if action.call is None and judgement[0] is Verdict.NO_ANSWER else judgement
        for action, judgement in zip(actions(trajectory.messages), judge(trajectory), strict=True)
    ]


def _calls_judge(cfg: DictConfig) -> Judge:
    if not cfg.stage.mae:
        return partial(mae.verdicts, rule=None)
    name = cfg.stage.rule.name
    if name in TRUTHS:
        return partial(mae_controls.by_truth, field=name)
    if name == "random":
        return mae_controls.RandomDrop(named_rule(cfg, "paper"), cfg.seed)
    return partial(mae.verdicts, rule=named_rule(cfg, name))


TRUTHS = ("failed", "errors")
"""The choices of `stage.rule` that read the data's own record, under the same name in `meta`."""


@dataclass
class JudgedSource:
    """An iterable over the configured source's trajectories that judges their calls and counts as it goes.

    Attributes:
        description: label of the progress bar; empty for no bar.
        whole_messages: leave out a whole message if one of its calls is not learned, as `stage.mask=message` does.
        read: the reader's counts. judged: counts of MAE's verdicts.
    """

    cfg: DictConfig
    description: str = ""
    whole_messages: bool = False
    read: ReadReport = field(default_factory=ReadReport)
    judged: MaeReport = field(default_factory=MaeReport)

    def __iter__(self) -> Iterator[Trajectory]:
        items: Iterable[Trajectory] = trajectories(self.cfg.data, self.cfg.seed, self.read)
        if self.description:
            items = terminal.track(items, self.description)
        judged = judged_trajectories(items, judge_of(self.cfg), self.judged)
        whole = self.whole_messages or self.cfg.stage.get("mask") == Mask.message
        return self._whole_messages(judged) if whole else judged

    def _whole_messages(self, items: Iterable[Trajectory]) -> Iterator[Trajectory]:
        for item in items:
            masked = mae.whole_messages(item)
            learned = [sum(action.learn for action in actions(each.messages)) for each in (item, masked)]
            self.judged.kept -= learned[0] - learned[1]
            self.judged.dropped_with_message += learned[0] - learned[1]
            yield masked

    def split(self) -> tuple[list[Trajectory], list[Trajectory]]:
        """Return training and held-out trajectories."""
        return hold_out(self, self.cfg.data.holdout, self.cfg.seed)


def read_metrics(read: ReadReport) -> dict[str, Any]:
    """Return the reader's counts for `metrics.json`."""
    return {"records_read": read.read, "records_skipped": len(read.skipped), "reading_notes": dict(read.notes)}


def log_reading(read: ReadReport, folder: Path) -> None:
    """Log one line for each thing that the reader left out or changed, and list skipped records in `skipped.txt`."""
    log_skipped(read, folder)
    for note, count in sorted(read.notes.items()):
        log.warning("reading: %s: %d times in %d records", note, count, read.read)
    if any(note.endswith("is not in the stub") for note in read.notes):
        log.warning("format=tl leaves out what is not in the stub, as the paper does; format=tl_full writes it")


def log_skipped(read: ReadReport, folder: Path) -> None:
    """List the records that could not be read in `skipped.txt`, and say so in one line."""
    if read.skipped:
        runs.write_lines(folder / "skipped.txt", read.skipped)
        of = read.read + len(read.skipped)
        log.warning("%s records could not be read: see %s", share(len(read.skipped), of), folder / "skipped.txt")


def log_judging(judged: MaeReport) -> None:
    """Log in one line how many calls are not learned, and why."""
    if (left_out := judged.calls - judged.kept) > 0:
        reasons = {
            "answered with an error": judged.dropped_error,
            "without an answer": judged.dropped_no_answer - judged.replies_not_learned,
            "text after which the conversation goes on (data.learn_replies=true learns it)": judged.replies_not_learned,
            "left out at random": judged.dropped_at_random,
            "marked as history by the data": judged.not_learned_by_source,
            "beside a call that failed": judged.dropped_with_message,
        }
        said = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count)
        log.info("%s calls are not learned: %s", share(left_out, judged.calls), said)


def judged_trajectories(items: Iterable[Trajectory], judge: Judge, report: MaeReport) -> Iterator[Trajectory]:
    """Yield the trajectories with their calls judged, and count the verdicts in `report`."""
    for item in items:
        report.trajectories += 1
        done = actions(item.messages)
        judgements = judge(item)
        for (verdict, kind), action in zip(judgements, done, strict=True):
            report.calls += 1
            if not action.learn:
                report.not_learned_by_source += 1
            elif verdict is Verdict.KEPT:
                report.kept += 1
            elif verdict is Verdict.RANDOM:
                report.dropped_at_random += 1
            elif kind is not None:
                report.dropped_error += 1
                report.error_kinds[kind] = report.error_kinds.get(kind, 0) + 1
            else:
                report.dropped_no_answer += 1
                report.replies_not_learned += action.call is None
        yield mae.marked(item, judgements)
