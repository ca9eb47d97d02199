"""Who answers: the local model, an endpoint, the golden calls or a random tool, by the config group `source`.

    with open_source(cfg) as source:
        texts = source(samples)

The stages and the loop of conversations ask through this alone, so that whatever can be measured of one source can be
measured of all. Answers are text in the TL format; only the local model needs torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from omegaconf import DictConfig

from tltrain.errors import TltrainError
from tltrain.trajectory import Sample

NAMES = ("model", "endpoint", "golden", "random")


class Source(Protocol):
    """Answers samples, as often as it is asked to: a conversation in progress is a sample too.

    Attributes:
        name: who answers, for `metrics.json`; of the local model, where it came from.
        too_long: prompts so far that did not fit into the model's context; their answer is None.
    """

    name: str
    too_long: int

    def __call__(self, samples: Sequence[Sample]) -> Sequence[str | None]:
        """The answer to each sample, in their order."""
        ...

    def reading(self) -> Mapping[str, float]:
        """What is known of how prompts were read, for `metrics.json`."""
        ...


@contextmanager
def open_source(cfg: DictConfig) -> Iterator[Source]:
    """The source that `cfg.source` names; what it holds (a model, connections) is let go at the end.

    Raises:
        TltrainError: there is no such source, or what it needs (a model, a url, a package) is not there.
    """
    name = cfg.source.name
    if name == "model":
        from tltrain.sources.local import LocalModel

        model = LocalModel(cfg)
        try:
            yield model
        finally:
            model.close()
    elif name == "endpoint":
        from tltrain.sources.endpoint import open_endpoint

        with open_endpoint(cfg) as endpoint:
            yield endpoint
    elif name in NAMES:
        from tltrain.sources.baselines import GoldenCalls, RandomTool

        yield GoldenCalls(cfg) if name == "golden" else RandomTool(cfg)
    else:
        raise TltrainError(f"source.name: expected one of {', '.join(NAMES)}, found {name}")
