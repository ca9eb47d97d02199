"""The keys of the configuration, by their paths."""

from __future__ import annotations

from collections.abc import Iterator

from tltrain.config import Bounds, keys_of


def paths(schema: type, where: str) -> Iterator[tuple[str, Bounds]]:
    """Yield each key below a node, with its bounds."""
    for name, known in keys_of(schema).items():
        if known.schema is not None:
            yield from paths(known.schema, f"{where}.{name}")
        else:
            yield f"{where}.{name}", known.bounds
