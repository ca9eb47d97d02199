"""`stage.predictions`: answers from a file in place of a source, one JSON object per line, in the benchmark's order.

    {"prediction": "search(query=\"love\")"}
    {"prediction": "search(query=\"love\")\nfinish()", "said": {...}}
    {"raw": "<tool_call>\n{\"name\": \"search\", ...}\n</tool_call><|im_end|>"}

`prediction` is text of the TL format; with `said` it is an answer that was in a native format, as `predictions.jsonl`
has it. `raw` is what a model wrote in its own format, which `format=` and the tokenizer of `model=` read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import DictConfig

from tltrain.data import trajectories
from tltrain.data.reading import ReadReport, records
from tltrain.errors import TltrainError
from tltrain.formats.families import TL_NAMES
from tltrain.formats.native import as_text
from tltrain.trajectory import Sample

if TYPE_CHECKING:
    from tltrain.tokens.native import NativeEncoder


class SavedAnswer(NamedTuple):
    """An answer as text of the TL format, and what it said in a native format."""

    text: str
    said: Mapping[str, Any]


def read(cfg: DictConfig, path: Path, samples: Sequence[Sample]) -> list[SavedAnswer]:
    """Read the saved answers to `samples`.

    Raises:
        TltrainError: the file has too many or too few answers, a line is not an answer, or `format=` cannot read it.
    """
    lines = list(records(path))
    if len(lines) != len(samples):
        raise TltrainError(
            f"{path}: expected {len(samples)} predictions, one for each sample of the benchmark in its order, "
            f"found {len(lines)}"
        )
    encoder = None
    found = []
    for (number, record), sample in zip(lines, samples, strict=True):
        said = record.get("said", {}) if isinstance(record, dict) else {}
        if isinstance(record, dict) and isinstance(record.get("prediction"), str) and isinstance(said, dict):
            found.append(SavedAnswer(record["prediction"], said))
        elif isinstance(record, dict) and isinstance(record.get("raw"), str):
            encoder = encoder or _encoder(cfg, path, number)
            found.append(_read(encoder, record["raw"], sample))
        else:
            raise TltrainError(
                f'{path}, record {number}: expected {{"prediction": text}}, or {{"raw": text}} as the model wrote it, '
                f"found {str(record)[:80]}"
            )
    return found


def _read(encoder: NativeEncoder, raw: str, sample: Sample) -> SavedAnswer:
    ids = encoder.tokenizer(raw, add_special_tokens=False)["input_ids"]
    answer = encoder.read(ids, encoder.prompt(sample), sample.tools)
    return SavedAnswer(as_text(answer), answer.to_json())


def _encoder(cfg: DictConfig, path: Path, number: int) -> NativeEncoder:
    """Return the encoder that reads raw answers; only its tokenizer is loaded."""
    from tltrain.models import encoders, loading
    from tltrain.tokens.native import NativeEncoder

    wanted = f"{path}, record {number}: `raw` is an answer in a native format"
    if cfg.format.name in TL_NAMES:
        raise TltrainError(f'{wanted}: give format=NAME; text of the TL format is {{"prediction": text}}')
    name = loading.resolve(
        cfg.model,
        cfg.cache.dir,
        lambda: loading.corpus(list(trajectories(cfg.data, cfg.seed, ReadReport())), cfg.format),
        cfg.format,
    )
    encoder = encoders.load_encoder(name, cfg.model, cfg.format)
    if not isinstance(encoder, NativeEncoder):
        raise TltrainError(f"{wanted}, and format={cfg.format.name} is the TL format for the model {name}")
    return encoder
