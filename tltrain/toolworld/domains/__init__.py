"""The domains by split. Each tool, with its documentation, and each task, with its wordings, belongs to one split.

To add a domain, write its state, tools and tasks in a module of this package (see `registry`) and list it below.
"""

from __future__ import annotations

from tltrain.toolworld.domains.conversions import currency, units
from tltrain.toolworld.domains.home import recipes, weather
from tltrain.toolworld.domains.library import finance, library
from tltrain.toolworld.domains.numbers import arithmetic, geometry, statistics
from tltrain.toolworld.domains.office import staff, todo
from tltrain.toolworld.domains.people import bank, contacts
from tltrain.toolworld.domains.shop import shop
from tltrain.toolworld.domains.storage import files, notes
from tltrain.toolworld.domains.texts import encoding, text
from tltrain.toolworld.domains.times import calendar, dates
from tltrain.toolworld.domains.travel import geography, trains
from tltrain.toolworld.domains.user import user
from tltrain.toolworld.registry import Domain, ToolFunction

TRAIN: tuple[Domain, ...] = (
    arithmetic, statistics, geometry, units, currency, text, encoding, dates,
    calendar, notes, files, shop, contacts, bank, recipes, weather,
)  # fmt: skip
TEST: tuple[Domain, ...] = (library, finance, todo, staff, trains, geography)

SPLITS: dict[str, tuple[Domain, ...]] = {"train": TRAIN, "test": TEST}
"""The domains of each split; the two tools of `user` are available in both."""

FUNCTIONS: dict[str, ToolFunction] = {
    name: function for domain in (*TRAIN, *TEST, user) for name, function in domain.tools.items()
}
"""All tools by name."""
