"""stage=sft and stage=pkt: train a base model on trajectories.

    python -m tltrain stage=pkt data=rotbench data.path=FOLDER model=smollm2_135m
    python -m tltrain stage=pkt hydra.run.dir=FOLDER stage.resume=true ...     resume after a stop

Both stages share one code path: MAE decides which turns are learned (`stage.mae`), PKT weights the tokens of a turn
(`stage.w_max`). Writes `model/` (safetensors, tokenizer with the TL chat template), `history.jsonl` and `losses.png`
(the logged values), and `metrics.json`. A model's folder records digests of the conversations it was
trained on (`model/trained_on.json`), so that an evaluation can tell seen from unseen queries, and the gate known ones.
"""

from __future__ import annotations

import logging
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from tltrain import plan, tracking
from tltrain.errors import TltrainError
from tltrain.runtime import terminal
from tltrain.stages import training_runs
from tltrain.stages.training_runs import finite
from tltrain.tokens import weighting
from tltrain.tokens.packing import PackingReport, PackingSettings, pack
from tltrain.trajectory import Trajectory

if TYPE_CHECKING:
    from datasets import Dataset

    from tltrain.tokens.encoder import Encoder
    from tltrain.tokens.prefix_tree import Limits

log = logging.getLogger(__name__)


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the stage in `folder` and return what it wrote to `metrics.json`."""
    with terminal.status("loading torch, transformers and trl"):
        from tltrain.inference import generation
        from tltrain.tokens.native import NativeEncoder
        from tltrain.training import sft, tree_mask
        from tltrain.training.progress import Progress

    prepared = training_runs.prepare(cfg, folder, training_arguments)
    model, encoder, arguments = prepared.model, prepared.encoder, prepared.arguments
    limit = min(filter(None, (arguments.max_length, generation.context(model))), default=sys.maxsize)
    obstacle = tree_mask.obstacle(model)
    settings = PackingSettings.from_config(cfg, limit, tree_limits(cfg, model, limit), not obstacle)
    rows, report = pack_all(prepared.train, encoder, settings, "tokenizing")
    held_out, held_out_report = pack_all(prepared.held_out, encoder, settings, "tokenizing (held-out)")
    if not len(rows):
        judged = prepared.source.judged
        raise TltrainError(
            f"there is nothing to learn: {judged.trajectories} trajectories, {judged.kept} calls kept, "
            f"{report.too_long} samples longer than {limit} tokens"
        )
    for line in report.losses(limit):
        log.warning("%s", line)
    log.info("%s: %d turns in %d samples, %d tokens", cfg.stage.name, report.turns, len(rows), report.tokens)
    if isinstance(encoder, NativeEncoder):
        for what, count in encoder.not_written(prepared.train).items():
            log.warning("format=%s: %d messages have %s", encoder.native.name, count, what)
    if report.branching:
        log.info("%s", contexts(cfg, report, settings, obstacle))
    if settings.limits is not None:
        log.info("%s", sharing(cfg.stage.packing.name, report, arguments))
    plan.announce(cfg, model.config, rows)
    with tracking.job(cfg, folder) as tracker:
        with training_runs.library_errors():
            trainer = sft.TurnTrainer(
                model,
                arguments,
                sft.Collator(encoder.tokenizer.pad_token_id, tree_mask.BLOCK if prepared.device.type == "cuda" else 1),
                rows,
                held_out or None,
                encoder.tokenizer,
                callbacks=[
                    Progress(f"training ({cfg.stage.name})", {"loss": "loss", "key tokens": "key_token_loss"}),
                    *tracker.callbacks(),
                ],
                factors=weighting.configured(cfg.weighting, cfg.stage.w_max, cfg.stage.key_tokens.name).factors,
            )
        outcome = training_runs.train(prepared, trainer)
        held_out_loss = trainer.evaluate(metric_key_prefix="held_out") if held_out else {}
        training_runs.check_loss(outcome.training_loss + held_out_loss.get("held_out_loss", 0))
        training_runs.save_model(prepared, trainer.accelerator.unwrap_model(trainer.model), trainer)
        logs = trainer.state.log_history
        results = {
            "train": outcome.metrics | last_losses(logs) | asdict(report),
            "held_out": finite(held_out_loss) | asdict(held_out_report),
            "costs": trainer.costs(),
        }
        training_runs.write_card(prepared, results)
        tracker.artifact("model", folder / "model")
    training_runs.write_history(logs, folder)
    return training_runs.finish(prepared, results)


def pack_all(
    items: list[Trajectory], encoder: Encoder, settings: PackingSettings, description: str
) -> tuple[Dataset, PackingReport]:
    """Pack the trajectories into rows for the trainer, with counts of what was packed and left out."""
    from tltrain.training.sft import dataset

    report = PackingReport()
    return dataset(pack(terminal.track(items, description), encoder, settings, report)), report


def contexts(cfg: DictConfig, report: PackingReport, settings: PackingSettings, obstacle: str) -> str:
    """Describe how training treats trajectories whose turns have other contexts when they are asked for.

    Args:
        obstacle: why the model cannot process trees; empty if it can.
    """
    how = "each context is a sample of its own"
    if settings.packing == "trajectory" and obstacle:
        how += f", because {obstacle}"
    if settings.packing == "trajectory" and settings.branches:
        how = "each trajectory is a tree of its contexts, which computes what they share once"
    return (
        f"format={cfg.format.name}: in {report.branching} of {report.given} trajectories the chat template writes "
        f"earlier turns unlike the last one; {how}"
    )


def tree_limits(cfg: DictConfig, model: Any, limit: int) -> Limits | None:
    """Return the size limits of a tree; None if `stage.packing` makes no trees.

    Raises:
        TltrainError: `stage.packing=prefix_tree` with a model that cannot process trees.
    """
    from tltrain.tokens.prefix_tree import Limits
    from tltrain.training import tree_mask

    packing = cfg.stage.packing.name
    if packing not in ("prefix_tree", "auto"):
        return None
    try:
        tree_mask.check(model)
    except TltrainError as error:
        if packing == "prefix_tree":
            raise
        log.info("packing=auto: %s", str(error).partition(": ")[2])
        return Limits(1, limit)
    return Limits(cfg.stage.tree_size, limit, tree_mask.dense_until(model))


def sharing(asked: str, report: PackingReport, arguments: Any) -> str:
    """Describe the tokens that trees save, the optimizer steps that they cost, and the choice made."""
    rows = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    share = report.tokens_in_trees / max(report.tokens_apart, 1)
    steps = [math.ceil(samples / rows) for samples in (report.samples, report.trajectories)]
    return (
        f"packing={asked}: {report.packing}; trees have {report.tokens_in_trees} tokens, {share:.2f} of the "
        f"{report.tokens_apart} in {report.trajectories} trajectories; {steps[0]} optimizer steps per epoch, "
        f"{steps[1]} with packing=trajectory"
    )


def last_losses(logs: list[dict[str, float]]) -> dict[str, float]:
    """Return the last logged losses on key and other tokens."""
    steps = [entry for entry in logs if "loss" in entry]
    return finite({name: steps[-1][name] for name in ("key_token_loss", "other_token_loss") if steps})


def training_arguments(cfg: DictConfig, folder: Path, device: str, bf16: bool) -> Any:
    """Return trl.SFTConfig as configured."""
    from trl import SFTConfig

    return training_runs.library_arguments(
        cfg,
        SFTConfig,
        folder,
        device,
        bf16,
        remove_unused_columns=True,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
