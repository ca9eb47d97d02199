"""One judgement of a call, from which everything else derives: reward, TS, PI, CF, DE, and the statistics of errors.

`grade` puts a prediction beside the accepted calls and the tools on offer and says, in the order of the paper's reward
table (IRM), where it first goes wrong. Nothing here knows of models or of benchmarks.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Self

from tltrain.config import Bounds, Matching, OpenText, key, keys_of
from tltrain.errors import TltrainError
from tltrain.formats.calls import MAX_DIGITS, CallSyntaxError, read_call, read_calls
from tltrain.formats.preamble import words_before_call
from tltrain.trajectory import ANY, Call, OneOf, Tool

__all__ = [
    "ANY",
    "CUT",
    "PAPER_REWARD",
    "SAMPLED_OUTCOMES",
    "Grade",
    "Outcome",
    "RewardSettings",
    "RewardTable",
    "first_call",
    "grade",
    "named_row",
    "same_value",
]


class Outcome(StrEnum):
    """Where a call first goes wrong, from worst to best."""

    FORMAT_ERROR = "format_error"
    WORDS_BEFORE_CALL = "words_before_call"
    TOOL_HALLUCINATION = "tool_hallucination"
    WRONG_TOOL = "wrong_tool"
    PARAMETERS = "parameters"
    WRONG_VALUE = "wrong_value"
    CORRECT = "correct"


CUT = "cut"
"""The outcome of a sampled response that the limit of its length cut before a call could be read."""
SAMPLED_OUTCOMES = (CUT, *(outcome.value for outcome in Outcome))
"""The outcomes of sampled responses (IRM), from worst to best."""


def price(default: float | None, meaning: str) -> Any:
    """The field of a price. Its range is far beyond what `stage.reward_clip` lets through, so that a slip is seen."""
    return key(default, meaning, least=-100, most=100)


@dataclass(frozen=True)
class RewardTable:
    """The reward of each row of the paper's table (IRM); the defaults are the paper's numbers."""

    format_error: float = price(-2.0, "the call cannot be parsed")
    words_before_call: float | None = price(
        None, "a thought, a sentence or a code fence stands before the call; null: as format_error (the paper)"
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
        """A table from `cfg.reward`, which may leave out what is no row.

        Raises:
            TltrainError: a row is missing, a key is unknown, or a value is not of its kind or out of its range; the
                message names it.
        """
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
        price = getattr(self, row)
        return self.format_error if price is None else price

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest reward of a row."""
        values = [self[row.name] for row in fields(RewardTable)]
        return min(values), max(values)


@dataclass(frozen=True)
class RewardSettings(RewardTable):
    """`cfg.reward`: the table, and what else decides the reward of a sampled response (IRM)."""

    cut: float | None = price(
        None,
        "the response was cut by stage.max_new_tokens before a call could be read; null: as format_error (the paper)",
    )
    trailing_text: float = key(0.0, "added where text stands behind the call", least=-100, most=0)
    no_end_token: float = key(0.0, "added where a call is read but the response has no end token", least=-100, most=0)
    open_text: OpenText = key(
        OpenText.exact,
        "how the value of an open parameter is priced where nothing else is wrong; exact: as any value (the paper); "
        "ignored: correct, whatever it says; similarity: between wrong_value and correct, by the words it shares with "
        "the golden value",
    )
    open_parameters: list[str] = key(
        ["finish.answer"],
        "parameters whose value is open text, as TOOL.PARAMETER; those that a record of the data names in its field "
        "open_parameters count as well",
    )
    name_only: bool = key(
        False,
        "look at the tool's name alone, the text before the first `(`: what the released code does in effect on calls "
        "with double-quoted values",
    )


_NULLABLE = ("cut", "words_before_call")
_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "open_text": (f"one of {', '.join(OpenText)}", lambda value: isinstance(value, str) and value in set(OpenText)),
    "open_parameters": (
        "a list of TOOL.PARAMETER",
        lambda value: isinstance(value, list | tuple) and all(isinstance(name, str) and "." in name for name in value),
    ),
    "name_only": ("true or false", lambda value: isinstance(value, bool)),
}
"""What is no number: what is expected, and whether a value is that."""


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

# (hallucinated, redundant, missing): are there any? -> the row of the table
_PARAMETER_ROWS = {
    (True, True, True): "hallucinated_redundant_missing",
    (True, True, False): "hallucinated_and_redundant_or_missing",
    (True, False, True): "hallucinated_and_redundant_or_missing",
    (False, True, True): "redundant_missing",
    (True, False, False): "hallucinated",
    (False, True, False): "redundant_or_missing",
    (False, False, True): "redundant_or_missing",
}


@dataclass(frozen=True, slots=True)
class Grade:
    """How good a call is, and why.

    `golden` is the accepted call the prediction was measured against. The three tuples of parameter names are filled
    when the tool is right, `wrong_values` (names too) when the names are right as well. `positional` counts values
    without a parameter's name that stand for no missing parameter; they are hallucinated like a parameter that the
    tool does not have. `contradictions` says, in words, where the call departs from the tools' documentation, whatever
    the golden call is.
    """

    outcome: Outcome
    reason: str
    prediction: Call | None = None
    golden: Call | None = None
    hallucinated: tuple[str, ...] = ()
    redundant: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    wrong_values: tuple[str, ...] = ()
    contradictions: tuple[str, ...] = ()
    positional: int = 0

    @property
    def row(self) -> str:
        """The row of the reward table: a field of `RewardTable`."""
        if self.outcome is Outcome.PARAMETERS:
            hallucinated = bool(self.hallucinated or self.positional)
            return _PARAMETER_ROWS[hallucinated, bool(self.redundant), bool(self.missing)]
        return self.outcome.value

    def reward(self, table: RewardTable = PAPER_REWARD) -> float:
        """The reward of IRM."""
        return table[self.row]

    @property
    def ts(self) -> bool:
        """Tool selection: the tool of an accepted call."""
        return self.outcome in (Outcome.PARAMETERS, Outcome.WRONG_VALUE, Outcome.CORRECT)

    @property
    def pi(self) -> bool:
        """Parameter identification: TS, and the parameter names of an accepted call."""
        return self.outcome in (Outcome.WRONG_VALUE, Outcome.CORRECT)

    @property
    def cf(self) -> bool:
        """Content filling: PI, and every value right."""
        return self.outcome is Outcome.CORRECT

    @property
    def de(self) -> bool:
        """Documentation error: unparseable, unknown tool, unknown parameter, a required one missing, or values without
        a parameter's name beside all that are required."""
        return bool(self.contradictions)


def grade(
    prediction: str | Call,
    golden: Call | Sequence[Call] | None,
    tools: Sequence[Tool],
    values: Matching | str = Matching.strict,
) -> Grade:
    """Judge a predicted call (the paper, IRM).

    Args:
        prediction: what the model said, or the call read from it.
        golden: the accepted call, or several, of which the one that gives the best grade counts: the outcome nearest to
            `CORRECT`, then the highest of the paper's rewards, then the first. None at all checks against the
            documentation alone; `missing` then means a parameter the schema requires, and `CORRECT` that nothing is
            contradicted.
        tools: the tools on offer. A tool not among them is hallucinated even if the golden call has it: it cannot be
            called. A parameter of the golden call is never hallucinated, though documentation may lack it (RoTBench's
            sometimes does): the golden call would be no right answer otherwise.
        values: how values are compared, see `same_value`. A golden value `ANY` accepts every value, a `OneOf` any of
            its own; where that is optional, the parameter may be missing.

    Words before the call (a thought, a sentence, a code fence) make it as bad as one that cannot be read: the paper's
    models begin with the tool's name. `formats.preamble.without_words` leaves them out first.

    Never raises for what a model says.
    """
    values = Matching(values)
    read = _read(prediction, {tool.name for tool in tools}) if isinstance(prediction, str) else prediction
    if isinstance(read, Grade):
        return read
    call = read
    # Public data may offer two tools by one name (RoTBench: `drivers`): the call is of the one that it fits best.
    tool = min((tool for tool in tools if tool.name == call.name), key=lambda tool: _misfit(call, tool), default=None)
    if tool is None:
        reason = f"{_quote([call.name])} is not on offer"
        return Grade(Outcome.TOOL_HALLUCINATION, reason, call, contradictions=(reason,))
    unknown, lacking = _unknown(call, tool), _lacking(call, tool)
    unnamed = _unnamed(call, lacking)
    contradictions = _parameter_faults(call.name, unknown, (), lacking, unnamed)
    if not golden:
        outcome = Outcome.PARAMETERS if contradictions else Outcome.CORRECT
        reason = "; ".join(contradictions) or "agrees with the documentation"
        return Grade(outcome, reason, call, None, unknown, (), lacking, (), contradictions, unnamed)
    accepted = (golden,) if isinstance(golden, Call) else tuple(golden)
    same_tool = [right for right in accepted if right.name == call.name]
    if not same_tool:
        names = dict.fromkeys(right.name for right in accepted)
        reason = f"{_quote([call.name])} was called, not {_quote(names, ' or ')}"
        return Grade(Outcome.WRONG_TOOL, reason, call, accepted[0], contradictions=contradictions)
    return _best(_compare(call, right, tool, values, contradictions) for right in same_tool)


def _read(prediction: str, names: Collection[str]) -> Call | Grade:
    """The call that a prediction begins with, or the grade of one that begins with none."""
    problem, call = "", None
    try:
        call = read_call(prediction)
        if call.name in names:
            return call
    except CallSyntaxError as error:
        problem = str(error)
    try:
        words = words_before_call(prediction, names)
    except CallSyntaxError as error:  # a thought, and no call behind it
        words, call, problem = 0, None, str(error)
    if words:
        behind = read_call(prediction[words:]).name
        reason = f"{_quote([prediction[:words]])} stands before the call of {_quote([behind])}"
        return Grade(Outcome.WORDS_BEFORE_CALL, reason, contradictions=(reason,))
    return call or Grade(Outcome.FORMAT_ERROR, problem, contradictions=(problem,))


def first_call(prediction: str, tools: Sequence[Tool]) -> Call | str:
    """The first call of an answer that may make several; the answer itself where words stand before it, or there is
    none.
    """
    names = {tool.name for tool in tools}
    calls = read_calls(prediction)
    return calls[0] if calls and (calls[0].name in names or isinstance(_read(prediction, names), Call)) else prediction


def named_row(prediction: str, golden: Sequence[Call], tools: Sequence[Tool]) -> str:
    """The row of the reward table by the tool's name alone: the text before the first `(`, and nothing behind it.

    What the released reward comes to on calls with double-quoted values, of which its reader sees no argument.
    """
    name, opening, _ = prediction.partition("(")
    name = name.strip()
    if not opening:
        return Outcome.FORMAT_ERROR.value
    if name not in {tool.name for tool in tools}:
        return Outcome.TOOL_HALLUCINATION.value
    return (Outcome.CORRECT if name in {right.name for right in golden} else Outcome.WRONG_TOOL).value


def _unknown(call: Call, tool: Tool) -> tuple[str, ...]:
    return tuple(name for name in call.arguments if name not in tool.properties)


def _lacking(call: Call, tool: Tool) -> tuple[str, ...]:
    return tuple(name for name in tool.required if name not in call.arguments)


def _unnamed(call: Call, missing: Sequence[str]) -> int:
    """How many values without a name stand beside all parameters; where one is missing they count as none given."""
    return 0 if missing else call.positional


def _misfit(call: Call, tool: Tool) -> int:
    return len(_unknown(call, tool)) + len(_lacking(call, tool))


def _best(grades: Iterable[Grade]) -> Grade:
    """The first of the best. Once the tool is right the paper's rewards rise with the outcome, so they alone decide."""
    return max(grades, key=lambda grade: (grade.outcome is Outcome.CORRECT, grade.reward()))


def _compare(call: Call, golden: Call, tool: Tool, values: Matching, contradictions: tuple[str, ...]) -> Grade:
    """The grade of a call of the right tool."""
    extra = [name for name in call.arguments if name not in golden.arguments]
    hallucinated = tuple(name for name in extra if name not in tool.properties)
    redundant = tuple(name for name in extra if name in tool.properties)
    missing = tuple(
        name for name, value in golden.arguments.items() if name not in call.arguments and not _optional(value)
    )
    unnamed = _unnamed(call, missing)
    if extra or missing or unnamed:
        reason = "; ".join(_parameter_faults(call.name, hallucinated, redundant, missing, unnamed))
        return Grade(
            Outcome.PARAMETERS,
            reason,
            call,
            golden,
            hallucinated,
            redundant,
            missing,
            contradictions=contradictions,
            positional=unnamed,
        )
    wrong = tuple(
        name
        for name, value in golden.arguments.items()
        if name in call.arguments and not same_value(call.arguments[name], value, values)
    )
    if wrong:
        shown = {name: (_show(call.arguments[name]), _show_golden(golden.arguments[name])) for name in wrong}
        reason = "; ".join(f"{_quote([name])} is {found}, not {right}" for name, (found, right) in shown.items())
        outcome = Outcome.WRONG_VALUE
    else:
        outcome, reason = Outcome.CORRECT, "the accepted call"
    return Grade(outcome, reason, call, golden, wrong_values=wrong, contradictions=contradictions)


def _parameter_faults(
    tool: str, hallucinated: Sequence[str], redundant: Sequence[str], missing: Sequence[str], unnamed: int
) -> tuple[str, ...]:
    """What is wrong with the parameters of a call, a phrase a kind."""
    kinds = (
        (hallucinated, f"is not one of {tool}'s", f"are not among {tool}'s"),
        (redundant, "is not asked for", "are not asked for"),
        (missing, "is missing", "are missing"),
    )
    named = tuple(
        f"parameter{'s' if len(names) > 1 else ''} {_quote(names)} {many if len(names) > 1 else one}"
        for names, one, many in kinds
        if names
    )
    return (*named, f"{unnamed} value{'s' if unnamed > 1 else ''} without a parameter's name") if unnamed else named


def _quote(names: Iterable[str], between: str = ", ") -> str:
    return _cut(between.join(f"`{_cut(' '.join(name.split()))}`" for name in names), 200)


def _show(value: Any) -> str:
    return _cut(json.dumps(value, ensure_ascii=False, default=repr))


def _show_golden(value: Any) -> str:
    if not isinstance(value, OneOf):
        return _show(value)
    return _cut(" or ".join(map(_show, value.values)), 200) if value.values else "left out"


def _cut(text: str, limit: int = 60) -> str:
    """`text`, which a model may have made long, for a reason that fits a line."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _optional(value: Any) -> bool:
    return isinstance(value, OneOf) and value.optional


def same_value(prediction: Any, golden: Any, values: Matching | str = Matching.strict) -> bool:
    """Whether two JSON values are equal; an `ANY` anywhere in `golden` equals everything in its place, a `OneOf` what
    any of its values equals.

    `strict`: equal as JSON. Numbers by their value (`1` is `1.0`), booleans are no numbers, text character by
    character, lists in order, dicts without order.

    `lenient`: the same after each string, at whatever depth, is put in Unicode's NFKC form and freed of space around
    it, and one that then spells a JSON number, or `true`, `false`, `null` in JSON's or Python's way, is taken for that
    value. So `1`, `1.0` and `"1"` are equal, and `true` and `"True"`; upper and lower case of other text differ, as do
    `1` and `true`, `"007"` and `7`. Dict keys are compared as they are.

    Both are equivalences on JSON values: symmetric and transitive. Only a `OneOf` recurses, so the depth of what a
    model says is no matter.
    """
    pending = [(prediction, golden)]
    while pending:
        left, right = pending.pop()
        if right is ANY:
            continue
        if isinstance(right, OneOf):
            if not any(same_value(left, accepted, values) for accepted in right.values):
                return False
        elif isinstance(left, dict) and isinstance(right, dict):
            if not left.keys() <= right.keys() or any(key not in left and not _optional(right[key]) for key in right):
                return False
            pending.extend((left[key], right[key]) for key in left)
        elif isinstance(left, list | tuple) and isinstance(right, list | tuple):
            if len(left) != len(right):
                return False
            pending.extend(zip(left, right, strict=True))
        else:
            if values == "lenient":
                left, right = _plain(left), _plain(right)
            # Python has True == 1, JSON has not.
            if isinstance(left, bool) != isinstance(right, bool) or left != right:
                return False
    return True


_CONSTANTS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def _plain(value: Any) -> Any:
    """The value that stands for all that `lenient` takes for equal to `value` (which is neither list nor dict)."""
    if not isinstance(value, str):
        return value
    text = unicodedata.normalize("NFKC", value).strip()
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    number = _JSON_NUMBER.fullmatch(text)
    if number and len(text) <= MAX_DIGITS:
        plain = float(text) if number[1] or number[2] else int(text)
        return text if isinstance(plain, float) and math.isinf(plain) else plain
    return text
