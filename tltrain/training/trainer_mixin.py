"""The base class of Trainer mix-ins, which precede the Trainer in a class's list of bases."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # gives a mix-in the methods and attributes of the Trainer, which it reaches by `super()`
    from transformers import Trainer

    TrainerMixin = Trainer
else:  # only the final class has the Trainer as a base, so it may be a subclass such as TRL's

    class TrainerMixin:
        """Empty at run time; type checkers see the Trainer instead."""
