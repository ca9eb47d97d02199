"""A wall clock that jumps in the process that calls these functions, and files dated accordingly."""

from __future__ import annotations

import os
import time
from pathlib import Path

DAY = 86_400.0
_now, _now_ns = time.time, time.time_ns


def shifted(seconds: float) -> None:
    """Set the wall clock ahead (negative: back) by this much from now on."""
    time.time = lambda: _now() + seconds
    time.time_ns = lambda: _now_ns() + int(seconds * 1e9)


def jumping(seconds: float, step: int) -> None:
    """Let the clock jump at the end of an optimizer step; checkpoints saved after that have its times."""
    from transformers.trainer_callback import DefaultFlowCallback

    from tltrain.training import checkpoints

    on_step_end, mark_complete, jumped = DefaultFlowCallback.on_step_end, checkpoints.mark_complete, False

    def step_end(self, args, state, control, **kwargs):
        nonlocal jumped
        if state.global_step == step:
            shifted(seconds)
            jumped = True
            Path("jumped").touch()
        return on_step_end(self, args, state, control, **kwargs)

    def sealed(folder: Path, kept: dict) -> None:
        mark_complete(folder, kept)
        if jumped:
            date(folder, seconds)

    DefaultFlowCallback.on_step_end = step_end
    checkpoints.mark_complete = sealed


def date(folder: Path, seconds: float) -> None:
    """Date everything in a folder as by a clock that is this much ahead (negative: behind)."""
    when = _now() + seconds
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (when, when), follow_symlinks=False)
