"""Words before the calls of answers: left out with `stage.words_before_call=ignore`, reported if they are frequent."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from omegaconf import DictConfig

from tltrain.config import Mode, WordsBeforeCall
from tltrain.formats.preamble import without_words
from tltrain.runtime.shares import share
from tltrain.trajectory import Tool

log = logging.getLogger(__name__)


def ignored(cfg: DictConfig) -> bool:
    """Return whether the call after words is read."""
    return bool(cfg.stage.words_before_call == WordsBeforeCall.ignore)


def judged_text(cfg: DictConfig, text: str, tools: Sequence[Tool]) -> str:
    """Return the part of an answer that is judged."""
    return without_words(text, [tool.name for tool in tools]) if ignored(cfg) else text


def tell(cfg: DictConfig, count: int, of: int) -> None:
    """Warn if most of the answers have words before their call."""
    if 2 * count <= of:
        return
    asked_by_text = cfg.source.get("mode") == Mode.text
    chat = "; source.mode=chat asks with native tools instead" if asked_by_text else ""
    log.warning(
        "%s answers have words (a thought, a sentence, a code fence) before their call and count as unreadable: "
        "stage.words_before_call=ignore reads the calls%s",
        share(count, of),
        chat,
    )
