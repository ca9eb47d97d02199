"""Prepare, run and finish a training run, for every trainer and algorithm."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from tltrain.data import TRAINED_ON, query_key, trained_on
from tltrain.data.judged import JudgedSource, log_judging, log_reading, read_metrics
from tltrain.data.split import opening_key
from tltrain.entry.arguments import check_arguments
from tltrain.errors import Diverged, TltrainError
from tltrain.runtime import distributed, json_files, runs, terminal
from tltrain.sweeps import resuming
from tltrain.training.arguments import (
    configured_arguments,
    float32_copy,
    library_class,
    lost_updates,
    trainer_arguments,
)
from tltrain.trajectory import Trajectory

if TYPE_CHECKING:
    import torch

    from tltrain.tokens.encoder import Encoder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingRun:
    """A training run with its data read and its model loaded.

    Attributes:
        source: the data source with its counts. train, held_out: its trajectories.
        base: the folder or hub id that the model came from.
        arguments: the library's arguments object. resume_from: the checkpoint to resume from.
    """

    cfg: DictConfig
    folder: Path
    source: JudgedSource
    train: list[Trajectory]
    held_out: list[Trajectory]
    device: torch.device
    bf16: bool
    base: str
    encoder: Encoder
    arguments: Any
    model: Any
    resume_from: str | None


def prepare(
    cfg: DictConfig,
    folder: Path,
    make_arguments: Callable[[DictConfig, Path, str, bool], Any],
    leftovers: Iterable[str] = (),
    learns_data: bool = True,
) -> TrainingRun:
    """Read the data and load the model that `cfg` names.

    Args:
        make_arguments: makes the library's arguments object from (configuration, folder, device type, bf16).
        leftovers: names of an earlier run's files in `folder`, other than checkpoints, that resuming needs.
        learns_data: whether the calls of the data are learned; if so, a line says how many are not.
    """
    from transformers import set_seed

    from tltrain.models import devices, encoders, loading

    checkpoint = checkpoint_to_resume(cfg, folder, leftovers)
    source = JudgedSource(cfg, "reading trajectories")
    train, held_out = source.split()
    log_reading(source.read, folder)
    if learns_data:
        log_judging(source.judged)
    device, bf16 = devices.device_and_dtype(cfg.hardware)
    with distributed.leader_first():
        base = loading.resolve(cfg.model, cfg.cache.dir, lambda: loading.corpus(train, cfg.format), cfg.format)
    encoder = encoders.load_encoder(base, cfg.model, cfg.format)
    arguments = make_arguments(cfg, folder, device.type, bf16)
    set_seed(cfg.seed)  # an adapter is initialized at random
    return TrainingRun(
        cfg=cfg,
        folder=folder,
        source=source,
        train=train,
        held_out=held_out,
        device=device,
        bf16=bf16,
        base=base,
        encoder=encoder,
        arguments=arguments,
        model=loading.load(base, cfg.model, devices.weights_dtype(cfg.model), device),
        resume_from=str(checkpoint) if checkpoint else arguments.resume_from_checkpoint,
    )


def train(run: TrainingRun, trainer: Any) -> Any:
    """Train and return the Trainer's outcome."""
    with library_errors((ImportError,)):  # an optimizer's package or kernels may be missing
        return trainer.train(resume_from_checkpoint=run.resume_from)


def check_loss(loss: float) -> None:
    """Raise `Diverged` if the loss is not finite."""
    if not math.isfinite(loss):
        raise Diverged("the loss became infinite: lower stage.args.learning_rate, or hardware.bf16=false")


def finish(run: TrainingRun, results: dict[str, Any]) -> dict[str, Any]:
    """Write `metrics.json`, the results and the counts that all training runs have, which marks the run as finished."""
    metrics = {
        **results,
        "mae": asdict(run.source.judged),
        "base_model": run.base,
        "seed": run.cfg.seed,
        **read_metrics(run.source.read),
    }
    runs.finish(run.folder, run.cfg, metrics)
    remove_checkpoints(run.cfg, run.folder)
    return metrics


# --- the libraries' arguments -----------------------------------------------------------------------------------------


def library_arguments(cfg: DictConfig, kind: type, folder: Path, device: str, bf16: bool, **ours: Any) -> Any:
    """Make a library's arguments object from the user's settings and those of other groups.

    Args:
        kind: a subclass of transformers.TrainingArguments.
        ours: further arguments, which the configuration sets elsewhere.
    """
    name = f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
    assert name == library_class(cfg.stage)
    check_arguments(configured_arguments(cfg), "stage.args", name)
    from tltrain.training import engines

    with library_errors():
        arguments = kind(
            **({"dataloader_pin_memory": device != "cpu"} | trainer_arguments(cfg)),
            output_dir=str(folder / "checkpoints"),
            run_name=str(folder),
            seed=cfg.seed,
            data_seed=cfg.seed,
            use_cpu=device == "cpu",
            bf16=bf16,
            disable_tqdm=True,
            report_to=[],  # `tltrain.tracking` adds callbacks
            **engines.arguments(cfg.hardware),
            **ours,
        )
    check_lost_updates(cfg, arguments.learning_rate)
    if arguments.deepspeed:
        engines.connect(device)
    return arguments


def check_lost_updates(cfg: DictConfig, learning_rate: float) -> None:
    """Stop a training run whose updates would be lost to rounding, or warn if `model.allow_lost_updates` is set.

    Raises:
        TltrainError: they would be lost.
    """
    lost = lost_updates(cfg, learning_rate, float32_copy=float32_copy(cfg, distributed.size()))
    if lost is None:
        return
    if not cfg.model.allow_lost_updates:
        raise TltrainError(
            f"{lost}: hardware=zero2 or zero3 keeps a float32 copy, model.dtype=float32 takes more memory, "
            "model.allow_lost_updates=true trains anyway"
        )
    log.warning("%s", lost)


# --- checkpoints ------------------------------------------------------------------------------------------------------


def checkpoint_to_resume(cfg: DictConfig, folder: Path, leftovers: Iterable[str] = ()) -> Path | None:
    """Return the last complete checkpoint if `stage.resume=true`; otherwise remove an earlier run's checkpoints.

    Args:
        leftovers: names of other files of an earlier run, to be removed with them.
    """
    from tltrain.training.checkpoints import resumable_checkpoint

    checkpoints = folder / "checkpoints"
    if cfg.stage.resume:
        found = distributed.share(resumable_checkpoint(checkpoints) if distributed.leads() else None)
        if found is not None:
            log.info("continuing from %s", found)
            return found
        log.info(
            "stage.resume=true: there is no complete checkpoint in %s, so training starts from scratch", checkpoints
        )
    given = OmegaConf.select(cfg, "stage.args.resume_from_checkpoint")
    if distributed.leads():
        if given:
            log.info("continuing from %s", given)
        if not (given and Path(given).resolve().is_relative_to(checkpoints.resolve())):
            for name in leftovers:
                (folder / name).unlink(missing_ok=True)
            shutil.rmtree(checkpoints, ignore_errors=True)
        resuming.record(cfg, folder)
    distributed.share(None)  # no process continues before they are removed
    return None


def remove_checkpoints(cfg: DictConfig, folder: Path) -> None:
    """Remove the checkpoints of a finished run unless they are to be kept."""
    if not cfg.stage.keep_checkpoints and distributed.leads():
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)


@contextmanager
def library_errors(kinds: tuple[type[Exception], ...] = (ValueError, ImportError)) -> Iterator[None]:
    """Turn the library's errors about wrong or missing arguments into a one-line error.

    Args:
        kinds: the exceptions that the library raises for them.
    """
    try:
        yield
    except kinds as error:
        raise TltrainError(f"stage.args: {' '.join(str(error).split())}") from error


# --- results --------------------------------------------------------------------------------------------------------


def save_model(run: TrainingRun, model: Any, trainer: Any) -> None:
    """Write `model/`: safetensors, tokenizer, chat template, tokenization record, and digests of training data.

    Args:
        trainer: the one that trained the model. Every process must call this; the first one writes.
    """
    from tltrain.models import devices, encoders, loading
    from tltrain.serving.prompts import TrainedPrompts
    from tltrain.training import engines

    native = run.encoder.reads_tokens
    choice, folder = run.cfg.model, run.folder / "model"
    known = {*trained_on(run.base), *(query_key(item.query) for item in run.train)}
    known.update(filter(None, map(opening_key, run.train)))
    part = folder.with_name(f".{folder.name}.part")  # the final name only ever holds a complete model
    if distributed.leads():
        shutil.rmtree(part, ignore_errors=True)
    model.config.use_cache = loading.sizes_at(run.base).get("use_cache", True)  # which trainers switch off
    with terminal.status("saving the model"):
        engines.save(model, trainer, part, devices.weights_dtype(choice))
        if distributed.leads():
            if choice.lora.r is not None and choice.lora.merge:
                engines.reset_deepspeed_config()
                loading.merge(part, run.base, choice, devices.weights_dtype(choice))
            run.encoder.tokenizer.save_pretrained(part)
            options = run.cfg.format.options if native else {}
            apart = prompts_read_apart(run)
            reading = encoders.record_of(run.encoder, len(run.train), apart, thinks(run.train), options)
            reading.write(part)
            TrainedPrompts.of(run.encoder, run.held_out or run.train).write(part)
            if native:
                encoders.end_at(part, run.encoder.native.stop_ids)  # type: ignore[attr-defined]
        runs.write_json(part / TRAINED_ON, sorted(known))
        if distributed.leads():
            runs.readable_by_umask(part)
            shutil.rmtree(folder, ignore_errors=True)
            part.rename(folder)


def write_card(run: TrainingRun, results: Mapping[str, Any]) -> None:
    """Write the model card into `model/`, from what the stage reports."""
    from tltrain.serving import card

    folder = run.folder / "model"
    if distributed.leads():
        record = json_files.read_object(folder / RECORD)
        words = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
        card.write(folder, run.cfg, record, {**results, "mae": asdict(run.source.judged)}, words)


RECORD = "tltrain.json"
"""See `tltrain.models.encoders`, which imports torch."""


def thinks(items: Iterable[Trajectory]) -> bool:
    """Return whether a learned message of the assistant has a thought."""
    return any(
        message.thought and (message.learn or any(made.learn for made in message.calls))
        for item in items
        for message in item.messages
    )


def prompts_read_apart(run: TrainingRun) -> int:
    """Count the trajectories that tokenize differently if their text is read as a whole, and warn about them."""
    apart = sum(map(run.encoder.reads_apart, run.train))
    if apart:
        log.warning(
            "%d of %d conversations have other tokens if their text is read as a whole: this tokenizer joins the end "
            "of one message to the start of the next. A server that is sent text reads them that way; "
            "source.tokenizer=FOLDER sends token ids",
            apart,
            len(run.train),
        )
    return apart


def write_history(logs: list[dict[str, float]], folder: Path) -> None:
    """Write the logged values to `history.jsonl`."""
    runs.write_lines(folder / "history.jsonl", map(json.dumps, map(finite, logs)))


def finite(numbers: dict[str, Any]) -> dict[str, Any]:
    """Drop NaN and infinities, which JSON cannot hold (a run without key tokens has no key-token loss)."""
    return {name: number for name, number in numbers.items() if not isinstance(number, float) or math.isfinite(number)}
