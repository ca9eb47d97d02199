"""Objects by name: `module:attribute`. The one place in which this package imports a module that a string names.

`source_digest` finds such strings in the code, so that a module reached by one counts as imported.
"""

from __future__ import annotations

import importlib
from typing import Any


def resolve(name: str) -> Any:
    """The attribute that `module:attribute` names; imports the module."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
