"""`inspect.html`: conversations as the trainer sees them, on one page that needs neither network nor script.

Several conversations are folded, in the order of the data, and can be filtered by why turns are not learned. Every text
on the page is untrusted: it is escaped, and invisible and direction-changing characters are replaced. The page's own
security policy forbids it to load or run anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tltrain.views import filters, html_page
from tltrain.views.filters import Filter

ASSETS = Path(__file__).parent / "assets"
MOST_HISTORY = 3_000
"""Maximum characters shown of one history message."""
MOST_TOOLS = 100_000
"""Maximum characters shown of the tools' documentation."""
MOST_TOKENS = 5_000
"""Maximum tokens shown of one turn."""
MOST = 500
"""Maximum number of conversations on the page."""
BUDGET = 8_000_000
"""Maximum characters of all conversations on the page, estimated; the first is shown whatever its size."""
TOKEN = 60
"""Approximate characters of markup per token."""


@dataclass(frozen=True)
class Token:
    """A piece of an assistant message. `weight`: its weight in the loss; 0 for text that is not a target."""

    text: str
    weight: float = 1.0
    is_key: bool = False
    is_end: bool = False


@dataclass(frozen=True)
class Turn:
    """An assistant message.

    Attributes:
        tokens: those of a learned turn, including the end token; for any other turn the text as tokens of weight 0.
        reason, kind: why the turn is not learned, and the kind of error if its tool answered with one.
    """

    tokens: tuple[Token, ...]
    learned: bool = True
    reason: str = ""
    kind: str = ""


@dataclass(frozen=True)
class History:
    """A message that is not learned; `kind` is the kind of error if it is a tool error."""

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
    """The largest weight (None: standard SFT), MAE's rule (None: without MAE), the tokenizer's model, and which tokens
    get the weight of a key token (`stage.key_tokens`); `weighting` is its choice."""

    w_max: float | None
    rule: str | None
    model: str
    key_tokens: str = "paper"
    weighting: str = "pkt"


@dataclass(frozen=True)
class Counts:
    """Counts over turns.

    Attributes:
        reasons: (reason, kind) -> turns.
        weights: the smallest and largest weight of key tokens. key_weight: the key tokens' share of all weight.
        heavy: number of tokens with a weight above 1, key or not. heavy_weight: their share of all weight.
    """

    turns: int
    learned: int
    reasons: dict[tuple[str, str], int]
    tokens: int
    key_tokens: int
    weights: tuple[float, float] | None
    key_weight: float
    heavy: int
    heavy_weight: float


def counts(turns: Iterable[Turn]) -> Counts:
    """Count turns and the tokens of learned ones."""
    turns = list(turns)
    targets = [token for turn in turns if turn.learned for token in turn.tokens if token.weight]
    keys = [token.weight for token in targets if token.is_key]
    heavy = [token.weight for token in targets if token.weight > 1]
    whole = sum(token.weight for token in targets)
    return Counts(
        turns=len(turns),
        learned=sum(turn.learned for turn in turns),
        reasons=dict(Counter((turn.reason, turn.kind) for turn in turns if not turn.learned).most_common()),
        tokens=len(targets),
        key_tokens=len(keys),
        weights=(min(keys), max(keys)) if keys else None,
        key_weight=sum(keys) / whole if keys else 0.0,
        heavy=len(heavy),
        heavy_weight=sum(heavy) / whole if heavy else 0.0,
    )


def page(conversations: Sequence[Conversation], settings: Settings) -> str:
    """Render the whole page. Its counts cover all conversations, including those that do not fit on it."""
    shown = _shown(conversations)
    first_with: dict[Tools, int] = {}
    for number, conversation in enumerate(shown, start=1):
        first_with.setdefault(conversation.tools, number)
    weights = [token.weight for c in conversations for turn in c.turns for token in turn.tokens]
    greatest = max([settings.w_max or 1.0, *weights])
    offered = offered_filters(shown)
    return _rendered(
        "inspect.html.j2",
        filters.STYLE + filters.rules(offered),
        conversations=list(enumerate(shown, start=1)),
        all=len(conversations),
        form=filters.form(offered, len(shown)),
        count=filters.count(len(shown), "conversations"),
        classes=lambda number: filters.classes(offered, number - 1),
        unfold=len(shown) <= filters.OPEN,
        why_not=lambda conversation: dict(Counter(why(turn) for turn in conversation.turns if not turn.learned)),
        first_with=first_with,
        settings=settings,
        total=counts(turn for conversation in conversations for turn in conversation.turns),
        scale=sorted({1.0, (1 + greatest) / 2, greatest}),
        strength=lambda weight: f"{(weight - 1) / (greatest - 1) if greatest > 1 else 0:.2f}",
        is_turn=lambda message: isinstance(message, Turn),
        note=lambda turn: note(turn, settings.w_max, settings.key_tokens, settings.weighting),
        counts=counts,
        cut=cut,
        most={"history": MOST_HISTORY, "tools": MOST_TOOLS, "tokens": MOST_TOKENS},
    )


def why(turn: Turn) -> str:
    """Return why a turn is not learned, in a few words."""
    return f"error: {turn.kind}" if turn.kind else turn.reason


def offered_filters(conversations: Sequence[Conversation]) -> list[Filter]:
    """Return the filters that are useful for these conversations."""
    reasons = [[why(turn) for turn in one.turns if not turn.learned] for one in conversations]
    whole = ["some turn is not learned" if found else "every turn is learned" for found in reasons]
    offered = [
        Filter("Turns", "all", [[found] for found in whole], ["some turn is not learned", "every turn is learned"]),
        filters.by_count("Why a turn is not learned", "any reason", reasons),
    ]
    return filters.useful(offered)


def _shown(conversations: Sequence[Conversation]) -> list[Conversation]:
    """Return the first conversations, as many as fit on the page."""
    known: set[Tools] = set()
    size = 0
    shown: list[Conversation] = []
    for conversation in conversations[:MOST]:
        size += sum(map(_size, conversation.messages)) + min(len(conversation.instructions), MOST_HISTORY)
        size += 0 if conversation.tools in known else min(len(conversation.tools.text), MOST_TOOLS)
        if shown and size > BUDGET:
            break
        known.add(conversation.tools)
        shown.append(conversation)
    return shown


def _size(message: History | Turn) -> int:
    """Estimate how many characters of the page a message takes."""
    if isinstance(message, History):
        return min(len(message.text), MOST_HISTORY)
    return sum(len(token.text) + TOKEN for token in message.tokens[:MOST_TOKENS])


def _rendered(template: str, style: str, **content: Any) -> str:
    """Render a template from `assets/` with its style sheet, followed by `style`; every inserted text is made visible
    and escaped."""
    css = (ASSETS / "inspect.css").read_text(encoding="utf-8") + style
    filters: dict[str, Callable[..., str]] = {"number": number, "plural": plural, "percent": percent}
    return html_page.render(ASSETS / template, filters, css=Markup(css), policy=html_page.policy(), **content)


CARRIED_BY = {"paper": "", "name": "the name's and the key tokens", "shuffled": "random tokens"}
"""`stage.key_tokens` -> the tokens with the weight of a key token, if these are not just the key tokens."""


def note(turn: Turn, w_max: float | None, key_tokens: str = "paper", weighting: str = "pkt") -> str:
    """Return the sentence under a learned turn: its tokens, and how the weight of its key tokens is computed."""
    found = counts([turn])
    if weighting == "dft":
        return f"{plural(found.tokens, 'token')}; the model's probability of each multiplies its loss (weighting=dft)"
    if weighting != "pkt":
        heavy = f"{found.heavy} of them heavier than 1, with {percent(found.heavy_weight)} of the turn's weight"
        return f"{plural(found.tokens, 'token')}, {heavy} (weighting={weighting})"
    if not found.key_tokens:
        return f"{plural(found.tokens, 'token')}; plain text has no key tokens, so each weighs 1"
    others, keys = found.tokens - found.key_tokens, found.key_tokens
    said = f"{plural(found.tokens, 'token')}, {keys} of them key"
    if w_max is None:
        return f"{said}; every token weighs 1 (standard SFT)"
    ratio = others / keys
    clipped = f", at most {number(w_max)}" if ratio > w_max else ", at least 1" if ratio < 1 else ""
    share = f"key tokens carry {percent(found.key_weight)} of this turn's weight"
    if carriers := CARRIED_BY[key_tokens]:
        share = (
            f"{found.heavy} tokens have it ({carriers}) and carry {percent(found.heavy_weight)} of the turn's weight"
        )
    return f"{said}; weight {others} ÷ {keys} = {number(ratio)}{clipped}: {share}"


def cut(text: str, most: int) -> tuple[str, int]:
    """Return the start of a text and the number of characters cut off."""
    return text[:most], max(len(text) - most, 0)


def number(value: float) -> str:
    """Format a number with up to three significant digits: 9, 4.5, 0.333."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def percent(share: float) -> str:
    """Format a share in percent, with a non-breaking space before the sign."""
    return f"{100 * share:.0f}\u00a0%"


def plural(count: int, noun: str) -> str:
    """Format a count with its noun: `1 token`, `2 tokens`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
