"""Count why answers ended, in the words of OpenAI's API, alike for a local model and a server."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tltrain.runtime.shares import share

log = logging.getLogger(__name__)

FINISH_REASONS = ("stop", "length", "content_filter", "tool_calls", "function_call")
"""Why an answer ended, as OpenAI's API names it; any other word of a server counts as `other`."""


class Endings:
    """Why the answers of a source ended.

    Attributes:
        last: for each answer of the last `add`, one of `FINISH_REASONS` or `other`; empty if the reason is unknown.
        counts: the number of answers so far, by reason.
    """

    def __init__(self) -> None:
        self.last: Sequence[str] = []
        self.counts: Counter[str] = Counter()

    def add(self, reasons: Sequence[str]) -> None:
        """Count the reasons of further answers."""
        self.last = reasons
        self.counts.update(filter(None, reasons))

    def reading(self) -> dict[str, Any]:
        """Return the counts for `metrics.json`; empty if no reason is known."""
        return {"finish_reasons": dict(self.counts)} if self.counts else {}

    def warn(self, max_new_tokens: int, file: str) -> None:
        """Log one line for each reason other than the model's own decision to stop.

        Args:
            file: the run's file with the reason of each answer; empty if there is none.
        """
        said = {
            "length": f"were cut at stage.max_new_tokens={max_new_tokens} before a call could be read",
            "content_filter": "were withheld or cut by the server's content filter",
            "other": "ended for a reason that OpenAI's API does not define: the server may have aborted them",
        }
        for reason, words in said.items():
            if count := self.counts[reason]:
                of = share(count, self.counts.total())
                log.warning("%s answers %s%s", of, words, f" (finish_reason in {file})" if file else "")
