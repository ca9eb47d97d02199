"""stage=irm stage.algorithm=rejection: sample calls, keep the correct ones, and make the supervised trainer on them."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tltrain.errors import TltrainError
from tltrain.runtime import distributed, json_files, runs, terminal
from tltrain.runtime.shares import share
from tltrain.stages.training_runs import TrainingRun
from tltrain.tokens.prompts import PromptTree

if TYPE_CHECKING:
    from tltrain.training.rejection import SampledTree
    from tltrain.training.reward_function import Judge
    from tltrain.training.rollout import Prompts

log = logging.getLogger(__name__)

SAMPLED = "sampled.jsonl"
"""The file of all sampled calls: id, text, tokens, grade, reward, and whether the call is kept."""


def trainer(
    prepared: TrainingRun, asked: Prompts, judge: Judge, callbacks: Sequence[Any]
) -> tuple[Any, dict[str, int]]:
    """Return the supervised trainer on the kept calls, and the counts for `metrics.json`.

    Raises:
        TltrainError: no sampled call is correct.
    """
    from tltrain.training import rejection, sft, tree_mask

    cfg = prepared.cfg
    trees = rejection.order(asked.trees, cfg.stage.sampled_calls, cfg.seed)
    sampled = list(rejection.graded(trees, responses(prepared, trees, asked), asked, judge))
    if distributed.leads():
        runs.write_lines(prepared.folder / SAMPLED, map(json.dumps, lines(sampled)))
    counts = rejection.counts(sampled)
    log.info("rejection: %s sampled calls are correct and kept", share(counts.kept_calls, counts.sampled_calls))
    if not counts.kept_calls:
        raise TltrainError(
            f"none of {counts.sampled_calls} sampled calls is correct, so there is nothing to learn: {SAMPLED} shows "
            "them; train stage=sft for longer first, or ask for more with stage.sampled_calls"
        )
    branches = all(len(tree.ends) == 1 for tree in trees) or not tree_mask.obstacle(prepared.model)
    rows = sft.dataset(rejection.layouts(sampled, branches))
    found = sft.TurnTrainer(
        prepared.model,
        prepared.arguments,
        sft.Collator(prepared.encoder.tokenizer.pad_token_id, tree_mask.BLOCK if prepared.device.type == "cuda" else 1),
        rows,
        None,
        prepared.encoder.tokenizer,
        callbacks=list(callbacks),
    )
    return found, asdict(counts)


def responses(prepared: TrainingRun, trees: Sequence[PromptTree], asked: Prompts) -> list[list[list[int]]]:
    """Sample the responses; a resumed run reads those of the previous run. The first of several processes samples."""
    from tltrain.training import engines, rejection

    stored = distributed.share(_stored(prepared.folder / SAMPLED, trees) if prepared.resume_from else None)
    if stored is None:
        with terminal.status("sampling calls"), engines.gathered(prepared.model):
            if distributed.leads():
                together, seed = prepared.cfg.stage.generation_batch_size, prepared.cfg.seed
                stored = list(rejection.sample(prepared.model.eval(), trees, asked, together, seed, prepared.bf16))
    return distributed.share([] if stored is None else stored)


def lines(sampled: Sequence[SampledTree]) -> list[dict[str, Any]]:
    """Return the lines of `SAMPLED`."""
    from tltrain.training.rejection import is_kept

    return [
        {
            "id": judged.sample.id,
            "text": judged.response,
            "tokens": tokens,
            "grade": judged.outcome,
            "reward": judged.reward,
            "kept": is_kept(judged),
        }
        for one in sampled
        for tokens, judged in zip(one.responses, one.judged, strict=True)
    ]


def _stored(file: Path, trees: Sequence[PromptTree]) -> list[list[list[int]]] | None:
    """Return the responses in `file`, by tree; None if there is none or if it has other prompts."""
    if not distributed.leads() or not file.is_file():
        return None
    try:
        found = [json_files.parse(line) for line in file.read_text(encoding="utf-8").splitlines()]
        ids = [one["id"] for one in found]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if ids != [sample.id for tree in trees for sample in tree.samples]:
        return None
    rest = iter(found)
    return [[next(rest)["tokens"] for _ in tree.samples] for tree in trees]
