"""The questions for a served model: turns of conversations, as messages and as the token ids that training built.

A trained model's folder keeps its chat template and digests of some prompts as training tokenized them
(`TrainedPrompts`), but none of their text. A later certificate rebuilds the prompts and checks by the digests that they
are those of training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tltrain.errors import TltrainError
from tltrain.formats import joined
from tltrain.formats.native import tools_of
from tltrain.runtime import json_files, runs
from tltrain.tokens.encoder import Encoder
from tltrain.tokens.native import NativeEncoder
from tltrain.trajectory import Sample, Trajectory, sequential

RECORD = "trained_prompts.json"
"""The name of the record's file in a trained model's folder, beside `tltrain.json`."""
KEPT = 50
"""Number of prompts whose digests a trained model's folder keeps."""
Json = Mapping[str, Any]


@dataclass(frozen=True)
class Asked:
    """One prompt.

    Attributes:
        messages, tools: as an API writes them, for a chat; arguments are objects, as templates expect.
        text: the whole prompt in the TL format; empty in a native one.
        ids: its tokens, as training builds them.
    """

    sample: Sample
    messages: Sequence[Json]
    tools: Sequence[Json]
    text: str
    ids: Sequence[int]

    @property
    def key(self) -> str:
        """Return a digest of the question."""
        return _digest([self.text or self.messages, self.tools])


def turns(item: Trajectory, encoder: Encoder) -> list[Sample]:
    """Return a conversation's turns whose calls are learned, each with its history and its calls as golden ones."""
    messages = sequential(item.messages)
    if isinstance(encoder, NativeEncoder):
        messages = encoder.conversation_messages(item)
    return [
        Sample(
            f"{item.id}#{at}",
            item.tools,
            messages[:at],
            tuple(made.call for made in message.calls),
            item.instructions,
            {**item.meta, "turn": at},
        )
        for at, message in enumerate(messages)
        if message.calls and all(made.learn for made in message.calls)
    ]


def in_order(items: Iterable[Trajectory], encoder: Encoder) -> list[Sample]:
    """Return all turns in a fixed order that mixes conversations and depths, so the first N are always the same."""
    samples = [sample for item in items for sample in turns(item, encoder)]
    return sorted(samples, key=lambda sample: _digest(sample.id))


def asked(sample: Sample, encoder: Encoder) -> Asked:
    """Return the prompt of a turn. Raises TltrainError if the format cannot write it."""
    ids = encoder.prompt(sample)
    if isinstance(encoder, NativeEncoder):
        messages, _ = encoder.messages(sample)
        return Asked(sample, messages, tools_of(sample), "", ids)
    return Asked(sample, (), (), joined(encoder.format.prompt_segments(sample)), ids)


@dataclass(frozen=True)
class TrainedPrompts:
    """A model's record of how its training built prompts.

    Attributes:
        template: the chat template that training rendered; empty in the TL format, which training writes itself.
        digests: digest of the question -> digest of its token ids.
    """

    template: str = ""
    digests: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, encoder: Encoder, items: Sequence[Trajectory]) -> TrainedPrompts:
        """Return the record of the first `KEPT` turns of these conversations."""
        made = [asked(sample, encoder) for sample in in_order(items, encoder)[:KEPT]]
        template = encoder.native.template if isinstance(encoder, NativeEncoder) else ""
        return cls(template, {one.key: _digest(list(one.ids)) for one in made})

    def write(self, folder: Path) -> None:
        """Write the record to a model's folder."""
        runs.write_json(folder / RECORD, {"template": self.template, "prompts": dict(self.digests)})

    @classmethod
    def read(cls, folder: Path) -> TrainedPrompts | None:
        """Read the record from a model's folder; None if there is none.

        Raises:
            TltrainError: the record cannot be read.
        """
        file = folder / RECORD
        if not file.is_file():
            return None
        try:
            found = json_files.read_object(file)
            template, digests = found["template"], found["prompts"]
            if not (isinstance(template, str) and isinstance(digests, dict)):
                raise ValueError("expected a template and digests of prompts")
        except (OSError, ValueError, KeyError) as error:
            raise TltrainError(f"{file} cannot be read ({' '.join(str(error).split())[:200]})") from error
        return cls(template, digests)

    def differs(self, one: Asked) -> bool | None:
        """Return whether training built other tokens for this prompt; None if the record does not have it."""
        kept = self.digests.get(one.key)
        return None if kept is None else kept != _digest(list(one.ids))


def _digest(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
