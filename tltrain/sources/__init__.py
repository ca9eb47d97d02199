"""Sources of answers: the local model, an endpoint, the golden calls or a random tool, by the config group `source`.

    with open_source(cfg) as source:
        texts = source(samples)

The stages and the conversation loop ask only through this interface, so whatever can be measured for one source can be
measured for all. Answers are text in the TL format; only the local model needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from omegaconf import DictConfig

from tltrain import config
from tltrain.errors import TltrainError
from tltrain.runtime import targets
from tltrain.trajectory import Sample


class Source(Protocol):
    """Answers samples, as often as it is called; a conversation in progress is a sample too.

    Attributes:
        name: who answers, for `metrics.json`; for the local model, where it came from.
        too_long: number of prompts so far that did not fit into the model's context; their answer is None.

    A source that knows why answers ended also has `endings` (`tltrain.sources.endings.Endings`). One whose answers are
    all in the TL format has `several_calls=False`; one whose answers may all make several calls has it True. One that
    reads a native format has `native_answers`: the last answers as `formats.native.Answer`, an empty one for prompts
    that did not fit, or None if the answer's text is complete; with any other format it is empty.
    """

    name: str
    too_long: int

    def __call__(self, samples: Sequence[Sample]) -> Sequence[str | None]:
        """Return the answer to each sample, in order."""
        ...

    def reading(self) -> Mapping[str, Any]:
        """Return what is known about how prompts were read and why answers ended, for `metrics.json`."""
        ...


def open_source(cfg: DictConfig) -> AbstractContextManager[Source]:
    """Open the source that `cfg.source` names; its model or connections are released at the end.

    Raises:
        TltrainError: there is no such source, or something that it needs (a model, a url, a package) is missing.
    """
    if cfg.source.get(targets.TARGET) is not None:
        from tltrain.sources.own import opened

        return opened(cfg)
    return targets.call(cfg.source, SOURCES, "source", cfg=cfg)


def check(cfg: DictConfig) -> None:
    """Raise a TltrainError, before anything is loaded, if it is already certain that the source cannot answer."""
    if targets.named(cfg.source, SOURCES, "source") is _endpoint:
        from tltrain.sources.endpoint import check_running

        if cfg.stage.get("names") == config.Names.offered:
            raise TltrainError(
                "stage.names=offered: only source=model supports it; for a server's own guided decoding give "
                "source.extra={FIELD: VALUE}"
            )
        if cfg.stage.get("temperature"):
            raise TltrainError(
                f"stage.temperature={cfg.stage.temperature} applies to source=model; a server takes source.temperature"
            )
        check_running(cfg)


def description(cfg: DictConfig) -> str:
    """Return what is shown while a source answers: the benchmark's name, or none in a stage that asks no benchmark."""
    return f"answering {cfg.benchmark.name}" if cfg.stage.name == "eval" else "answering"


def endings_file(cfg: DictConfig) -> str:
    """Return the file in which a run records why each answer ended; conversations have none."""
    if cfg.stage.get("name") == "predict":
        return "prediction.json"
    return "" if cfg.benchmark.get("multi") else "predictions.jsonl"


@contextmanager
def _local_model(source: config.Source, cfg: DictConfig) -> Iterator[Source]:
    from tltrain.sources.local import LocalModel

    model = LocalModel(cfg)
    try:
        yield model
        model.endings.warn(cfg.stage.max_new_tokens, endings_file(cfg))
    finally:
        model.close()


@contextmanager
def _endpoint(source: config.Endpoint, cfg: DictConfig) -> Iterator[Source]:
    from tltrain.sources.endpoint import open_endpoint

    with open_endpoint(cfg) as endpoint:
        yield endpoint
        endpoint.endings.warn(cfg.stage.max_new_tokens, endings_file(cfg))


@contextmanager
def _golden_calls(source: config.Source, cfg: DictConfig) -> Iterator[Source]:
    from tltrain.sources.baselines import GoldenCalls

    yield GoldenCalls()


@contextmanager
def _random_tool(source: config.Source, cfg: DictConfig) -> Iterator[Source]:
    from tltrain.sources.baselines import RandomTool

    yield RandomTool(cfg)


SOURCES: dict[str, Callable[..., AbstractContextManager[Source]]] = {
    "model": _local_model,
    "endpoint": _endpoint,
    "golden": _golden_calls,
    "random": _random_tool,
}
"""Sources by name; the annotation of their settings defines their keys."""
