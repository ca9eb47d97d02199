"""The reward of each grade (IRM), as `reward=` configures it: the rows of the paper's table and further terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, make_dataclass
from typing import Any, Optional, Self, get_type_hints

from tltrain.config.choices import OpenText
from tltrain.config.keys import Bounds, key, keys_of
from tltrain.errors import TltrainError

# `Optional[...]` because OmegaConf reads the annotations at run time.
# ruff: noqa: UP045


def price(default: float | None, meaning: str) -> Any:
    """Declare a price. Its range is far beyond `stage.reward_clip`, so it only catches typing errors."""
    return key(default, meaning, least=-100, most=100)


@dataclass
class Reward:
    """The keys of every reward; further keys are those of its function."""

    name: str = key("table", "name of the reward; table: a price for each kind of mistake")


@dataclass(frozen=True)
class RewardTable:
    """The reward of each row of the paper's table (IRM); the defaults are the paper's numbers."""

    format_error: float = price(-2.0, "the call cannot be parsed")
    words_before_call: float | None = price(
        None, "a thought, a sentence or a code fence precedes the call; null: as format_error (the paper)"
    )
    missing_call: float | None = price(
        None, "the answer makes fewer calls than asked for, and this call is missing; null: as format_error"
    )
    tool_hallucination: float = price(-2.0, "the tool is not on offer")
    wrong_tool: float = price(-1.5, "the tool is on offer, but not the right one")
    hallucinated_redundant_missing: float = price(-1.8, "right tool; hallucinated, redundant and missing parameters")
    hallucinated_and_redundant_or_missing: float = price(-1.3, "right tool; hallucinated and redundant or missing ones")
    redundant_missing: float = price(-1.0, "right tool; redundant and missing parameters")
    hallucinated: float = price(
        -0.8, "right tool; only hallucinated parameters, or values without a name beside right ones"
    )
    redundant_or_missing: float = price(-0.5, "right tool; only redundant or only missing parameters")
    wrong_value: float = price(-0.25, "right tool and parameters, but a wrong value")
    correct: float = price(1.0, "right call")

    @classmethod
    def from_config(cls, table: Mapping[str, Any]) -> Self:
        """Make a table from `cfg.reward`, which may omit keys that are not rows.

        Raises:
            TltrainError: a row is missing, a key is unknown, or a value has the wrong type or is out of range.
        """
        table = {name: value for name, value in table.items() if name not in keys_of(Reward)}
        rows, known = [row.name for row in fields(RewardTable)], keys_of(RewardSettings)
        for row in rows:
            if row not in table and row not in _NULLABLE:
                raise TltrainError(f"reward: no value for `{row}`; the rows are {', '.join(rows)}")
        for name, value in table.items():
            if name not in known:
                raise TltrainError(f"reward: unknown row `{name}`; the rows are {', '.join(rows)}")
            if name in rows or known[name].bounds:
                if value is not None or name not in _NULLABLE:
                    _check_price(name, value, known[name].bounds)
            else:
                _check_option(name, value)
        own = {each.name for each in fields(cls)}
        return cls(**{name: _converted(name, value) for name, value in table.items() if name in own})

    def __getitem__(self, row: str) -> float:
        price = getattr(self, row, None)
        return self.format_error if price is None else price

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest reward of all rows."""
        values = [self[row.name] for row in fields(RewardTable)]
        return min(values), max(values)


@dataclass(frozen=True)
class RewardSettings(RewardTable):
    """The table, and the other settings of `cfg.reward` for the reward of a sampled response (IRM)."""

    cut: float | None = price(
        None,
        "the response was cut by stage.max_new_tokens before a call could be read; null: as format_error (the paper)",
    )
    superfluous_call: float | None = key(
        None,
        "added for each call beyond those asked for, divided by the number of golden calls; null: as wrong_tool",
        least=-100,
        most=0,
    )
    called_anyway: float | None = price(
        None, "a call where no call is right; null, together with abstained: do not ask such questions (the paper)"
    )
    abstained: float | None = price(None, "an answer in words where no call is right; set together with called_anyway")
    trailing_text: float = key(0.0, "added if text follows the call", least=-100, most=0)
    no_end_token: float = key(0.0, "added if a call can be read but the response has no end token", least=-100, most=0)
    open_text: OpenText = key(
        OpenText.exact,
        "how the value of an open parameter is priced if nothing else is wrong; exact: like any value (the paper); "
        "ignored: as correct, whatever it says; similarity: between wrong_value and correct, by the words it shares "
        "with the golden value",
    )
    open_parameters: list[str] = key(
        ["finish.answer"],
        "parameters whose value is open text, as TOOL.PARAMETER; those in the field open_parameters of a data record "
        "count too",
    )
    name_only: bool = key(
        False,
        "compare only the tool's name, the text before the first `(`: the effect of the released code on calls with "
        "double-quoted values",
    )

    def __post_init__(self) -> None:
        if (self.called_anyway is None) != (self.abstained is None):
            given, other = ("abstained", "called_anyway")[:: 1 if self.called_anyway is None else -1]
            raise TltrainError(f"reward.{given}: needs a price for reward.{other}, which is null")

    @property
    def prices_abstention(self) -> bool:
        """Whether questions to which no call is right have a price."""
        return self.abstained is not None

    @property
    def superfluous_price(self) -> float:
        """The price of a call that is not asked for."""
        return self.wrong_tool if self.superfluous_call is None else self.superfluous_call


@dataclass
class ConversationReward(Reward):
    """The reward of a whole conversation (`tltrain.training.conversation_reward`); each call pays one price at most."""

    name: str = key("conversation", "name of the reward; conversation: outcome and calls of a whole conversation")
    success: float = price(1.0, "the environment's checker accepts the outcome; at the last turn")
    failure: float = price(
        -1.0, "it does not, or the conversation reached the turn limit or the model's context; at the last turn"
    )
    unknown: float = price(0.0, "the model ended a conversation whose outcome nobody can check; at the last turn")
    format_error: float = key(-0.25, "a call cannot be parsed", least=-100, most=0)
    words_before_call: Optional[float] = key(
        None, "a thought, a sentence or a code fence stands before the call; null: as format_error", least=-100, most=0
    )
    tool_hallucination: float = key(-0.25, "the tool is not on offer", least=-100, most=0)
    parameters: float = key(
        -0.2, "the call has a parameter that is not documented, or lacks a required one", least=-100, most=0
    )
    tool_error: float = key(-0.15, "the tool ran and answered with an error", least=-100, most=0)
    wrong_tool: float = key(-0.2, "on the golden path: another tool than the next golden call's", least=-100, most=0)
    wrong_parameters: float = key(
        -0.1, "on the golden path: the right tool with other parameters than the golden call has", least=-100, most=0
    )
    wrong_value: float = key(
        -0.05, "on the golden path: right tool and parameters, but a wrong value", least=-100, most=0
    )
    correct: float = key(0.1, "on the golden path: the next golden call", least=0, most=100)
    missing_call: float = key(
        -0.25,
        "each golden call that was not even tried when a turn of the user ends; no price of a call may be lower, or "
        "else giving up avoids it",
        least=-100,
        most=0,
    )
    superfluous_call: float = key(
        -0.1, "a call without an error beyond the number of golden calls of the user's turn", least=-100, most=0
    )
    call: float = key(-0.02, "each call, where the golden calls are not known", least=-100, most=0)
    trailing_text: float = key(
        0.0, "added if text follows a call, which neither its tool nor the history gets", least=-100, most=0
    )
    open_parameters: list[str] = key(
        ["ask_to_user.question"],
        "parameters whose value is open text, as TOOL.PARAMETER; other words leave a call on the golden path",
    )


def _table_keys() -> type:
    """Return the keys of a choice of `reward` that is a table, as a dataclass that OmegaConf can change."""
    hints = get_type_hints(RewardSettings)
    stated: list[Any] = []
    for each in fields(RewardSettings):
        given: dict[str, Any] = {"default": each.default, "default_factory": each.default_factory}
        given = {name: value for name, value in given.items() if value is not MISSING}
        stated.append((each.name, hints[each.name], field(metadata=each.metadata, **given)))
    made = make_dataclass("TableKeys", stated, bases=(Reward,))
    made.__module__ = __name__  # where another process finds it
    return made


TableKeys = _table_keys()
_NULLABLE = ("cut", "words_before_call", "missing_call", "superfluous_call", "called_anyway", "abstained")
_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "open_text": (f"one of {', '.join(OpenText)}", lambda value: isinstance(value, str) and value in set(OpenText)),
    "open_parameters": (
        "a list of TOOL.PARAMETER",
        lambda value: isinstance(value, list | tuple) and all(isinstance(name, str) and "." in name for name in value),
    ),
    "name_only": ("true or false", lambda value: isinstance(value, bool)),
}
"""Keys that are not numbers: the expected value in words, and a check of a value."""


def _check_price(name: str, value: Any, bounds: Bounds) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TltrainError(f"reward.{name}: expected a number, found {value!r}")
    if value not in bounds:
        raise TltrainError(f"reward.{name}: expected {bounds}, found {value}")


def _check_option(name: str, value: Any) -> None:
    expected, fits = _KINDS[name]
    if not fits(value):
        raise TltrainError(f"reward.{name}: expected {expected}, found {value!r}")


def _converted(name: str, value: Any) -> Any:
    if name == "open_text":
        return OpenText(value)
    if name == "open_parameters":
        return list(value)
    return float(value) if name != "name_only" and value is not None else value


PAPER_REWARD = RewardTable()
PAPER_SETTINGS = RewardSettings()
