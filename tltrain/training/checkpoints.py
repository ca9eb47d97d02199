"""Checkpoints that a run can be resumed from whenever it was stopped. Imports no torch by itself.

    checkpoints/checkpoint-30/     what the Trainer writes: weights, optimizer, schedule, random states, history
        complete.json              last: what the Trainer does not keep, and every file's size and digest

Without `complete.json` a checkpoint is half-written, with files other than those listed it is altered; neither is ever
resumed from.
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

from tltrain.errors import TltrainError
from tltrain.runtime import distributed, fingerprints, json_files, manifests, out_of_space, preemption, runs
from tltrain.training.kl import KlControl
from tltrain.training.trainer_mixin import TrainerMixin

if TYPE_CHECKING:
    from transformers.trainer_utils import TrainOutput

log = logging.getLogger(__name__)

COMPLETE = "complete.json"
"""A checkpoint with this file is whole; it holds what the Trainer's own files do not."""
KEPT: dict[str, tuple[type, ...]] = {
    "kl_coefficient": (int, float, type(None)),
    "stopped": (str, type(None)),
    **dict.fromkeys(("loss", "loss_not_logged", "logged_step", "seconds"), (int, float)),
}
"""What it holds of a training, and of which kinds."""
NAME = re.compile(r"checkpoint-\d+")
"""How the Trainer names its checkpoints."""


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint in `folder`."""
    whole = (checkpoint for checkpoint in _checkpoints(folder) if (checkpoint / COMPLETE).is_file())
    return max(whole, key=step_of, default=None)


def step_of(checkpoint: Path | None) -> int:
    """The optimizer step a checkpoint was made after; 0 where its name does not say."""
    number = "" if checkpoint is None else checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def _checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of the Trainer in `folder`, whole or not; what is called otherwise is somebody else's."""
    return [place for place in folder.glob("checkpoint-*") if NAME.fullmatch(place.name) and place.is_dir()]


def to_resume(folder: Path) -> Path | None:
    """The newest checkpoint in `folder` that is as it was written; half-written, altered and later ones are removed."""
    while (found := last_checkpoint(folder)) is not None:
        if (changed := altered(found)) is None:
            break
        log.warning("%s is not used: %s is not as it was written", found, changed)
        shutil.rmtree(found)
    for left in _checkpoints(folder):
        if not (left / COMPLETE).is_file():
            log.info("%s is removed: it is half-written", left)
            shutil.rmtree(left, ignore_errors=True)
    return found


def seal(folder: Path, kept: dict[str, Any]) -> None:
    """Mark the checkpoint as whole, with its files' digests, once all of it is on the disk."""
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    digests = manifests.of_files(folder, [name for name in names if name != COMPLETE], flush=True)
    whole = kept | {"files": digests}
    runs.write_json(folder / COMPLETE, whole | {"digest": fingerprints.fingerprint(whole)})


def altered(folder: Path) -> str | None:
    """The first file of a checkpoint that is missing, cut or has another content; None where all is as it was."""
    try:
        kept = json_files.read_object(folder / COMPLETE)
        digest, files = kept.pop("digest", None), kept.get("files", {})
        if digest is not None and digest != fingerprints.fingerprint(kept):  # earlier versions kept none
            return COMPLETE
        sizes = {name: (folder / name).stat().st_size for name in files if (folder / name).is_file()}
        for name, (size, _) in files.items():  # first: needs no reading
            if name not in sizes or sizes[name] != size:
                return name
    except (OSError, ValueError, TypeError, AttributeError):
        return COMPLETE
    found = manifests.of_files(folder, files)
    return next((name for name in files if found[name] != files[name]), None)


@contextmanager
def tensors_only(deepspeed: bool = False) -> Iterator[None]:
    """Within it every `torch.load`, of whatever library, reads tensors and plain values, and runs no code of a pickle.

    Args:
        deepspeed: allow the classes of DeepSpeed's own that its checkpoints hold; it would read any pickle.
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
    """What the Trainer does not keep, of a checkpoint of ours; nothing of another program's, which has no `COMPLETE`.

    Raises:
        TltrainError: it is not as `seal` writes it.
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


class WholeCheckpoints(TrainerMixin):
    """Mixed in before a Trainer: checkpoints as above, saved at SIGTERM too, resumed as if nothing had happened.

    What the Trainer forgets is kept with them: sums that are not logged yet, the loss and the time of all the training
    so far, the coefficient of `kl` where there is one, and why the training was stopped early.
    """

    kl: KlControl | None = None
    stopped: str | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        from tltrain.training.signals import SaveAtSignal

        self._kept: dict[str, Any] = {}
        self._running = False
        self._whole_at, self._seconds_before, self._began = -1, 0.0, time.monotonic()
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
            self._save_more(folder)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                seal(folder, self._more_to_keep())
                best = self.state.best_model_checkpoint
                rotate_checkpoints(str(folder.parent), limit, best)  # by their numbers: the clock may jump
        except Exception:
            if distributed.leads():
                shutil.rmtree(folder, ignore_errors=True)  # on a full disk there is room for the message again
            raise
        finally:
            self.args.save_total_limit = limit
        self._whole_at = self.state.global_step

    def _more_to_keep(self) -> dict[str, Any]:
        return {
            "kl_coefficient": self.kl and self.kl.coefficient,
            "stopped": self.stopped,
            "loss": self._total_loss_scalar,
            "loss_not_logged": self._tr_loss.item(),
            "logged_step": self._globalstep_last_logged,
            "seconds": self._elapsed(),
        }

    def train(self, resume_from_checkpoint: str | None = None, **kwargs: Any) -> TrainOutput:
        """Train, from a checkpoint where one is given.

        Raises:
            TltrainError: the checkpoint is no whole one.
        """
        if resume_from_checkpoint is not None:
            folder = Path(resume_from_checkpoint)
            self._kept = kept_of(folder)
            if self._kept:
                self.stopped = self._kept["stopped"]
                if self.kl is not None and self._kept["kl_coefficient"] is not None:
                    self.kl.coefficient = self._kept["kl_coefficient"]
            with self._reading(resume_from_checkpoint):
                self._load_more(folder)
        self._began, self._running = time.monotonic(), False
        with preemption.deferred():
            if resume_from_checkpoint is None:
                return super().train(**kwargs)
            with self._reading(resume_from_checkpoint):
                return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    @contextmanager
    def _reading(self, checkpoint: str) -> Iterator[None]:
        """Says in one line that the checkpoint cannot be read; what goes wrong in the training is let through."""
        try:
            yield
        except Exception as error:
            if self._running or isinstance(error, TltrainError) or out_of_space.of_memory(error):
                raise
            why = " ".join(str(error).split())[:300]
            if isinstance(error, UnpicklingError):  # torch would advise to read it nevertheless
                why = "it holds a pickle that is no plain tensors, which is never read"
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
        self._take_up()
        if self.stopped or self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True  # the Trainer would look for it only after one more step
            return
        super()._run_epoch(*args, **kwargs)

    def _finalize_training(self, trial: Any, num_train_samples: int, start_time: float) -> TrainOutput:
        self._take_up()
        return super()._finalize_training(trial, num_train_samples, time.time() - self._elapsed())

    def _take_up(self) -> None:
        """Put what a checkpoint kept where the Trainer has begun with zero."""
        if "loss" in self._kept:
            self._initial_global_step = 0
            self._total_loss_scalar = self._kept["loss"]
            self._tr_loss += self._kept["loss_not_logged"]
            self._globalstep_last_logged = self._kept["logged_step"]
            self._seconds_before = self._kept["seconds"]
        self._kept, self._running = {}, True

    def _elapsed(self) -> float:
        """Seconds of training so far, by a clock that does not jump, with those before the run was stopped."""
        return self._seconds_before + time.monotonic() - self._began

    def _save_more(self, folder: Path) -> None:
        """What a trainer adds to a checkpoint before it is whole."""

    def _load_more(self, folder: Path) -> None:
        """The same, read back."""

    def _broken(self, what: str, step: int) -> str:
        """The line that a run ends with at something not finite."""
        checkpoint = last_checkpoint(Path(self.args.output_dir))
        return (
            f"step {step}: {what}; the last checkpoint is {checkpoint or 'none'}; lower stage.args.learning_rate "
            "(or stage.critic.learning_rate), or set hardware.bf16=false"
        )
