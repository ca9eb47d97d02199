"""What a model says of the recipes in `conf/recipe/`: `model.recipes.NAME.KEY`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from tltrain.config.keys import key
from tltrain.config.limits import TOKENS


@dataclass
class ModelRecipe:
    batch_size: int = key(MISSING, "samples of a micro-batch", least=1)
    max_length: int = key(MISSING, "most tokens of a sample", least=1, most=TOKENS)


@dataclass
class ModelRecipes:
    lora_24gb: Any = key({}, "for +recipe=lora_24gb", schema=ModelRecipe)
    lora_80gb: Any = key({}, "for +recipe=lora_80gb", schema=ModelRecipe)
