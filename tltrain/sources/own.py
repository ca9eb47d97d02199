"""Sources that users write: a function of samples that returns texts, or one that opens a `Source`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from omegaconf import DictConfig

from tltrain.errors import TltrainError
from tltrain.runtime import targets
from tltrain.sources import Source
from tltrain.trajectory import Sample


class Answering:
    """A `Source` that asks a function.

    Args:
        answer: takes `samples` by name, and returns a text for each (None for a prompt that is too long).
    """

    def __init__(self, name: str, answer: Callable[..., Any]) -> None:
        self.name, self.answer, self.too_long = name, answer, 0

    def __call__(self, samples: Sequence[Sample]) -> Sequence[str | None]:
        with targets.explained(f"source {self.name}"):
            answers = self.answer(samples=samples)
            if answers is None or isinstance(answers, str):
                raise TltrainError(
                    f"source {self.name}: expected a list of {len(samples)} texts, one for each sample, found "
                    f"{'None' if answers is None else 'one text'}"
                )
            found = list(answers)
        if len(found) != len(samples):
            raise TltrainError(f"source {self.name}: expected {len(samples)} answers, found {len(found)}")
        if wrong := [type(text).__name__ for text in found if not isinstance(text, str | None)]:
            raise TltrainError(f"source {self.name}: expected a text for each sample, found {wrong[0]}")
        self.too_long += found.count(None)
        return found

    def reading(self) -> Mapping[str, Any]:
        """Return nothing: the function does not report what it reads."""
        return {}


def opened(cfg: DictConfig) -> AbstractContextManager[Source]:
    """Open the source that `cfg.source._target_` names.

    Raises:
        TltrainError: there is no such function, or it opens no source.
    """
    function = targets.named(cfg.source, {}, "source")
    where = f"source.{targets.TARGET}={cfg.source[targets.TARGET]}"
    if "samples" in targets.called_with(function):
        return _answering(str(cfg.source.name), targets.bound(cfg.source, function, "source"))
    with targets.explained(where):
        found = targets.call(cfg.source, {}, "source", cfg=cfg)
    if not hasattr(found, "__enter__"):
        raise TltrainError(
            f"{where}: expected a function of samples, or a context manager that gives a tltrain.sources.Source; it "
            f"returned {type(found).__name__}"
        )
    return found


@contextmanager
def _answering(name: str, answer: Callable[..., Any]) -> Iterator[Source]:
    yield Answering(name, answer)
