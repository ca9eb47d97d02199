"""Play the golden calls: an environment's upper bound, and the test of its checker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tltrain.formats.calls import render_call
from tltrain.trajectory import FINISH, Call, Sample


class GoldenCalls:
    """Answers each question of a conversation with the next golden call of the user's turn, then with `finish`.

    Args:
        calls: task id -> the golden calls of each of the user's turns, if they are known; a call of `finish` may be
            among them.
    """

    name, too_long = "golden calls", 0

    def __init__(self, calls: Mapping[str, Sequence[Sequence[Call]]]) -> None:
        self._calls = calls

    def __call__(self, samples: Sequence[Sample]) -> list[str]:
        """Return the next call of each conversation, as text."""
        return [render_call(self._next(sample)) for sample in samples]

    def reading(self) -> dict[str, float]:
        """Return nothing: no prompt is read."""
        return {}

    def _next(self, sample: Sample) -> Call:
        task, turn = sample.id.rpartition("#")[0], sample.meta["turn"]
        began = max((at for at, message in enumerate(sample.messages) if message.role == "user"), default=0)
        step = sum(message.role == "assistant" for message in sample.messages[began:])
        turns = self._calls[task]
        golden = turns[turn - 1] if turn <= len(turns) else ()
        return golden[step] if step < len(golden) else Call(FINISH, {"answer": "Done."})
