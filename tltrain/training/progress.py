"""A trainer's progress bar on the terminal, with selected metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tltrain.runtime import terminal


class Progress(TrainerCallback):
    """A progress bar over the optimizer steps.

    Args:
        notes: the metrics beside the bar: label -> name under which the metric is logged.
    """

    def __init__(self, description: str, notes: Mapping[str, str]) -> None:
        self.description, self.notes = description, notes

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            self._context = terminal.progress(self.description, state.max_steps)
            self._advance = self._context.__enter__()
            if state.global_step:  # resumed
                self._advance(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            logs: dict[str, float] = next((entry for entry in reversed(state.log_history) if "loss" in entry), {})
            found = [f"{word} {logs[name]:.3f}" for word, name in self.notes.items() if name in logs]
            self._advance(1, ", ".join(found) or None)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            self._context.__exit__(None, None, None)
