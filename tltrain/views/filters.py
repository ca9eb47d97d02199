"""Filter a page's items in pure CSS: radio buttons, and `:has()` rules that hide the items that do not match.

A page that shows untrusted text is safest if it cannot run anything, so there is no script. A browser without `:has()`
(older than 2024) shows every item and no filters. Items are folded `<details>`; browsers search folded text too.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from markupsafe import Markup

from tltrain.views.html_page import escaped, line

K = TypeVar("K")

MOST_VALUES = 30
"""Maximum number of values that a filter offers; the commonest are kept."""
OPEN = 3
"""A page with at most this many items unfolds them."""

STYLE = (Path(__file__).parent / "assets" / "filters.css").read_text(encoding="utf-8")
"""Style of filters and items, in the page's colours (`html_page.STYLE`)."""


@dataclass(frozen=True)
class Filter:
    """A group of radio buttons.

    Attributes:
        legend: what it filters by.
        every: the label of the button that shows all items.
        of: the values of each item on the page.
        values: the values offered, in order.
    """

    legend: str
    every: str
    of: Sequence[Collection[str]]
    values: Sequence[str]

    @property
    def counts(self) -> Mapping[str, int]:
        """Value -> the number of items that have it."""
        return Counter(value for values in self.of for value in set(values))


def by_count(legend: str, every: str, of: Sequence[Collection[str]]) -> Filter:
    """Return a filter that offers the commonest values first."""
    counts = Counter(value for values in of for value in set(values))
    return Filter(legend, every, of, [value for value, _ in counts.most_common(MOST_VALUES)])


def useful(filters: Iterable[Filter]) -> list[Filter]:
    """Return the filters that offer a real choice: a value that some items have and others do not."""
    return [one for one in filters if any(0 < count < len(one.of) for count in one.counts.values())]


def classes(filters: Sequence[Filter], item: int) -> str:
    """Return an item's CSS classes, which the rules from `rules` select."""
    own = (f"f{f}-{v}" for f, one in enumerate(filters) for v, value in enumerate(one.values) if value in one.of[item])
    return " ".join(["item", *own])


def rules(filters: Sequence[Filter]) -> str:
    """Return the CSS that hides the items without the chosen value."""
    return "".join(
        f"body:has(#f{f}-{v}:checked) .item:not(.f{f}-{v}) {{ display: none; }}\n"
        for f, one in enumerate(filters)
        for v in range(len(one.values))
    )


def form(filters: Sequence[Filter], items: int) -> Markup:
    """Return the radio buttons and the checkbox that unfolds all items; nothing for a single item."""
    if items < 2:
        return Markup("")
    groups = []
    for f, one in enumerate(filters):
        counts = one.counts
        buttons = [_button("radio", f"f{f}", f"f{f}-all", f"{one.every} ({items:,})", " checked")]
        buttons += [
            _button("radio", f"f{f}", f"f{f}-{v}", f"{value} ({counts.get(value, 0):,})")
            for v, value in enumerate(one.values)
        ]
        groups.append(f"<fieldset><legend>{escaped(one.legend)}</legend>{''.join(buttons)}</fieldset>\n")
    unfold = f'<div class="unfold">{_button("checkbox", "unfold", "unfold", "unfold all")}</div>'
    return Markup(f'<div class="filters" role="search">\n{"".join(groups)}{unfold}</div>\n')


def _button(kind: str, name: str, id: str, label: str, more: str = "") -> str:
    return f'<label><input type="{kind}" name="{name}" id="{id}"{more}>{line(label, 80)}</label>'


def count(items: int, noun: str) -> Markup:
    """Return the line that counts the items shown, the last child of `.items`: CSS counts what comes before it."""
    return Markup(f'<p class="count"><span></span> of {items:,} {escaped(noun)} shown</p>\n')


def in_turn(groups: Iterable[Sequence[K]]) -> Iterator[K]:
    """Yield the first member of each group, then the second of each, and so on."""
    for members in itertools.zip_longest(*groups):
        yield from (member for member in members if member is not None)
