"""Count where training calls fail and how much of a call depends on its key tokens, for `stage=analyze`.

The functions are pure: trajectories and scored tokens in, shares with intervals out. All intervals are percentile
bootstraps over trajectories, since the calls of a conversation and the tokens of a call are correlated. If an observed
share is 0 or 100 %, such an interval has no width.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tltrain import mae
from tltrain.evaluation import intervals
from tltrain.evaluation.intervals import Interval
from tltrain.formats.calls import render_call
from tltrain.formats.tool_errors import Rule
from tltrain.mae import Verdict
from tltrain.trajectory import Call, Trajectory, actions

FEWEST = 5
"""Minimum number of trajectories for an interval; with fewer, the bootstrap underestimates how much they vary."""
MOST_GROUPS, LONGEST_VALUE = 20, 40
"""A field of `Trajectory.meta` with more values, or longer ones (a query, a time), is not used for grouping."""


def ratios(
    sums: Mapping[str, tuple[Sequence[float], Sequence[float]]], seed: int = 0, scale: float = 1.0
) -> dict[str, Interval]:
    """Return `scale * sum(numerators) / sum(denominators)` of each entry; all are resampled by trajectory.

    Args:
        sums: name -> (numerators, denominators), both [T] with one number per trajectory and the same T everywhere. An
            entry whose denominators are all 0 has no ratio and is left out; one to which fewer than `FEWEST`
            trajectories contribute has no ends.
    """
    names = [name for name, (_, denominators) in sums.items() if sum(denominators)]
    if not names:
        return {}
    numerators, denominators = (np.array([sums[name][i] for name in names], dtype=float).T for i in (0, 1))
    return {
        name: Interval(
            scale * ratio.value,
            scale * ratio.low if trajectories >= FEWEST else math.nan,
            scale * ratio.high if trajectories >= FEWEST else math.nan,
            ratio.n,
        )
        for name, ratio, trajectories in zip(
            names,
            intervals.ratios(numerators, denominators, seed),
            np.count_nonzero(denominators, axis=0),
            strict=True,
        )
    }


# --- a dataset ------------------------------------------------------------------------------------------------------


@dataclass
class Group:
    """Trajectories that share a value: for each trajectory the number of calls, and of calls answered with an error."""

    calls: list[int] = field(default_factory=list)
    answered: list[int] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, verdicts: Sequence[tuple[Verdict, str | None]], answered: int) -> None:
        kinds = [kind for _, kind in verdicts if kind is not None]
        self.calls.append(len(verdicts))
        self.answered.append(answered)
        self.errors.append(len(kinds))
        self.kinds.update(kinds)

    def shares(self, seed: int = 0) -> dict[str, Interval]:
        """Return the percentages of calls, and of calls that a tool answered, whose answer is an error."""
        parts = {"calls": (self.errors, self.calls), "answered": (self.errors, self.answered)}
        return ratios(parts, seed, 100)


class ErrorCounts:
    """Training calls that were answered with an error, over all trajectories and by the fields of their `meta`.

    A training call is one that standard SFT learns: its `learn` flag is set, and either a tool answers it or the
    conversation ends with it.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.all = Group()
        self.no_answer = 0
        self._by: dict[str, dict[Hashable, Group] | None] = {}

    def add(self, trajectory: Trajectory) -> None:
        """Count one trajectory."""
        done = actions(trajectory.messages)
        judged = [
            (verdict, action.answer is not None)
            for action, verdict in zip(done, mae.verdicts(trajectory, self.rule), strict=True)
            if action.learn and action.call is not None
        ]
        counted = [(verdict, by_tool) for verdict, by_tool in judged if verdict[0] is not Verdict.NO_ANSWER]
        self.no_answer += len(judged) - len(counted)
        verdicts, answered = [verdict for verdict, _ in counted], sum(by_tool for _, by_tool in counted)
        self.all.add(verdicts, answered)
        for key, value in trajectory.meta.items():
            groups = self._by.setdefault(key, {})
            if groups is None:
                continue
            if not _groups(value) or (value not in groups and len(groups) == MOST_GROUPS):
                self._by[key] = None
                continue
            groups.setdefault(value, Group()).add(verdicts, answered)

    def by(self) -> dict[str, dict[str, Group]]:
        """Map each field of `meta` to its values (as text), and these to their trajectories. Fields with a single
        value, or with nearly as many values as trajectories, are left out.
        """
        most = len(self.all.calls) / 2
        return {
            key: {str(value): group for value, group in groups.items()}
            for key, groups in self._by.items()
            if groups and 1 < len(groups) <= most
        }


def _groups(value: object) -> bool:
    return isinstance(value, int) or (isinstance(value, str) and len(value) <= LONGEST_VALUE)


# --- a model, teacher-forced ----------------------------------------------------------------------------------------

KEY_PARTS = ("first", "distinguishing")
REST_PARTS = ("name", "parameter", "value", "punctuation")
OTHER_PARTS = (*REST_PARTS, "end")
PARTS = {
    "first": "first token of the name",
    "distinguishing": "distinguishing tokens",
    "key": "all key tokens",
    "name": "rest of the name",
    "parameter": "parameter names",
    "value": "values",
    "punctuation": "brackets, commas",
    "end": "end token",
    "other": "all other tokens",
    "all": "all tokens",
}
"""Parts of a call, and unions of parts, in words. Key tokens are PKT's."""


@dataclass(frozen=True, slots=True)
class TurnScore:
    """A model's scores of the N tokens of a call under teacher forcing, that is, given everything before each token.

    Attributes:
        trajectory: number of the trajectory it belongs to.
        parts: [N] parts, from `KEY_PARTS` and `OTHER_PARTS`.
        nll: [N] negative log-likelihood in nats.
        right: [N] whether the token is the likeliest.
        turn: index of the call in the trajectory's `actions`.
    """

    trajectory: int
    parts: tuple[str, ...]
    nll: tuple[float, ...]
    right: tuple[bool, ...]
    turn: int = 0

    def all_right(self, *parts: str) -> bool:
        """Return whether every token of these parts is the likeliest."""
        return all(right for right, part in zip(self.right, self.parts, strict=True) if part in parts)


def token_parts(call: Call, spans: Sequence[tuple[int, int]], keys: Sequence[bool]) -> tuple[str, ...]:
    """Return the part to which each target token of a call belongs.

    A token may span several parts (`="` or `",`). It belongs to the first name, parameter or value with which it shares
    a character, and to the punctuation if there is none.

    Args:
        spans: character range of each token in ` name(k=value, ...)`, including the space at the beginning.
        keys: whether each of these tokens, and the end token, is a key token.
    """
    letters = _letters(call)
    touched = [[part for part in letters[start:end] if part != "punctuation"] for start, end in spans]
    found = [parts[0] if parts else "punctuation" for parts in touched]
    return call_parts([*found, "end"], keys)


def call_parts(parts: Sequence[str], keys: Sequence[bool]) -> tuple[str, ...]:
    """Return the parts of a call's tokens, with key tokens divided into the first and those that distinguish names."""
    first = next((i for i, key in enumerate(keys) if key), None)
    return tuple(
        ("first" if i == first else "distinguishing") if key else part
        for i, (part, key) in enumerate(zip(parts, keys, strict=True))
    )


def _letters(call: Call) -> list[str]:
    """Return the part of each character of ` name(k=value, ...)`."""
    parts = ["punctuation", *["name"] * len(call.name), "punctuation"]
    for number, (name, value) in enumerate(call.arguments.items()):
        # The text that one argument adds: `f(k=v)` is `f(`, `k=v` and `)`.
        written = len(render_call(Call("", {name: value}))) - 2
        parts += ["punctuation"] * (2 if number else 0)
        parts += [*["parameter"] * len(name), "punctuation", *["value"] * (written - len(name) - 1)]
    return [*parts, "punctuation"]


def tokens(scores: Sequence[TurnScore], seed: int = 0) -> dict[str, dict[str, Interval]]:
    """Return for each of `PARTS` that occurs: `accuracy`, % of tokens that are the likeliest, and `loss`, mean nats."""
    groups: dict[str, tuple[str, ...]] = {part: (part,) for part in (*KEY_PARTS, *OTHER_PARTS)}
    groups |= {"key": KEY_PARTS, "other": OTHER_PARTS, "all": (*KEY_PARTS, *OTHER_PARTS)}
    rights, losses = {}, {}
    for name, parts in groups.items():
        chosen = [[i for i, part in enumerate(score.parts) if part in parts] for score in scores]
        counts = _by_trajectory(scores, map(len, chosen))
        pairs = list(zip(scores, chosen, strict=True))
        rights[name] = _by_trajectory(scores, (sum(score.right[i] for i in at) for score, at in pairs)), counts
        losses[name] = _by_trajectory(scores, (sum(score.nll[i] for i in at) for score, at in pairs)), counts
    accuracy, loss = ratios(rights, seed, 100), ratios(losses, seed)
    return {name: {"accuracy": accuracy[name], "loss": loss[name]} for name in PARTS if name in accuracy}


CONDITIONS = {
    "any": "all calls",
    "first_right": "first token of the name right",
    "first_wrong": "first token of the name wrong",
    "keys_right": "all key tokens right",
    "keys_wrong": "some key token wrong",
}
"""Conditions that select the calls to count, in words."""


def calls(scores: Sequence[TurnScore], seed: int = 0) -> dict[str, dict[str, Interval]]:
    """Return for each of `CONDITIONS` that occurs: `call`, % of calls that are entirely right, and `others`, % of calls
    whose tokens other than key tokens are all right, given the right tokens before each.

    A call that is entirely right is what greedy decoding writes, token for token. The end token does not matter, since
    an answer is only read up to the end of its call.
    """
    first = [score.all_right("first") for score in scores]
    keys = [score.all_right(*KEY_PARTS) for score in scores]
    others = [score.all_right(*REST_PARTS) for score in scores]
    whole = [key and other for key, other in zip(keys, others, strict=True)]
    chosen = {
        "any": [True] * len(scores),
        "first_right": first,
        "first_wrong": [not one for one in first],
        "keys_right": keys,
        "keys_wrong": [not one for one in keys],
    }
    found = {
        kind: ratios(
            {
                name: (
                    _by_trajectory(scores, (a and b for a, b in zip(right, asked, strict=True))),
                    _by_trajectory(scores, asked),
                )
                for name, asked in chosen.items()
            },
            seed,
            100,
        )
        for kind, right in (("call", whole), ("others", others))
    }
    return {name: {kind: found[kind][name] for kind in found} for name in CONDITIONS if name in found["call"]}


def _by_trajectory(scores: Sequence[TurnScore], values: Iterable[float]) -> list[float]:
    """Return the values, summed over the turns of each trajectory."""
    sums: dict[int, float] = {}
    for score, value in zip(scores, values, strict=True):
        sums[score.trajectory] = sums.get(score.trajectory, 0) + value
    return list(sums.values())


def labels(paths: Sequence[str]) -> list[str]:
    """Return short names for paths of models or result folders: the last two parts, or whole paths if ambiguous."""
    short = ["/".join(path.rstrip("/").removesuffix("/model").split("/")[-2:]) for path in paths]
    return [path if short.count(name) > 1 else name for path, name in zip(paths, short, strict=True)]
