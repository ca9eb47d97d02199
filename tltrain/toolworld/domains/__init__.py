"""The domains by split. Each tool, with its documentation, and each task, with its wordings, belongs to one split.

A split has standard domains, and confusable ones, whose tools have names that share a beginning. To add a domain, write
its state, tools and tasks in a module of this package (see `registry`) and list it below.
"""

from __future__ import annotations

from tltrain.toolworld.domains.confusable.culture import cinema, museum
from tltrain.toolworld.domains.confusable.garden import garden, helpdesk
from tltrain.toolworld.domains.confusable.journeys import flights, parcels
from tltrain.toolworld.domains.confusable.music import songs
from tltrain.toolworld.domains.confusable.school import courses, matches
from tltrain.toolworld.domains.confusable.stays import hotel, rentals
from tltrain.toolworld.domains.confusable.ward import ward
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

Domains = tuple[Domain, ...]

TRAIN: Domains = (
    arithmetic, statistics, geometry, units, currency, text, encoding, dates,
    calendar, notes, shop, bank, recipes, weather,
)  # fmt: skip
VALIDATION: Domains = (contacts, files)
TEST: Domains = (library, finance, todo, staff, trains, geography)

STANDARD: dict[str, Domains] = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
"""The standard domains of each split; the two tools of `user` are available in all."""
CONFUSABLE: dict[str, Domains] = {
    "train": (hotel, rentals, songs, courses, matches),
    "validation": (garden, helpdesk),
    "test": (flights, parcels, museum, cinema, ward),
}
"""The confusable domains of each split."""

SPLITS = tuple(STANDARD)
TOOLS = ("standard", "confusable", "all")
"""Which tools of a split are used."""

FUNCTIONS: dict[str, ToolFunction] = {
    name: function
    for domains in (*STANDARD.values(), *CONFUSABLE.values(), (user,))
    for domain in domains
    for name, function in domain.tools.items()
}
"""All tools by name."""


def domains_of(split: str, tools: str) -> Domains:
    """Return the domains of a split that have these `TOOLS`."""
    chosen = {"standard": (STANDARD,), "confusable": (CONFUSABLE,), "all": (STANDARD, CONFUSABLE)}
    return tuple(domain for by_split in chosen[tools] for domain in by_split[split])
