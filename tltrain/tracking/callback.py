"""Forward a Trainer's logs to a tracker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class LogCallback(TrainerCallback):
    """Calls `log(logs, step)` for the Trainer's logs, on rank 0."""

    def __init__(self, log: Callable[[Mapping[str, Any], int], None]) -> None:
        self.log = log

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if state.is_world_process_zero and logs:
            self.log(logs, state.global_step)
