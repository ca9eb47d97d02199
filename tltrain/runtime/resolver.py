"""Resolve objects by name, `module:attribute`: the only place where this package imports a module named by a string.

`source_digest` finds such strings in the code, so a module that a string names counts as imported.
"""

from __future__ import annotations

import importlib
from typing import Any


def resolve(name: str) -> Any:
    """Return the attribute that `module:attribute` names, importing the module."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
