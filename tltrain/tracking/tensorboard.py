"""`tracking=tensorboard`: transformers' own callback, with its names; writes only metrics, to `RUN_FOLDER/tensorboard`.

tensorboard --logdir outputs
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tltrain.tracking import Tracker, guarded, names


class TensorBoardTracker(Tracker):
    """Tracks a Trainer's logs with transformers' callback, and numbers of a whole job under our names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "tensorboard"

    def callbacks(self) -> list[Any]:
        from transformers.integrations import TensorBoardCallback

        callback = TensorBoardCallback()
        callback.logging_dir = str(self.folder)  # the default is among the checkpoints, which may be removed
        return [callback]

    @guarded
    def metrics(self, numbers: Mapping[str, float]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(self.folder)) as writer:
            for name, number in numbers.items():
                writer.add_scalar(name, number)

    @guarded
    def evaluation(
        self, metrics: Mapping[str, Any], predictions: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]
    ) -> None:
        self.metrics(names.of_evaluation(metrics))
