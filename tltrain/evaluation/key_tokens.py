"""Count the key tokens (PKT) of a benchmark's golden calls under a model's tokenizer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tltrain.errors import TltrainError
from tltrain.tokens.encoder import Encoder
from tltrain.trajectory import Call, Message, Sample, Trajectory, example


@dataclass(frozen=True, slots=True)
class KeyTokens:
    """Key tokens of `calls` golden calls.

    Attributes:
        per_call: the mean number per call.
        several: % of calls with more than the first token of the name, that is, whose name shares its first tokens with
            another name on offer.
        not_counted: reason why the format cannot write golden calls, which are not counted -> their number.
    """

    calls: int
    per_call: float
    several: float
    not_counted: Mapping[str, int] = field(default_factory=dict)


def count(encoder: Encoder, samples: Sequence[Sample]) -> KeyTokens | None:
    """Count the key tokens of the first golden call of each sample; None without any."""
    asked = [(sample, example(sample.goldens[0])) for sample in samples if sample.goldens]
    refused: Counter[str] = Counter()
    counts = list(_native(encoder, asked, refused) if encoder.reads_tokens else _text(encoder, asked))
    if not asked:
        return None
    return KeyTokens(
        len(counts),
        round(sum(counts) / max(len(counts), 1), 3),
        round(100 * sum(number > 1 for number in counts) / max(len(counts), 1), 2),
        dict(refused),
    )


def _text(encoder: Encoder, asked: Sequence[tuple[Sample, Call]]) -> Iterator[int]:
    """Yield the number of key tokens of each call in the TL format."""
    texts = encoder.encode([encoder.format.call_text(call) for _, call in asked])
    for (sample, call), encoded in zip(asked, texts, strict=True):
        yield len(encoder.key_positions(call, encoded, sample.tools))


def _native(encoder: Encoder, asked: Sequence[tuple[Sample, Call]], refused: Counter[str]) -> Iterator[int]:
    """Yield the number of key tokens of each call as the first answer of a conversation in a native format."""
    from tltrain.tokens.native import NativeEncoder

    assert isinstance(encoder, NativeEncoder)
    for sample, call in asked:
        messages = (Message("user", "?"), Message.calling(call))  # earlier messages do not change the key tokens
        try:
            (turn,) = encoder.turns(Trajectory(sample.id, sample.tools, messages), None)
        except TltrainError as error:
            refused[str(error)] += 1
            continue
        yield sum(target.key for target in turn.targets)
