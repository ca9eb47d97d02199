"""What the stages that train have in common: arguments for the libraries, what is left behind."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tltrain.data import TRAINED_ON, query_key, trained_on
from tltrain.entry.arguments import check_arguments
from tltrain.errors import TltrainError
from tltrain.runtime import distributed, runs, terminal
from tltrain.training.arguments import configured_arguments, library_class, trainer_arguments

log = logging.getLogger(__name__)

WEIGHT = 0.02
"""Size of a typical weight: the spread that most models are initialized with."""


def library_arguments(cfg: DictConfig, kind: type, folder: Path, device: str, bf16: bool, **ours: Any) -> Any:
    """An object of the library's class of arguments from the user's choices and what other groups say.

    Args:
        kind: a subclass of transformers.TrainingArguments.
        ours: more of its arguments, which the configuration states elsewhere.
    """
    name = f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
    assert name == library_class(cfg.stage)
    check_arguments(configured_arguments(cfg), "stage.args", name)
    from tltrain.training import engines

    with refused_arguments():
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
    if arguments.deepspeed:
        engines.connect(device)
    elif lost_updates(cfg, arguments.learning_rate):
        log.warning(
            "model.dtype=%s at learning rate %g: most updates are smaller than the steps between such numbers and are "
            "lost; model.dtype=float32, or hardware=zero2 or zero3, which keep a float32 copy",
            cfg.model.dtype,
            arguments.learning_rate,
        )
    return arguments


def lost_updates(cfg: DictConfig, learning_rate: float) -> bool:
    """Whether weights that are trained as they are kept, in 16 bits, would hardly change.

    An Adam step is about as long as the learning rate, and a weight about `WEIGHT`; bfloat16 has 8 significant bits, so
    that what is less than 2^-9 of a weight is rounded away. FSDP keeps float32 weights, and adapters are float32.
    """
    kept = {"bfloat16": 8, "float16": 11}.get(cfg.model.dtype)
    return (
        kept is not None and not cfg.hardware.fsdp and cfg.model.lora.r is None and learning_rate < WEIGHT / 2**kept / 2
    )


def checkpoint_to_resume(cfg: DictConfig, folder: Path, left: Iterable[str] = ()) -> Path | None:
    """The last whole checkpoint where `stage.resume=true`; without it, checkpoints of an earlier run are removed.

    Args:
        left: names of other files of an earlier run, removed likewise.
    """
    from tltrain.training.checkpoints import to_resume

    checkpoints = folder / "checkpoints"
    if cfg.stage.resume:
        found = distributed.share(to_resume(checkpoints) if distributed.leads() else None)
        if found is not None:
            log.info("going on from %s", found)
            return found
        log.info("stage.resume=true: there is no whole checkpoint in %s, so it begins at the beginning", checkpoints)
    given = OmegaConf.select(cfg, "stage.args.resume_from_checkpoint")
    if distributed.leads() and not (given and Path(given).resolve().is_relative_to(checkpoints.resolve())):
        for name in left:
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(checkpoints, ignore_errors=True)
    distributed.share(None)  # nobody goes on before they are gone
    return None


def remove_checkpoints(cfg: DictConfig, folder: Path) -> None:
    """At the end of a run, unless they are to be kept."""
    if not cfg.stage.keep_checkpoints and distributed.leads():
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)


@contextmanager
def refused_arguments() -> Iterator[None]:
    """Says in one line what only the library can know to be wrong with its arguments, or missing for them."""
    try:
        yield
    except (ValueError, ImportError) as error:
        raise TltrainError(f"stage.args: {' '.join(str(error).split())}") from error


@contextmanager
def missing_packages() -> Iterator[None]:
    """Says in one line what the library finds missing only when it begins (an optimizer's package, kernels)."""
    try:
        yield
    except ImportError as error:
        raise TltrainError(f"stage.args: {' '.join(str(error).split())}") from error


def save_model(
    model: Any, tokenizer: Any, queries: Iterable[str], base: str, folder: Path, trainer: Any, choice: DictConfig
) -> None:
    """`folder` with safetensors, tokenizer, chat template and the digests of the queries learned from.

    Args:
        base: where the model came from; what that was trained on counts too.
        trainer: the one that trained it; of several processes all call this, and the first writes.
        choice: the group `model`, which says whether an adapter is merged.
    """
    from tltrain.models import devices, loading
    from tltrain.training import engines

    known = trained_on(base)
    part = folder.with_name(f".{folder.name}.part")  # under its name it is whole
    if distributed.leads():
        shutil.rmtree(part, ignore_errors=True)
    with terminal.status("saving the model"):
        engines.save(model, trainer, part)
        if distributed.leads():
            if choice.lora.r is not None and choice.lora.merge:
                engines.forget()
                loading.merge(part, base, choice, devices.weights_dtype(choice))
            tokenizer.save_pretrained(part)
        runs.write_json(part / TRAINED_ON, sorted({*known, *map(query_key, queries)}))
        if distributed.leads():
            shutil.rmtree(folder, ignore_errors=True)
            part.rename(folder)


def write_history(logs: list[dict[str, float]], folder: Path) -> None:
    """Leave what was logged as `history.jsonl`."""
    runs.write_lines(folder / "history.jsonl", map(json.dumps, map(known, logs)))


def known(numbers: dict[str, Any]) -> dict[str, Any]:
    """Without NaN, which is no JSON: there is no loss on key tokens where nothing has any."""
    return {name: number for name, number in numbers.items() if not isinstance(number, float) or math.isfinite(number)}
