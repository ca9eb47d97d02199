"""source=golden and source=random: the most and the least that a benchmark's scoring gives to anybody."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from tltrain.errors import TltrainError
from tltrain.formats.calls import render_call
from tltrain.trajectory import Call, Sample, Tool, example

WORDS = "No tool is needed."
"""A golden answer where no call is right."""


class GoldenCalls:
    """The golden call of each sample, or all of them where all are asked for: the ceiling."""

    name = "golden calls"
    too_long = 0

    def reading(self) -> dict[str, float]:
        """Nothing is read."""
        return {}

    def __call__(self, samples: Sequence[Sample]) -> list[str]:
        """The calls as text, one a line; words where no call is right."""
        return [self._text(sample) for sample in samples]

    def _text(self, sample: Sample) -> str:
        if sample.abstain:
            return WORDS
        return "\n".join(render_call(example(golden)) for golden in self._asked(sample))

    def _asked(self, sample: Sample) -> Sequence[Call]:
        if not sample.goldens:
            raise TltrainError(f"source=golden: sample {sample.id} has no golden call; ask another source")
        return sample.goldens if sample.parallel else sample.goldens[:1]


class RandomTool:
    """A call of a tool on offer, its required parameters filled by type: the floor.

    The draw depends on the seed, the sample's id and how far its conversation has come, and on nothing else.
    """

    name = "random tool"
    too_long = 0

    def __init__(self, cfg: DictConfig) -> None:
        self.seed = cfg.seed

    def reading(self) -> dict[str, float]:
        """Nothing is read."""
        return {}

    def __call__(self, samples: Sequence[Sample]) -> list[str]:
        """The call as text; "" where no tool is on offer."""
        return [self._call(sample) for sample in samples]

    def _call(self, sample: Sample) -> str:
        if not sample.tools:
            return ""
        draw = random.Random(f"{self.seed}/{sample.id}/{len(sample.messages)}")
        return render_call(placeholder_call(draw.choice(sample.tools)))


def placeholder_call(tool: Tool) -> Call:
    """A call of `tool` with the parameters it requires."""
    return Call(tool.name, {name: placeholder(tool.properties.get(name) or {}) for name in tool.required})


_PLACEHOLDERS: dict[str, Any] = {
    **dict.fromkeys(("string", "str"), "text"),
    **dict.fromkeys(("integer", "int"), 1),
    **dict.fromkeys(("number", "float"), 1.0),
    **dict.fromkeys(("boolean", "bool"), True),
    **{name: [] for name in ("array", "list", "tuple")},
    **{name: {} for name in ("object", "dict")},
    "null": None,
}


def placeholder(schema: Mapping[str, Any]) -> Any:
    """A value of the type a JSON schema asks for, in JSON's or Python's word for it; of an `enum` the first."""
    if schema.get("enum"):
        return schema["enum"][0]
    choices = [choice for choice in schema.get("anyOf") or schema.get("oneOf") or () if isinstance(choice, Mapping)]
    if "type" not in schema and choices:
        return placeholder(choices[0])
    kind = schema.get("type", "string")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    return _PLACEHOLDERS.get(str(kind).lower(), "text")
