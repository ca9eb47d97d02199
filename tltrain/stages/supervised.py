"""stage=sft and stage=pkt: trajectories and a base model in, a trained model out.

    python -m tltrain stage=pkt data=rotbench data.path=FOLDER model=smollm2_135m

One path for both: MAE says which turns are learned (`stage.mae`), PKT how much each token of a turn counts
(`stage.w_max`). Writes `model/` (safetensors, tokenizer with the TL chat template), `history.jsonl` and `losses.png`
(what was logged), `metrics.json`. A model remembers digests of the queries it was trained on (`model/trained_on.json`),
so that an evaluation can tell seen from unseen ones.
"""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from tltrain import runs, terminal
from tltrain.config import check_arguments
from tltrain.data import hold_out, query_key, trajectories
from tltrain.data.reading import ReadReport
from tltrain.errors import TltrainError
from tltrain.formats import tl
from tltrain.stages import mae
from tltrain.trajectory import Trajectory

if TYPE_CHECKING:
    from datasets import Dataset

    from tltrain.tokens import Encoder, PackingReport

log = logging.getLogger(__name__)
CORPUS = 500
"""Trajectories whose text trains the tokenizer of a model with random weights."""


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the stage into `folder`; returns what it wrote to `metrics.json`."""
    with terminal.status("loading torch, transformers and trl"):
        from tltrain import generation, models
        from tltrain.training import sft
    from tltrain.tokens import Encoder

    read, judged = ReadReport(), mae.MaeReport()
    source = terminal.track(trajectories(cfg.data, cfg.seed, read), "reading trajectories")
    train, held_out = hold_out(mae.apply(source, mae.rule_of(cfg), judged), cfg.data.holdout, cfg.seed)

    device, bf16 = models.device_and_dtype(cfg.hardware)
    path = models.resolve(cfg.model, cfg.cache.dir, lambda: corpus(train))
    tokenizer = models.load_tokenizer(path, cfg.model)
    arguments = training_arguments(cfg, folder, device.type, bf16)
    model = models.load_model(path, cfg.model, models.weights_dtype(cfg.model), device)

    limit = min(filter(None, (arguments.max_length, generation.context(model))), default=sys.maxsize)
    packed = {
        "train": pack_all(cfg, train, Encoder(tokenizer), limit, "tokenizing"),
        "held_out": pack_all(cfg, held_out, Encoder(tokenizer), limit, "tokenizing (held-out)"),
    }
    rows, report = packed["train"]
    if not len(rows):
        raise TltrainError(
            f"there is nothing to learn: {judged.trajectories} trajectories, {judged.kept} calls kept, "
            f"{report.too_long} samples longer than {limit} tokens"
        )
    log.info("%s: %d turns in %d samples, %d tokens", cfg.stage.name, report.turns, len(rows), report.tokens)
    if cfg.tracking.name == "wandb":
        track_with_wandb(cfg, folder)
    with refused_arguments():
        trainer = sft.TurnTrainer(
            model,
            arguments,
            sft.Collator(tokenizer.pad_token_id),
            rows,
            packed["held_out"][0] or None,
            tokenizer,
            callbacks=[sft.Progress(f"training ({cfg.stage.name})")],
        )
    outcome = trainer.train(resume_from_checkpoint=arguments.resume_from_checkpoint)
    held_out_loss = trainer.evaluate(metric_key_prefix="held_out") if packed["held_out"][0] else {}
    if not math.isfinite(outcome.training_loss + held_out_loss.get("held_out_loss", 0)):
        raise TltrainError("the loss became infinite: lower stage.args.learning_rate, or hardware.bf16=false")

    save_model(trainer, tokenizer, train, folder / "model")
    with suppress(OSError):  # the Trainer makes it even where it saves nothing
        (folder / "checkpoints").rmdir()
    metrics = {
        "train": outcome.metrics | write_history(trainer.state.log_history, cfg.stage.name, folder) | asdict(report),
        "held_out": known(held_out_loss) | asdict(packed["held_out"][1]),
        "mae": asdict(judged),
        "base_model": path,
        "seed": cfg.seed,
        **mae.read_metrics(read, folder),
    }
    runs.finish(folder, cfg, metrics)
    terminal.console.print(summary(cfg.stage.name, metrics, folder), markup=False)
    return metrics


def pack_all(
    cfg: DictConfig, items: list[Trajectory], encoder: Encoder, limit: int, description: str
) -> tuple[Dataset, PackingReport]:
    """The trajectories as rows for the trainer, and what became of them."""
    from tltrain.tokens import PackingReport, pack
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
    )
    return dataset(layouts), report


def write_history(logs: list[dict[str, float]], stage: str, folder: Path) -> dict[str, float]:
    """Leave what was logged as `history.jsonl` and `losses.png`; returns the last losses on key and other tokens."""
    from tltrain.report.plots import loss_curves

    runs.write_lines(folder / "history.jsonl", map(json.dumps, map(known, logs)))
    steps = [entry for entry in logs if "loss" in entry]
    names = {"turns (weighted)": "loss", "key tokens": "key_token_loss", "other tokens": "other_token_loss"}
    curves = {
        label: [(entry["step"], entry[name]) for entry in steps if math.isfinite(entry[name])]
        for label, name in names.items()
    }
    loss_curves(
        folder / "losses.png",
        {label: points for label, points in curves.items() if points},
        f"Training loss, stage={stage}",
    )
    return known({name: steps[-1][name] for name in ("key_token_loss", "other_token_loss") if steps})


def known(numbers: dict[str, float]) -> dict[str, float]:
    """Without NaN, which is no JSON: there is no loss on key tokens where nothing has any."""
    return {name: number for name, number in numbers.items() if number == number}


def training_arguments(cfg: DictConfig, folder: Path, device: str, bf16: bool):
    """trl.SFTConfig from `model.args`, above them `stage.args`, and what the other groups say."""
    from trl import SFTConfig

    chosen = OmegaConf.to_container(OmegaConf.merge(cfg.model.args, cfg.stage.args), resolve=True)
    check_arguments(chosen, "stage.args")
    defaults = {"logging_steps": 1, "save_strategy": "no", "dataloader_pin_memory": device != "cpu"}
    defaults["logging_nan_inf_filter"] = False  # it would hide that a training has diverged
    if "per_device_train_batch_size" in chosen:  # the library's default of 8 would pad long trajectories to the longest
        defaults["per_device_eval_batch_size"] = chosen["per_device_train_batch_size"]
    if not {"activation_checkpointing", "gradient_checkpointing"} & set(chosen):
        defaults["activation_checkpointing"] = False  # TRL's default is True, which costs a small model a third
    with refused_arguments():
        return SFTConfig(
            **(defaults | chosen),
            output_dir=str(folder / "checkpoints"),
            run_name=str(folder),
            seed=cfg.seed,
            data_seed=cfg.seed,
            use_cpu=device == "cpu",
            bf16=bf16,
            disable_tqdm=True,
            remove_unused_columns=True,
            report_to=["wandb"] if cfg.tracking.name == "wandb" else [],
            dataset_kwargs={"skip_prepare_dataset": True},
        )


@contextmanager
def refused_arguments() -> Iterator[None]:
    """Says in one line what only the library can know to be wrong with its arguments, or missing for them."""
    try:
        yield
    except (ValueError, ImportError) as error:
        raise TltrainError(f"stage.args: {' '.join(str(error).split())}") from error


def track_with_wandb(cfg: DictConfig, folder: Path) -> None:
    """Start a wandb run in the run's folder; transformers' own callback logs into it."""
    import wandb

    wandb.init(
        project=cfg.tracking.project,
        mode=cfg.tracking.mode,
        group=cfg.tracking.group,
        job_type=cfg.stage.name,
        dir=str(folder),
        config=OmegaConf.to_container(cfg, resolve=True, enum_to_str=True),
        settings=wandb.Settings(silent=True, console="off"),
        reinit="finish_previous",
    )


def save_model(trainer: Any, tokenizer: Any, train: list[Trajectory], folder: Path) -> None:
    """`folder` with safetensors, tokenizer, chat template and the digests of the queries learned from."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    with terminal.status("saving the model"):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        runs.write_json(folder / "trained_on.json", sorted({query_key(item.query) for item in train}))


def corpus(items: list[Trajectory]) -> list[str]:
    """Text for a tokenizer of the model's own: what it will read and write."""
    return [tl.text(tl.segments(item)) for item in items[:CORPUS]]


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
