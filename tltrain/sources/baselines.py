"""source=golden and source=random: the upper and the lower bound of a benchmark's scores."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from tltrain.errors import TltrainError
from tltrain.formats.calls import render_call
from tltrain.trajectory import Call, Sample, Tool, example

WORDS = "No tool is needed."
"""The golden answer if no call is right."""


class GoldenCalls:
    """Answers each sample with its golden call, or with all of them if all are asked for: the upper bound."""

    name = "golden calls"
    too_long = 0

    def reading(self) -> dict[str, float]:
        """Return nothing: no prompt is read."""
        return {}

    def __call__(self, samples: Sequence[Sample]) -> list[str]:
        """Return the calls as text, one per line; words if no call is right."""
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
    """Answers with a random tool on offer, its required parameters filled by type: the lower bound.

    The draw depends only on the seed, the sample's id and how far its conversation has come.
    """

    name = "random tool"
    too_long = 0

    def __init__(self, cfg: DictConfig) -> None:
        self.seed = cfg.seed

    def reading(self) -> dict[str, float]:
        """Return nothing: no prompt is read."""
        return {}

    def __call__(self, samples: Sequence[Sample]) -> list[str]:
        """Return the call as text; "" if no tool is on offer."""
        return [self._call(sample) for sample in samples]

    def _call(self, sample: Sample) -> str:
        if not sample.tools:
            return ""
        draw = random.Random(f"{self.seed}/{sample.id}/{len(sample.messages)}")
        return render_call(placeholder_call(draw.choice(sample.tools)))


def placeholder_call(tool: Tool) -> Call:
    """Return a call of `tool` with its required parameters."""
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
    """Return a value of a schema's type, named in JSON's or Python's words; for an `enum`, its first value."""
    if schema.get("enum"):
        return schema["enum"][0]
    choices = [choice for choice in schema.get("anyOf") or schema.get("oneOf") or () if isinstance(choice, Mapping)]
    if "type" not in schema and choices:
        return placeholder(choices[0])
    kind = schema.get("type", "string")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    return _PLACEHOLDERS.get(str(kind).lower(), "text")
