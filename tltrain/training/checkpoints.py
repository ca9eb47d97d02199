"""Checkpoints that a run can be resumed from whenever it was stopped. Imports no torch by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tltrain import runs
from tltrain.training.kl import KlControl

COMPLETE = "complete.json"
"""A checkpoint with this file is whole; it holds what the Trainer's own files do not."""


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint in `folder`."""
    whole = [path.parent for path in folder.glob(f"checkpoint-*/{COMPLETE}")]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


class WholeCheckpoints:
    """Mixed in before a Trainer with `kl`: marks a checkpoint that is whole, and only then removes older ones."""

    kl: KlControl

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        from transformers.trainer_utils import rotate_checkpoints

        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        self._save_more(folder)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            runs.write_json(folder / COMPLETE, {"kl_coefficient": self.kl.coefficient})
            rotate_checkpoints(str(folder.parent), save_total_limit=limit, use_mtime=True)

    def train(self, resume_from_checkpoint: str | None = None, **kwargs: Any):
        """Train, from a checkpoint of `last_checkpoint` where one is given."""
        if resume_from_checkpoint is not None:
            folder = Path(resume_from_checkpoint)
            self.kl.coefficient = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))["kl_coefficient"]
            self._load_more(folder)
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

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
