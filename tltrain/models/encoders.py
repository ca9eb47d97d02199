"""The encoder of a model, and the record in a trained model's folder of how conversations were tokenized."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from omegaconf import DictConfig
from transformers import PreTrainedTokenizerBase

from tltrain.errors import TltrainError
from tltrain.formats.tl import chat_template
from tltrain.models import loading, sizes
from tltrain.runtime import json_files
from tltrain.tokens.encoder import Encoder

log = logging.getLogger(__name__)

RECORD = "tltrain.json"
"""A file in a trained model's folder, beside the tokenizer's files."""
VERSION = 1


@dataclass(frozen=True)
class TokenizationRecord:
    """How conversations were tokenized when a model was trained.

    Attributes:
        bos: whether a conversation began with the tokenizer's BOS token.
        prompts: number of training prompts.
        prompts_read_apart: those whose whole text has other tokens than the prompt (`Encoder.reads_apart`).
    """

    bos: bool
    prompts: int = 0
    prompts_read_apart: int = 0
    version: int = VERSION

    def write(self, folder: Path) -> None:
        """Write the record to a model's folder."""
        (folder / RECORD).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> TokenizationRecord | None:
        """Read the record from a model's folder; None if there is none.

        Raises:
            TltrainError: the record cannot be read.
        """
        file = folder / RECORD
        if not file.is_file():
            return None
        try:
            found = json_files.read_object(file)
            if found["version"] != VERSION or not isinstance(found["bos"], bool):
                raise ValueError(f"version {found['version']}, bos {found['bos']}")
            return cls(**found)
        except (OSError, ValueError, KeyError, TypeError) as error:
            why = " ".join(str(error).split())[:200]
            raise TltrainError(f"{file} cannot be read ({why}): set model.bos=true or false as well") from error


def load_encoder(path: str, model: DictConfig) -> Encoder:
    """Load the encoder of the model at `path`; its tokenizer gets the TL chat template.

    Raises:
        TltrainError: the tokenizer cannot be read, or has tokens that the model's embeddings lack.
    """
    tokenizer = loading.load_tokenizer(path, model)
    sizes.check_tokens(loading.sizes_at(path), tokenizer.get_vocab(), path)
    return encoder_of(tokenizer, bos_of(path, model))


def encoder_of(tokenizer: PreTrainedTokenizerBase, bos: bool | None) -> Encoder:
    """Create the encoder of a tokenizer, which gets the TL chat template; `bos` as in `Encoder`."""
    encoder = Encoder(tokenizer, bos=bos)
    tokenizer.chat_template = chat_template("".join(tokenizer.convert_ids_to_tokens(encoder.opening)))
    return encoder


def bos_of(path: str, model: DictConfig) -> bool | None:
    """Return whether conversations begin with the BOS token: `model.bos`, or with `auto` as the model was trained.

    None follows the tokenizer: `auto`, and the model has no record of its training.
    """
    trained = TokenizationRecord.read(Path(path))
    if model.bos == "auto":
        return None if trained is None else trained.bos
    if trained is not None and trained.bos != model.bos:
        log.warning("model.bos=%s: %s was trained with model.bos=%s", _word(model.bos), path, _word(trained.bos))
    return model.bos


def _word(value: bool) -> str:
    return str(value).lower()
