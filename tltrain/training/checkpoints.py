"""Checkpoints from which a run can resume wherever it was stopped. Does not import torch itself.

    checkpoints/checkpoint-30/     the Trainer's files: weights, optimizer, schedule, random states, history
        complete.json              written last: state that the Trainer does not save, and size and digest of each file

A checkpoint without `complete.json` is half-written, and one whose files differ from those listed is altered; a run
resumes from neither.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from tltrain.errors import Diverged, TltrainError
from tltrain.runtime import distributed, fingerprints, json_files, manifests, out_of_space, preemption, runs
from tltrain.training.kl import KlControl
from tltrain.training.trainer_mixin import TrainerMixin

if TYPE_CHECKING:
    from transformers.trainer_utils import TrainOutput

log = logging.getLogger(__name__)

COMPLETE = "complete.json"
"""A checkpoint with this file is complete; the file holds the state that the Trainer itself does not save."""
KEPT: dict[str, tuple[type, ...]] = {
    "kl_coefficient": (int, float, type(None)),
    "stopped": (str, type(None)),
    **dict.fromkeys(("loss", "loss_not_logged", "logged_step", "seconds"), (int, float)),
}
"""The fields of that state and their types."""
NAME = re.compile(r"checkpoint-\d+")
"""The names that the Trainer gives to checkpoints."""
COUNTS = "counts.json"
"""A file of each process in a checkpoint: what the training has cost so far."""


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint in `folder`; None if there is none."""
    whole = (checkpoint for checkpoint in _checkpoints(folder) if (checkpoint / COMPLETE).is_file())
    return max(whole, key=step_of, default=None)


def step_of(checkpoint: Path | None) -> int:
    """Return the optimizer step after which a checkpoint was made; 0 if its name does not give it."""
    number = "" if checkpoint is None else checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def _checkpoints(folder: Path) -> list[Path]:
    """Return the Trainer's checkpoints in `folder`, complete or not; folders with other names are not touched."""
    return [place for place in folder.glob("checkpoint-*") if NAME.fullmatch(place.name) and place.is_dir()]


def resumable_checkpoint(folder: Path) -> Path | None:
    """Return the newest intact checkpoint in `folder`, and remove half-written ones and altered ones newer than it."""
    while (found := last_checkpoint(folder)) is not None:
        if (changed := changed_file(found)) is None:
            break
        log.warning("%s is not used: %s has changed since it was written", found, changed)
        shutil.rmtree(found)
    for left in _checkpoints(folder):
        if not (left / COMPLETE).is_file():
            log.info("%s is removed: it is half-written", left)
            shutil.rmtree(left, ignore_errors=True)
    return found


def mark_complete(folder: Path, kept: dict[str, Any]) -> None:
    """Mark the checkpoint as complete: flush its files and write `kept`, with their digests, to `complete.json`."""
    runs.readable_by_umask(folder)
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    digests = manifests.of_files(folder, [name for name in names if name != COMPLETE], flush=True)
    whole = kept | {"files": digests}
    runs.write_json(folder / COMPLETE, whole | {"digest": fingerprints.fingerprint(whole)})


def changed_file(folder: Path) -> str | None:
    """Return the first file of a checkpoint that is missing or has changed; None if the checkpoint is intact."""
    try:
        kept = json_files.read_object(folder / COMPLETE)
        digest, files = kept.pop("digest", None), kept.get("files", {})
        if digest is not None and digest != fingerprints.fingerprint(kept):  # earlier versions wrote none
            return COMPLETE
        sizes = {name: (folder / name).stat().st_size for name in files if (folder / name).is_file()}
        for name, (size, _) in files.items():  # sizes first: they need no reading
            if name not in sizes or sizes[name] != size:
                return name
    except (OSError, ValueError, TypeError, AttributeError):
        return COMPLETE
    found = manifests.of_files(folder, files)
    return next((name for name in files if found[name] != files[name]), None)


@contextmanager
def tensors_only(deepspeed: bool = False) -> Iterator[None]:
    """Make every `torch.load` in the block, by any library, read only tensors and plain values and run no pickled code.

    Args:
        deepspeed: also allow the classes of DeepSpeed in its checkpoints; DeepSpeed itself would read any pickle.
    """
    import torch

    allowed: list[Any] = []
    if deepspeed:
        from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
        from deepspeed.runtime.zero.config import ZeroStageEnum
        from deepspeed.utils.tensor_fragment import fragment_address

        allowed = [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]
    names = ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ[names[0]] = "1"
    try:
        with torch.serialization.safe_globals(allowed):
            yield
    finally:
        del os.environ[names[0]]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def kept_of(folder: Path) -> dict[str, Any]:
    """Return the state in a checkpoint's `COMPLETE`; empty for a checkpoint of another program, which has no such file.

    Raises:
        TltrainError: the file does not have the form that `mark_complete` writes.
    """
    if not (folder / COMPLETE).is_file():
        return {}
    try:
        kept = json_files.read_object(folder / COMPLETE)
        for name, kinds in KEPT.items():
            if not isinstance(kept.get(name), kinds):
                raise ValueError(f"{name} is {kept.get(name)!r}"[:100])
    except (OSError, ValueError) as error:
        raise TltrainError(f"{folder} cannot be resumed from: {COMPLETE}: {' '.join(str(error).split())}") from error
    return kept


class ResumableCheckpoints(TrainerMixin):
    """Trainer mix-in that writes complete checkpoints, also at SIGTERM, and resumes as if the run had not stopped.

    A checkpoint also holds state that the Trainer does not save: sums that are not logged yet, the loss and duration of
    the training so far, the coefficient of `kl` if there is one, and the reason for stopping early.
    """

    kl: KlControl | None = None
    stopped: str | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        from tltrain.training.signals import SaveAtSignal

        self._kept: dict[str, Any] = {}
        self._running = False
        self._whole_at, self._seconds_before, self._began = -1, 0.0, time.monotonic()
        self.counts: dict[str, float] = {
            "target_tokens": 0,
            "sampled_calls": 0,
            "sampled_tokens": 0,
            "processor_seconds": 0.0,
        }
        super().__init__(*args, **kwargs)
        self.add_callback(SaveAtSignal(self.accelerator))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        from transformers.trainer_utils import rotate_checkpoints

        if self._whole_at == self.state.global_step:
            return
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
            self._save_extra(folder)
            so_far = self.counts | {"processor_seconds": self._processor_seconds()}
            runs.write_json(folder / f"{self.args.process_index}_{COUNTS}", so_far)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                mark_complete(folder, self._extra_state())
                best = self.state.best_model_checkpoint
                rotate_checkpoints(str(folder.parent), limit, best)  # by step number: the clock may jump
        except Exception:
            if distributed.leads():
                shutil.rmtree(folder, ignore_errors=True)  # frees space on a full disk, so that the error can be logged
            raise
        finally:
            self.args.save_total_limit = limit
        self._whole_at = self.state.global_step

    def _extra_state(self) -> dict[str, Any]:
        return {
            "kl_coefficient": self.kl and self.kl.coefficient,
            "stopped": self.stopped,
            "loss": self._total_loss_scalar,
            "loss_not_logged": self._tr_loss.item(),
            "logged_step": self._globalstep_last_logged,
            "seconds": self._elapsed(),
        }

    def train(self, resume_from_checkpoint: str | None = None, **kwargs: Any) -> TrainOutput:
        """Train, starting from a checkpoint if one is given.

        Raises:
            TltrainError: the checkpoint cannot be read.
        """
        if resume_from_checkpoint is not None:
            folder = Path(resume_from_checkpoint)
            self._kept = kept_of(folder)
            if self._kept:
                self.stopped = self._kept["stopped"]
                if self.kl is not None and self._kept["kl_coefficient"] is not None:
                    self.kl.coefficient = self._kept["kl_coefficient"]
            with self._reading(resume_from_checkpoint):
                self._load_extra(folder)
                self._load_counts(folder / f"{self.args.process_index}_{COUNTS}")
        self._began, self._running = time.monotonic(), False
        self._processor_began = time.process_time()
        try:
            with preemption.deferred():
                if resume_from_checkpoint is None:
                    return super().train(**kwargs)
                with self._reading(resume_from_checkpoint):
                    return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        finally:
            self.counts["processor_seconds"] = self._processor_seconds()

    def costs(self) -> dict[str, float]:
        """Return what the training has cost: its updates, and the counts of all processes, which must all call this."""
        import torch

        counts = torch.tensor(list(self.counts.values()), dtype=torch.float64, device=self.args.device)
        totals = dict(zip(self.counts, self.accelerator.reduce(counts, reduction="sum").tolist(), strict=True))
        return {
            "updates": self.state.global_step,
            **{name: round(total) for name, total in totals.items() if name != "processor_seconds"},
            "processor_seconds": round(totals["processor_seconds"], 1),
        }

    def _processor_seconds(self) -> float:
        """Return this process's processor seconds of training, over all threads and including those before a stop."""
        return self.counts["processor_seconds"] + time.process_time() - self._processor_began

    def _load_counts(self, file: Path) -> None:
        if file.is_file():  # earlier versions wrote none
            found = json_files.read_object(file)
            self.counts = {name: float(found.get(name, 0)) for name in self.counts}

    @contextmanager
    def _reading(self, checkpoint: str) -> Iterator[None]:
        """Turn errors of reading the checkpoint into one line; let errors of the training itself pass."""
        try:
            yield
        except Exception as error:
            if self._running or isinstance(error, TltrainError) or out_of_space.of_memory(error):
                raise
            why = " ".join(str(error).split())[:300]
            if isinstance(error, UnpicklingError):  # torch would suggest loading it anyway
                why = "it contains a pickle of something other than tensors, which is never loaded"
            raise TltrainError(f"{checkpoint} cannot be resumed from: {why}") from error

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        with tensors_only(deepspeed=self.is_deepspeed_enabled):
            return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        running, self._running = self._running, False
        with self._reading(str(checkpoint)):
            super()._load_rng_state(checkpoint)
        self._running = running

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        self._restore_counters()
        if self.stopped or self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True  # the Trainer would check only after one more step
            return
        super()._run_epoch(*args, **kwargs)

    def _finalize_training(self, trial: Any, num_train_samples: int, start_time: float) -> TrainOutput:
        self._restore_counters()
        return super()._finalize_training(trial, num_train_samples, time.time() - self._elapsed())

    def _restore_counters(self) -> None:
        """Restore the counters of a checkpoint, which the Trainer starts at zero."""
        if "loss" in self._kept:
            self._initial_global_step = 0
            self._total_loss_scalar = self._kept["loss"]
            self._tr_loss += self._kept["loss_not_logged"]
            self._globalstep_last_logged = self._kept["logged_step"]
            self._seconds_before = self._kept["seconds"]
        self._kept, self._running = {}, True

    def _elapsed(self) -> float:
        """Return the seconds of training so far by a monotonic clock, including those before the run was stopped."""
        return self._seconds_before + time.monotonic() - self._began

    def _save_extra(self, folder: Path) -> None:
        """Add files of the trainer to a checkpoint before it is marked complete."""

    def _load_extra(self, folder: Path) -> None:
        """Read the files of `_save_extra`."""

    def _not_finite(self, what: str, step: int, error: type[TltrainError] = Diverged) -> TltrainError:
        """Return the error for a value that is not finite; a reward that is not is no divergence of the training."""
        checkpoint = last_checkpoint(Path(self.args.output_dir))
        return error(
            f"step {step}: {what}; the last checkpoint is {checkpoint or 'none'}; lower stage.args.learning_rate "
            "(or stage.critic.learning_rate), or set hardware.bf16=false"
        )
