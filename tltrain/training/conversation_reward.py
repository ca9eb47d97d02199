"""The reward of a whole conversation: its outcome, and the price of each call's mistake in the turn where it happens.

A turn is one answer of the model (an assistant message), and its reward is a sum of parts:

    outcome         at the last turn: what the environment's checker says
    documentation   a call contradicts the documentation (`JudgedCall.outcome`)
    tool_error      a tool ran and answered with an error
    golden          the call against the next golden one, as long as all calls that ran equal the golden ones
    calls           calls beyond the number of golden calls, or missing where the model ends a turn of the user
    trailing_text   text follows a call, which nobody reads

Each call pays one price, the worst of those that apply, and a call that equals the golden one pays none, whatever its
tool answers; the price of trailing text is added to either. The prices are configuration keys
(`config.ConversationReward`). With their defaults:

- Only the golden calls, with a right outcome, earn the most: each earns `correct`, at most once, since the golden path
  cannot be walked twice, and any other call, in place of them or beyond them, costs something.
- Giving up avoids no price: each golden call that was not even tried costs `missing_call`, which no price of a call
  exceeds. A conversation that the turn limit or the context ends fails, and pays for missing calls too.
- Continuing is not free either: a call beyond the golden number costs `superfluous_call`, as does a question to the
  user.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tltrain.config import ConversationReward, Matching
from tltrain.environments.loop import Conversation, JudgedCall
from tltrain.errors import TltrainError
from tltrain.grading import Grade, Outcome, grade
from tltrain.runtime import targets
from tltrain.trajectory import FINISH, Call, Tool

PARTS = ("outcome", "documentation", "tool_error", "golden", "calls", "trailing_text")
"""Names of the parts of a reward."""
OWN = "own"
"""Name of the only part of a user's own reward."""

Golden = Sequence[Sequence[Call]]
"""The golden calls of each of the user's turns; `finish` is not one of them."""


@dataclass(frozen=True, slots=True)
class TurnReward:
    """The reward of one answer of the model.

    Attributes:
        message: position of the assistant message in `Conversation.messages`.
        parts: the reward's parts by name; parts of 0 are left out.
    """

    message: int
    parts: Mapping[str, float]

    @property
    def reward(self) -> float:
        """The sum of the parts."""
        return math.fsum(self.parts.values())


Price = Callable[[Conversation, Golden | None], tuple[TurnReward, ...]]
"""`(conversation, golden calls or None)` -> a reward for each assistant message, in their order."""


def usable(conversation: Conversation) -> bool:
    """Return whether a conversation may be learned from; no call is to blame for a failure of the environment."""
    return conversation.ended != "environment error"


def part_sums(rewards: Sequence[TurnReward]) -> dict[str, float]:
    """Return each part's sum over the turns of a conversation."""
    names = dict.fromkeys([*PARTS, *(name for turn in rewards for name in turn.parts if name not in PARTS)])
    return {name: math.fsum(turn.parts.get(name, 0.0) for turn in rewards) for name in names}


def stand_ins(calls: Sequence[Call]) -> tuple[Tool, ...]:
    """Return tools that document no more of these calls than the names."""
    properties: dict[str, Any] = {name: {} for call in calls for name in call.arguments}
    names = sorted({call.name for call in calls})
    return tuple(Tool(name, "", {"type": "object", "properties": properties}) for name in names)


# --- the reward that reward=conversation chooses ---------------------------------------------------------------------


def prices(settings: ConversationReward, matching: Matching = Matching.strict) -> Price:
    """Return the reward with these prices.

    Raises:
        TltrainError: failing does not pay less than other outcomes, or a name in `open_parameters` is malformed.
    """
    if not settings.failure < min(settings.unknown, settings.success):
        raise TltrainError(
            f"reward.failure={settings.failure:g}: expected less than reward.unknown={settings.unknown:g} and "
            f"reward.success={settings.success:g}"
        )
    if wrong := [name for name in settings.open_parameters if not isinstance(name, str) or "." not in name]:
        raise TltrainError(f"reward.open_parameters: expected a list of TOOL.PARAMETER, found {wrong[0]!r}")
    return lambda conversation, golden: _Walk(settings, matching, conversation, golden).rewards()


def loopholes(settings: ConversationReward) -> list[str]:
    """Return what a policy could exploit in these prices, one line each; see the top of this module."""
    found = []
    if settings.correct <= 0:
        found.append(
            f"reward.correct={settings.correct:g}: expected above 0, since a lucky guess earns as much as calls"
        )
    if settings.superfluous_call >= 0:
        found.append(
            f"reward.superfluous_call={settings.superfluous_call:g}: expected below 0, since calls beyond the golden "
            "ones cost nothing"
        )
    lowest = min(_OF_CALLS, key=lambda name: getattr(settings, name) or 0.0)
    if (price := getattr(settings, lowest) or 0.0) < settings.missing_call:
        found.append(
            f"reward.missing_call={settings.missing_call:g}: expected at most reward.{lowest}={price:g}, since giving "
            "up costs less than trying"
        )
    return found


_OF_CALLS = (
    *("format_error", "words_before_call", "tool_hallucination", "parameters", "tool_error"),
    *("wrong_tool", "wrong_parameters", "wrong_value"),
)
"""Keys of the prices that a single call may pay."""


@dataclass
class _Walk:
    """One pass over the calls of a conversation, alongside its golden calls."""

    settings: ConversationReward
    matching: Matching
    conversation: Conversation
    golden: Golden | None
    turn: int = 0  # of the user, from 0
    made: int = 0  # calls in this turn
    right: int = 0  # those without an error, and all that equal golden calls, on the golden path
    position: int = 0  # those that equal golden calls, on the golden path
    on_path: bool = True
    parts: dict[str, float] = field(default_factory=dict)  # of the current answer

    def rewards(self) -> tuple[TurnReward, ...]:
        calls: dict[int, list[JudgedCall]] = {}
        for call in self.conversation.calls:
            calls.setdefault(call.message, []).append(call)
        found = []
        for at, message in enumerate(self.conversation.messages):
            if message.role != "assistant":
                continue
            self.parts = {}
            for call in calls.get(at, ()):
                self._call(call)
            if at not in calls:  # words that end the user's turn
                self._end_turn()
            found.append(TurnReward(at, self.parts))
        if found:
            self._end()
        return tuple(TurnReward(turn.message, _stated(turn.parts)) for turn in found)

    def _add(self, part: str, price: float) -> None:
        self.parts[part] = self.parts.get(part, 0.0) + price

    def _asked(self) -> Sequence[Call] | None:
        """Return the golden calls of the user's turn; None if there are none."""
        if self.golden is None or self.turn >= len(self.golden):
            return None
        return [call for call in self.golden[self.turn] if call.name != FINISH]

    def _call(self, made: JudgedCall) -> None:
        documentation = self._documentation(made)
        if self.settings.trailing_text and made.has_trailing_text:
            self._add("trailing_text", self.settings.trailing_text)
        if made.call is not None and made.call.name == FINISH and made.outcome is not Outcome.TOOL_HALLUCINATION:
            self._add("documentation", documentation)
            self._end_turn()
            return
        asked = self._asked()
        is_golden, beside = False, 0.0
        if asked is not None and self.on_path and self.position < len(asked):
            is_golden, beside = self._beside(made, asked[self.position])
        if made.ran and is_golden:
            self._add("golden", beside)
            self.position += 1
            self.right += 1
        else:
            self.on_path = self.on_path and not made.ran  # what did not run changed nothing
            candidates = {
                "documentation": documentation,
                "tool_error": self.settings.tool_error if made.ce else 0.0,
                "golden": min(beside, 0.0),
                "calls": self._number(made, asked),
            }
            worst = min(candidates, key=lambda part: candidates[part])
            self._add(worst, candidates[worst])
            self.right += not (made.de or made.ce)
        self.made += 1

    def _documentation(self, made: JudgedCall) -> float:
        settings = self.settings
        before = settings.format_error if settings.words_before_call is None else settings.words_before_call
        return {
            Outcome.FORMAT_ERROR: settings.format_error,
            Outcome.WORDS_BEFORE_CALL: before,
            Outcome.TOOL_HALLUCINATION: settings.tool_hallucination,
            Outcome.PARAMETERS: settings.parameters,
        }.get(made.outcome, 0.0)

    def _beside(self, made: JudgedCall, golden: Call) -> tuple[bool, float]:
        """Return whether a call equals the golden one, and its price against it; 0 if it cannot be read."""
        if made.call is None:
            return False, 0.0
        if made.outcome is Outcome.TOOL_HALLUCINATION:
            return False, self.settings.wrong_tool
        found = grade(made.call, golden, self._documented(made.call, golden), self.matching)
        if found.cf or self._open(found):
            return True, self.settings.correct
        if found.outcome is Outcome.WRONG_VALUE:
            return False, self.settings.wrong_value
        return False, self.settings.wrong_parameters if found.ts else self.settings.wrong_tool

    def _documented(self, *calls: Call) -> Sequence[Tool]:
        """Return the last tools on offer, and stand-ins for tools of earlier turns that these calls name."""
        tools = self.conversation.tools
        offered = {tool.name for tool in tools}
        return (*tools, *(tool for tool in stand_ins(calls) if tool.name not in offered))

    def _open(self, found: Grade) -> bool:
        if found.outcome is not Outcome.WRONG_VALUE or found.prediction is None:
            return False
        return all(f"{found.prediction.name}.{name}" in self.settings.open_parameters for name in found.wrong_values)

    def _number(self, made: JudgedCall, asked: Sequence[Call] | None) -> float:
        if asked is None:
            return self.settings.call
        beyond = not (made.de or made.ce) and self.right >= len(asked)
        return self.settings.superfluous_call if beyond else 0.0

    def _end_turn(self) -> None:
        """Close a turn of the user, which the model has ended."""
        self._add("calls", self._missing())
        asked = self._asked()
        self.on_path = self.on_path and asked is not None and self.position == len(asked)
        self.turn, self.made, self.right, self.position = self.turn + 1, 0, 0, 0

    def _missing(self) -> float:
        return self.settings.missing_call * max(0, len(self._asked() or ()) - self.made)

    def _end(self) -> None:
        """Add to the last answer the outcome of the conversation and the price of the turns that were not reached."""
        success, finished = self.conversation.outcome.get("success"), self.conversation.ended == "finish"
        if usable(self.conversation):
            known = self.settings.success if success else self.settings.failure
            of_end = self.settings.unknown if success is None else known
            self._add("outcome", of_end if finished else self.settings.failure)
            while self.golden is not None and self.turn < len(self.golden):
                self._add("calls", self._missing())
                self.turn, self.made = self.turn + 1, 0


def _stated(parts: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in parts.items() if value}


# --- a user's own -----------------------------------------------------------------------------------------------------


def own(price: Callable[..., Any], name: str, matching: Matching) -> Price:
    """Return the reward that a user's function gives for a conversation: a number, or one for each assistant message.

    A number counts at the last turn. The function takes by name whichever it needs of `conversation`, `golden` (None if
    the environment has no golden calls) and `matching`.
    """

    def priced(conversation: Conversation, golden: Golden | None) -> tuple[TurnReward, ...]:
        where = f"reward {name}, conversation {conversation.task.id}"
        with targets.explained(where):
            found = price(conversation=conversation, golden=golden, matching=matching)
        turns = [at for at, message in enumerate(conversation.messages) if message.role == "assistant"]
        if _is_number(found):
            given: Sequence[Any] = [*[0.0] * (len(turns) - 1), found][-len(turns) :] if turns else []
        else:
            given = list(found) if isinstance(found, Sequence) and not isinstance(found, str) else [found]
        if len(given) != len(turns) or not all(map(_is_number, given)):
            raise TltrainError(
                f"{where}: expected a finite number, or one for each of the {len(turns)} assistant messages, found "
                f"{found!r}"
            )
        return tuple(TurnReward(at, {OWN: float(value)}) for at, value in zip(turns, given, strict=True))

    return priced


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
