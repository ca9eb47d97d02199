"""How many key tokens (PKT) the golden calls of a benchmark have under a model's tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tltrain.tokens.encoder import Encoder
from tltrain.trajectory import Sample, example


@dataclass(frozen=True, slots=True)
class KeyTokens:
    """Key tokens of `calls` golden calls.

    Attributes:
        per_call: the mean number. several: % of calls with more than the first token of the name, that is, whose name
            shares its first tokens with another name on offer.
    """

    calls: int
    per_call: float
    several: float


def count(encoder: Encoder, samples: Sequence[Sample]) -> KeyTokens | None:
    """Count the key tokens of the first golden call of each sample; None without any, or in a native format."""
    asked = [(sample, example(sample.goldens[0])) for sample in samples if sample.goldens]
    if not asked or encoder.reads_tokens:
        return None
    texts = encoder.encode([encoder.format.call_text(call) for _, call in asked])
    counts = [
        len(encoder.key_positions(call, encoded, sample.tools))
        for (sample, call), encoded in zip(asked, texts, strict=True)
    ]
    return KeyTokens(
        len(counts),
        round(sum(counts) / len(counts), 3),
        round(100 * sum(number > 1 for number in counts) / len(counts), 2),
    )
