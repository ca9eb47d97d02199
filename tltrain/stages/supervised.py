"""stage=sft and stage=pkt: trajectories and a base model in, a trained model out.

    python -m tltrain stage=pkt data=rotbench data.path=FOLDER model=smollm2_135m
    python -m tltrain stage=pkt hydra.run.dir=FOLDER stage.resume=true ...     go on after a stop

One path for both: MAE says which turns are learned (`stage.mae`), PKT how much each token of a turn counts
(`stage.w_max`). Writes `model/` (safetensors, tokenizer with the TL chat template), `history.jsonl` and `losses.png`
(what was logged), `metrics.json`. A model remembers digests of the queries it was trained on (`model/trained_on.json`),
so that an evaluation can tell seen from unseen ones.
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
from tltrain.data import hold_out, trajectories
from tltrain.data.judged import MaeReport, judged_trajectories, rule_of
from tltrain.data.reading import ReadReport
from tltrain.errors import TltrainError
from tltrain.models.loading import corpus
from tltrain.runtime import distributed, runs, terminal
from tltrain.stages import mae, shared
from tltrain.stages.shared import known, library_arguments, refused_arguments, save_model
from tltrain.trajectory import Trajectory

if TYPE_CHECKING:
    from datasets import Dataset

    from tltrain.tokens.encoder import Encoder
    from tltrain.tokens.packing import PackingReport
    from tltrain.tokens.prefix_tree import Limits

log = logging.getLogger(__name__)


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the stage into `folder`; returns what it wrote to `metrics.json`."""
    with terminal.status("loading torch, transformers and trl"):
        from transformers import set_seed

        from tltrain.inference import generation
        from tltrain.models import devices, loading
        from tltrain.training import sft, tree_mask
        from tltrain.training.progress import Progress
    from tltrain.tokens.encoder import Encoder

    checkpoint = shared.checkpoint_to_resume(cfg, folder)
    read, judged = ReadReport(), MaeReport()
    source = terminal.track(trajectories(cfg.data, cfg.seed, read), "reading trajectories")
    train, held_out = hold_out(judged_trajectories(source, rule_of(cfg), judged), cfg.data.holdout, cfg.seed)

    device, bf16 = devices.device_and_dtype(cfg.hardware)
    with distributed.leader_first():
        path = loading.resolve(cfg.model, cfg.cache.dir, lambda: corpus(train))
    tokenizer = loading.load_tokenizer(path, cfg.model)
    arguments = training_arguments(cfg, folder, device.type, bf16)
    set_seed(cfg.seed)  # an adapter begins at random
    model = loading.load(path, cfg.model, devices.weights_dtype(cfg.model), device)

    limit = min(filter(None, (arguments.max_length, generation.context(model))), default=sys.maxsize)
    trees = tree_limits(cfg, model, limit)
    packed = {
        "train": pack_all(cfg, train, Encoder(tokenizer), limit, "tokenizing", trees),
        "held_out": pack_all(cfg, held_out, Encoder(tokenizer), limit, "tokenizing (held-out)", trees),
    }
    rows, report = packed["train"]
    if not len(rows):
        raise TltrainError(
            f"there is nothing to learn: {judged.trajectories} trajectories, {judged.kept} calls kept, "
            f"{report.too_long} samples longer than {limit} tokens"
        )
    log.info("%s: %d turns in %d samples, %d tokens", cfg.stage.name, report.turns, len(rows), report.tokens)
    if trees is not None:
        log.info("%s", sharing(cfg.stage.packing.name, report, arguments))
    plan.announce(cfg, model.config, rows)
    with tracking.job(cfg, folder) as tracker:
        with refused_arguments():
            trainer = sft.TurnTrainer(
                model,
                arguments,
                sft.Collator(tokenizer.pad_token_id, tree_mask.BLOCK if device.type == "cuda" else 1),
                rows,
                packed["held_out"][0] or None,
                tokenizer,
                callbacks=[
                    Progress(f"training ({cfg.stage.name})", {"loss": "loss", "key tokens": "key_token_loss"}),
                    *tracker.callbacks(),
                ],
            )
        with shared.missing_packages():
            outcome = trainer.train((checkpoint and str(checkpoint)) or arguments.resume_from_checkpoint)
        held_out_loss = trainer.evaluate(metric_key_prefix="held_out") if packed["held_out"][0] else {}
        if not math.isfinite(outcome.training_loss + held_out_loss.get("held_out_loss", 0)):
            raise TltrainError("the loss became infinite: lower stage.args.learning_rate, or hardware.bf16=false")

        model = trainer.accelerator.unwrap_model(trainer.model)
        save_model(model, tokenizer, (item.query for item in train), path, folder / "model", trainer, cfg.model)
        tracker.artifact("model", folder / "model")
    metrics = {
        "train": outcome.metrics | write_losses(trainer.state.log_history, cfg.stage.name, folder) | asdict(report),
        "held_out": known(held_out_loss) | asdict(packed["held_out"][1]),
        "mae": asdict(judged),
        "base_model": path,
        "seed": cfg.seed,
        **mae.read_metrics(read, folder),
    }
    runs.finish(folder, cfg, metrics)
    shared.remove_checkpoints(cfg, folder)
    terminal.console.print(summary(cfg.stage.name, metrics, folder), markup=False)
    return metrics


def pack_all(
    cfg: DictConfig,
    items: list[Trajectory],
    encoder: Encoder,
    limit: int,
    description: str,
    trees: Limits | None = None,
) -> tuple[Dataset, PackingReport]:
    """The trajectories as rows for the trainer, and what became of them."""
    from tltrain.tokens.packing import PackingReport, pack
    from tltrain.training.sft import dataset

    report = PackingReport()
    layouts = pack(
        terminal.track(items, description),
        encoder,
        packing=cfg.stage.packing.name,
        w_max=cfg.stage.w_max,
        max_length=limit,
        truncation=cfg.stage.truncation.name,
        report=report,
        limits=trees,
    )
    return dataset(layouts), report


def tree_limits(cfg: DictConfig, model: Any, limit: int) -> Limits | None:
    """How large a tree may become; None where `stage.packing` makes none.

    Raises:
        TltrainError: `stage.packing=prefix_tree` with a model that cannot be given trees.
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
    """What trees save in tokens and what they cost in optimizer steps, and the choice that was made."""
    rows = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    share = report.tokens_in_trees / max(report.tokens_apart, 1)
    steps = [math.ceil(samples / rows) for samples in (report.samples, report.trajectories)]
    return (
        f"packing={asked}: {report.packing}; trees take {report.tokens_in_trees} tokens, {share:.2f} of the "
        f"{report.tokens_apart} in {report.trajectories} trajectories; {steps[0]} optimizer steps an epoch, "
        f"{steps[1]} with packing=trajectory"
    )


def write_losses(logs: list[dict[str, float]], stage: str, folder: Path) -> dict[str, float]:
    """Leave what was logged as `history.jsonl` and `losses.png`; returns the last losses on key and other tokens."""
    from tltrain.views.plots import loss_curves

    shared.write_history(logs, folder)
    steps = [entry for entry in logs if "loss" in entry]
    names = {"turns (weighted)": "loss", "key tokens": "key_token_loss", "other tokens": "other_token_loss"}
    curves = {
        label: [(entry["step"], entry[name]) for entry in steps if math.isfinite(entry[name])]
        for label, name in names.items()
    }
    if distributed.leads():
        loss_curves(
            folder / "losses.png",
            {label: points for label, points in curves.items() if points},
            f"Training loss, stage={stage}",
        )
    return known({name: steps[-1][name] for name in ("key_token_loss", "other_token_loss") if steps})


def training_arguments(cfg: DictConfig, folder: Path, device: str, bf16: bool) -> Any:
    """trl.SFTConfig as the configuration sets it."""
    from trl import SFTConfig

    return library_arguments(
        cfg,
        SFTConfig,
        folder,
        device,
        bf16,
        remove_unused_columns=True,
        dataset_kwargs={"skip_prepare_dataset": True},
    )


def summary(stage: str, metrics: dict[str, Any], folder: Path) -> str:
    """What the user wants to know at the end, in a few lines."""
    train, held = metrics["train"], metrics["held_out"]
    lines = [f"{stage}: {train['turns']} turns in {train['train_runtime']:.0f} s, loss {train['train_loss']:.3f}"]
    if "held_out_loss" in held:
        lines.append(
            f"held out: loss {held['held_out_loss']:.3f}, "
            f"key tokens {held.get('held_out_key_token_loss', math.nan):.3f}, "
            f"other tokens {held['held_out_other_token_loss']:.3f} ({held['turns']} turns)"
        )
    return "\n".join([*lines, f"Written to {folder / 'model'}"])
