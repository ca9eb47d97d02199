"""Save a checkpoint at the end of the step in which SIGTERM arrives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tltrain.runtime import advice, preemption


class SaveAtSignal(TrainerCallback):
    """Make the Trainer save a checkpoint once any process has received SIGTERM, then end the run (`preemption`).

    An evaluation due at that step is skipped, since it may take longer than a scheduler waits.
    """

    def __init__(self, accelerator: Any) -> None:
        self.accelerator, self.saving = accelerator, False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._update_control(control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._update_control(control)

    def _update_control(self, control: Any) -> None:
        if not self.saving and self._asked():
            self.saving = control.should_save = True
        if self.saving:
            control.should_evaluate = False

    def _asked(self) -> bool:
        """Return whether any process was asked to stop, with the same result on all processes in the same step."""
        if self.accelerator.num_processes == 1:
            return preemption.asked()
        if preemption.asked():
            self.accelerator.set_trigger()
        return self.accelerator.check_trigger()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.saving:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            preemption.stop(f"{folder} is saved, and {advice.to_go_on()}")
