"""The prompts of stage=irm: built from the data once the answer limit is known, and described in the log."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from tltrain.errors import TltrainError
from tltrain.runtime import terminal
from tltrain.runtime.shares import share
from tltrain.tokens.native import NativeEncoder
from tltrain.tokens.prompts import (
    AnswerLimit,
    PromptReport,
    PromptSettings,
    PromptTree,
    answer_limit,
    trees_of_turns,
)
from tltrain.trajectory import FINISH, Sample, Trajectory

if TYPE_CHECKING:
    from tltrain.tokens.encoder import Encoder

log = logging.getLogger(__name__)


def prompts(
    cfg: DictConfig,
    train: Sequence[Trajectory],
    held_out: Sequence[Trajectory],
    encoder: Encoder,
    context: int | None,
    abstaining: bool = False,
) -> tuple[list[PromptTree], PromptReport]:
    """Return the training prompts, and a report that also holds the answer limit (`max_new_tokens`).

    Args:
        held_out: their golden calls count for that limit too, since it applies to held-out questions.
        abstaining: ask questions to which no call is right, too, since the reward prices them.

    Raises:
        TltrainError: a prompt or its golden call does not fit, or there are no prompts.
    """
    stage = cfg.stage
    asked = [encoder.asked(item, abstaining) for item in terminal.track(train, "tokenizing")]
    lengths = []
    if stage.max_new_tokens is None:
        lengths = [*(turn.length for own in asked for turn in own), *encoder.answer_lengths(held_out, abstaining)]
    limit = answer_limit(lengths, stage.max_new_tokens, context, stage.max_prompt_length)
    room = (context or sys.maxsize) - limit
    if room < 1:
        raise TltrainError(
            f"stage.max_new_tokens={limit} leaves no room for a prompt: the model's context is {context} tokens"
        )
    max_length = min(room, stage.max_prompt_length or room)
    report = PromptReport(max_new_tokens=limit)
    answers = AnswerLimit(limit, stage.too_long_answer)
    settings = PromptSettings(stage.packing.name, max_length, stage.truncation.name, answers, abstaining)
    trees = list(trees_of_turns(zip(train, asked, strict=True), encoder, settings, report))
    if not trees:
        unanswerable = (
            f", {report.too_long_answer} because their golden call does not fit stage.max_new_tokens={limit}"
            if report.too_long_answer
            else ""
        )
        unpriced = (
            f"; {report.abstaining_not_asked} questions are answered in words, which reward.abstained and "
            "reward.called_anyway price"
            if report.abstaining_not_asked
            else ""
        )
        raise TltrainError(
            f"there are no prompts: {report.trajectories} trajectories, {report.nothing_to_ask} of them without a "
            f"learnable call, {report.too_long} prompts left out as too long{unanswerable}{unpriced}"
        )
    for line in report.losses(max_length):
        log.warning("%s", line)
    if stage.names.name == "offered" and not encoder.reads_tokens:
        warn_of_no_words(trees)
    if report.abstaining_not_asked:
        log.info(
            "irm: %d questions that the data answers in words are not asked: a table's reward.abstained and "
            "reward.called_anyway price them",
            report.abstaining_not_asked,
        )
    if report.too_long_answer:
        warn_of_too_long_answers(report, stage.too_long_answer.name)
    if isinstance(encoder, NativeEncoder):
        describe_native_prompts(cfg, encoder, train, report)
    return trees, report


def describe_native_prompts(
    cfg: DictConfig, encoder: NativeEncoder, train: Sequence[Trajectory], report: PromptReport
) -> None:
    """Log what the format cannot write, and how many trajectories are several rows of a batch."""
    for what, count in encoder.not_written(train).items():
        log.warning("format=%s: %d messages have %s", encoder.native.name, count, what)
    if report.branching and cfg.stage.packing.name == "trajectory":
        log.info(
            "format=%s: in %d of %d trajectories the chat template writes earlier turns unlike the last one: a "
            "prompt that does not begin with the one before is in a row of its own",
            *(encoder.native.name, report.branching, report.trajectories),
        )


def of_calls(cfg: DictConfig, arguments: Any, trees: Sequence[PromptTree], report: PromptReport) -> str:
    """Describe how many answerable calls the data has, and about how many the training asks for."""
    answerable = report.prompts - (report.too_long_answer if cfg.stage.too_long_answer == "keep" else 0)
    found = f"irm: the data has {answerable:,} answerable calls"
    if cfg.stage.algorithm.name == "rejection":
        asked = cfg.stage.sampled_calls or report.prompts
        return f"{found}; {asked:,} are sampled (stage.sampled_calls), {asked / report.prompts:.2f} times each"
    if cfg.stage.algorithm.name != "ppo":
        return found
    rows = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    epochs, steps = arguments.num_train_epochs, arguments.max_steps
    if steps > 0:
        epochs = math.ceil(steps / cfg.stage.ppo_epochs) * rows / len(trees)
    else:
        steps = math.ceil(epochs * math.ceil(len(trees) / rows)) * cfg.stage.ppo_epochs
    return (
        f"{found}; {steps:,} steps ask about {epochs * report.prompts:,.0f}, {epochs:.2f} times each "
        "(stage.args.max_steps, num_train_epochs)"
    )


def warn_of_too_long_answers(report: PromptReport, too_long_answer: str) -> None:
    """Warn how many golden calls do not fit the answer limit, and how their prompts are treated."""
    skipped = too_long_answer == "skip"
    whole = report.prompts + report.too_long + (report.too_long_answer if skipped else 0)
    log.warning(
        "the golden call of %s prompts does not fit stage.max_new_tokens=%d, the longest has %d tokens: %s "
        "(stage.too_long_answer=%s); stage.max_new_tokens=%d makes room for all",
        share(report.too_long_answer, whole),
        *(report.max_new_tokens, report.longest_answer),
        "they are left out" if skipped else "they are kept, and no answer to them can be right",
        *(too_long_answer, report.longest_answer),
    )


def warn_of_names_not_on_offer(trees: Sequence[PromptTree]) -> None:
    """Warn how many golden calls name a tool that is not on offer, which `stage.names=offered` cannot sample."""
    samples = [sample for tree in trees for sample in tree.samples]
    missing = sum(not _on_offer(sample) for sample in samples)
    if missing:
        log.warning(
            "the golden call of %s prompts names a tool that is not on offer: with stage.names=offered no answer to "
            "them can be right; stage.names=free samples any name",
            share(missing, len(samples)),
        )


def warn_of_no_words(trees: Sequence[PromptTree]) -> None:
    """Warn how many questions to which no call is right offer `finish`, beside which offered names allow no words."""
    samples = [sample for tree in trees for sample in tree.samples if sample.abstain]
    closed = sum(FINISH in {tool.name for tool in sample.tools} for sample in samples)
    if closed:
        log.warning(
            "%s questions to which no call is right offer `finish`, beside which stage.names=offered samples no words; "
            "stage.names=free does",
            share(closed, len(samples)),
        )


def _on_offer(sample: Sample) -> bool:
    """Return whether each call that is asked for can name a tool on offer."""
    names = {tool.name for tool in sample.tools}
    return all(any(golden.name in names for golden in accepted) for accepted in sample.asked)


def with_answer_limit(cfg: DictConfig, max_new_tokens: int) -> DictConfig:
    """Return the configuration with the answer limit that `prompts` determined."""
    own = cfg.copy()
    own.stage.max_new_tokens = max_new_tokens
    return own
