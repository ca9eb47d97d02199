"""Compare MAE's two rules on the answers of a source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tltrain.errors import shorten
from tltrain.formats.tool_errors import Rule, error_kind
from tltrain.trajectory import Trajectory, actions

EXAMPLES = 3
_EXCERPT = 200  # characters of an example's answer


@dataclass
class RuleComparison:
    """Counts the answers that are errors under either of two rules as trajectories pass through, and keeps examples.

    Attributes:
        answers: number of tools' answers judged.
        only_paper, only_strict: answers that are errors only under this rule. both: under both rules.
    """

    paper: Rule
    strict: Rule
    answers: int = 0
    both: int = 0
    only_paper: int = 0
    only_strict: int = 0
    _seen: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {"paper": [], "strict": []})

    def watch(self, items: Iterable[Trajectory]) -> Iterator[Trajectory]:
        """Yield the same trajectories and count their answers."""
        for item in items:
            for action in actions(item.messages):
                if action.answer is not None:
                    self._count(item, action.call.name if action.call else None, action.answer)
            yield item

    def _count(self, item: Trajectory, call: str | None, at: int) -> None:
        message = item.messages[at]
        paper = error_kind(message.text, self.paper, message.is_error)
        strict = error_kind(message.text, self.strict, message.is_error)
        self.answers += 1
        self.both += paper is not None and strict is not None
        self.only_paper += paper is not None and strict is None
        self.only_strict += paper is None and strict is not None
        if (paper is None) == (strict is None):
            return
        kept = self._seen["strict" if paper is None else "paper"]
        if len(kept) < EXAMPLES:
            answer = shorten(message.text, _EXCERPT)
            kept.append({"trajectory": item.id, "call": call, "answer": answer, "paper": paper, "strict": strict})

    def examples(self) -> list[dict[str, Any]]:
        """Return up to three answers on which the rules differ, from both directions if there are both."""
        strict, paper = self._seen["strict"], self._seen["paper"]
        return [*strict[: max(EXAMPLES - len(paper), 2)], *paper][:EXAMPLES]

    def metrics(self) -> dict[str, Any]:
        """Return the counts and examples for `metrics.json`."""
        counts = {name: getattr(self, name) for name in ("answers", "both", "only_paper", "only_strict")}
        return {**counts, "examples": self.examples()}
