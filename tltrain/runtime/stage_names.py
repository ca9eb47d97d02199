"""Rename the keys of a stage within another stage to the names that the user of the other stage types.

A stage calls its key `stage.args.learning_rate`. In a pipeline the same key is `stage.supervised.args.learning_rate`,
or for example `stage.w_max` if the pipeline has its own key for it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from rich.console import ConsoleRenderable, RenderHook
from rich.text import Text

from tltrain import config
from tltrain.errors import TltrainError
from tltrain.runtime import terminal

_KEY = re.compile(r"(?<![\w.])stage\.([a-z]\w*)")
_current: ContextVar[Node | None] = ContextVar("stage_names", default=None)


@dataclass(frozen=True)
class Node:
    """The place of a stage's keys in the configuration of another stage, which runs it.

    Attributes:
        stage: the other stage.
        node: its node that has the keys.
        own: keys that the other stage sets with its own key of the same name.
    """

    stage: str
    node: str
    own: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "own", tuple(self.own))


def renamed(text: str, place: Node) -> str:
    """Return `text` with the keys of the stage renamed to those of its place."""
    schema = config.keys_of(config.stage_schema(place.stage))[place.node].schema
    assert schema is not None
    keys = set(config.keys_of(schema)) - set(place.own) - {"name"}
    return _KEY.sub(lambda found: f"stage.{place.node}.{found[1]}" if found[1] in keys else found[0], text)


def current() -> Node | None:
    """Return the place by which keys are renamed now; the other processes of a run use it too."""
    return _current.get()


@contextmanager
def named(place: Node | None) -> Iterator[None]:
    """Rename the keys in everything that the block raises, logs and prints; None changes nothing.

    Raises:
        TltrainError: the block's error, with its keys renamed.
    """
    if place is None:
        yield
        return

    def rename(text: str) -> str:
        return renamed(text, place)

    before = _current.set(place)
    log_filter, hook, handlers = _LogFilter(rename), _Hook(rename), list(logging.getLogger().handlers)
    for handler in handlers:
        handler.addFilter(log_filter)
    terminal.errors.push_render_hook(hook)
    try:
        yield
    except TltrainError as error:
        if (line := rename(str(error))) == str(error):
            raise
        raise TltrainError(line) from error
    finally:
        _current.reset(before)
        terminal.errors.pop_render_hook()
        for handler in handlers:
            handler.removeFilter(log_filter)


class _LogFilter(logging.Filter):
    def __init__(self, rename: Callable[[str], str]) -> None:
        super().__init__()
        self.rename = rename

    def filter(self, record: logging.LogRecord) -> bool:
        if "stage." in (message := record.getMessage()):
            record.msg, record.args = self.rename(message), ()
        return True


class _Hook(RenderHook):
    def __init__(self, rename: Callable[[str], str]) -> None:
        self.rename = rename

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [self._renamed(each) if isinstance(each, Text) else each for each in renderables]

    def _renamed(self, text: Text) -> Text:
        line = self.rename(text.plain)
        return text if line == text.plain else Text(line, style=text.style)
