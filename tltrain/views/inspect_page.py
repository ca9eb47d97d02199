"""`inspect.html`: conversations as the trainer sees them, one page that needs neither network nor script.

Every text on it comes from strangers: all of it is escaped, and characters that are invisible, or that turn the
direction of what stands around them, are replaced. The page's own policy forbids it to load or run anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tltrain.views import html_page

ASSETS = Path(__file__).parent / "assets"
MOST_HISTORY = 3_000
"""Characters of one message of the history that the page shows."""
MOST_TOOLS = 100_000
"""Characters of the tools' documentation that the page shows."""
MOST_TOKENS = 5_000
"""Tokens of one turn that the page shows."""


@dataclass(frozen=True)
class Token:
    """A piece of an assistant message. `weight`: its weight in the loss; 0 for text that is no target."""

    text: str
    weight: float = 1.0
    is_key: bool = False
    is_end: bool = False


@dataclass(frozen=True)
class Turn:
    """An assistant message.

    `tokens`: with the end token last where the turn is learned; where it is not, its text as tokens of weight 0.
    `reason`, `kind`: why it is not learned, and the kind of error where its tool answered with one.
    """

    tokens: tuple[Token, ...]
    learned: bool = True
    reason: str = ""
    kind: str = ""


@dataclass(frozen=True)
class History:
    """A message that is only read; `kind` is the kind of error that a tool's answer is, if it is one."""

    speaker: str
    text: str
    kind: str = ""


@dataclass(frozen=True)
class Tools:
    """The tools on offer: their names, and their documentation as the model reads it."""

    names: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Conversation:
    """One trajectory: system text (`instructions`, `tools`), then messages."""

    id: str
    tools: Tools
    messages: tuple[History | Turn, ...]
    instructions: str = ""

    @property
    def turns(self) -> list[Turn]:
        """The assistant messages."""
        return [message for message in self.messages if isinstance(message, Turn)]


@dataclass(frozen=True)
class Settings:
    """The largest weight (None: standard SFT), MAE's rule (None: without MAE), and whose tokenizer it is."""

    w_max: float | None
    rule: str | None
    model: str


@dataclass(frozen=True)
class Counts:
    """What some turns hold. `reasons`: (reason, kind) -> turns. `key_weight`: the key tokens' share of all weight."""

    turns: int
    learned: int
    reasons: dict[tuple[str, str], int]
    tokens: int
    key_tokens: int
    weights: tuple[float, float] | None
    key_weight: float


def counts(turns: Iterable[Turn]) -> Counts:
    """Count turns, and the tokens of those that are learned; `weights` are the key tokens' least and greatest."""
    turns = list(turns)
    targets = [token for turn in turns if turn.learned for token in turn.tokens if token.weight]
    keys = [token.weight for token in targets if token.is_key]
    return Counts(
        turns=len(turns),
        learned=sum(turn.learned for turn in turns),
        reasons=dict(Counter((turn.reason, turn.kind) for turn in turns if not turn.learned).most_common()),
        tokens=len(targets),
        key_tokens=len(keys),
        weights=(min(keys), max(keys)) if keys else None,
        key_weight=sum(keys) / sum(token.weight for token in targets) if keys else 0.0,
    )


def page(conversations: Sequence[Conversation], settings: Settings) -> str:
    """The whole page."""
    first_with: dict[Tools, int] = {}
    for number, conversation in enumerate(conversations, start=1):
        first_with.setdefault(conversation.tools, number)
    weights = [token.weight for c in conversations for turn in c.turns for token in turn.tokens]
    greatest = max([settings.w_max or 1.0, *weights])
    return _rendered(
        "inspect.html.j2",
        conversations=list(enumerate(conversations, start=1)),
        first_with=first_with,
        settings=settings,
        total=counts(turn for conversation in conversations for turn in conversation.turns),
        scale=sorted({1.0, (1 + greatest) / 2, greatest}),
        strength=lambda weight: f"{(weight - 1) / (greatest - 1) if greatest > 1 else 0:.2f}",
        is_turn=lambda message: isinstance(message, Turn),
        note=lambda turn: note(turn, settings.w_max),
        counts=counts,
        cut=cut,
        most={"history": MOST_HISTORY, "tools": MOST_TOOLS, "tokens": MOST_TOKENS},
    )


def _rendered(template: str, **content: Any) -> str:
    """A template of `assets/` with its style sheet in it, every text that is filled in made visible and escaped."""
    css = (ASSETS / "inspect.css").read_text(encoding="utf-8")
    filters: dict[str, Callable[..., str]] = {"number": number, "plural": plural, "percent": percent}
    return html_page.render(ASSETS / template, filters, css=Markup(css), policy=html_page.policy(), **content)


def note(turn: Turn, w_max: float | None) -> str:
    """The sentence under a turn that is learned: its tokens, and how the weight of its key tokens came about."""
    found = counts([turn])
    if not found.key_tokens:
        return f"{plural(found.tokens, 'token')}; plain text has no key tokens, so each weighs 1"
    others, keys = found.tokens - found.key_tokens, found.key_tokens
    said = f"{plural(found.tokens, 'token')}, {keys} of them key"
    if w_max is None:
        return f"{said}; every token weighs 1 (standard SFT)"
    ratio = others / keys
    clipped = f", at most {number(w_max)}" if ratio > w_max else ", at least 1" if ratio < 1 else ""
    share = f"key tokens carry {percent(found.key_weight)} of this turn's weight"
    return f"{said}; weight {others} ÷ {keys} = {number(ratio)}{clipped}: {share}"


def cut(text: str, most: int) -> tuple[str, int]:
    """The beginning of a text, and how many characters are left out."""
    return text[:most], max(len(text) - most, 0)


def number(value: float) -> str:
    """A number with as few digits as tell it apart: 9, 4.5, 0.333."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def percent(share: float) -> str:
    """A share in percent, its sign on the same line."""
    return f"{100 * share:.0f}\u00a0%"


def plural(count: int, noun: str) -> str:
    """`1 token`, `2 tokens`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
