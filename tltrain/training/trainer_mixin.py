"""The base of classes that are mixed in before a Trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the methods and attributes that a mix-in finds on the Trainer behind it, and reaches by `super()`
    from transformers import Trainer

    TrainerMixin = Trainer
else:  # the Trainer is a base of the whole class only, so that it may be a subclass of TRL's

    class TrainerMixin:
        """Nothing of its own."""
