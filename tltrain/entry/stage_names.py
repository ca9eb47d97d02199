"""The keys of a stage that another one runs, as a user of that one types them.

A stage names its keys as it has them, `stage.args.learning_rate`. In a pipeline the same key is
`stage.supervised.args.learning_rate`, or `stage.w_max` where the pipeline has a key of its own for it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from rich.console import ConsoleRenderable, RenderHook
from rich.text import Text

from tltrain import config
from tltrain.errors import TltrainError
from tltrain.runtime import terminal

_KEY = re.compile(r"(?<![\w.])stage\.([a-z]\w*)")


def renamed(text: str, stage: str, node: str, own: Collection[str] = ()) -> str:
    """`text` with the keys of the stage in `node` of another stage named as those of that node.

    Args:
        stage: the stage that has the node.
        own: keys that the other stage sets by a key of its own with the same name.
    """
    schema = config.keys_of(config.stage_schema(stage))[node].schema
    assert schema is not None
    keys = set(config.keys_of(schema)) - set(own) - {"name"}
    return _KEY.sub(lambda found: f"stage.{node}.{found[1]}" if found[1] in keys else found[0], text)


@contextmanager
def named(stage: str, node: str, own: Collection[str] = ()) -> Iterator[None]:
    """`renamed` for what the block raises, logs and prints.

    Raises:
        TltrainError: the block's, with its keys renamed.
    """

    def rename(text: str) -> str:
        return renamed(text, stage, node, own)

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
