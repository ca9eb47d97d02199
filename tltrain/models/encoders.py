"""The encoder of a model, in the format that is configured, and the record in a trained model's folder of how
conversations were tokenized.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from transformers import PreTrainedTokenizerBase

from tltrain.errors import TltrainError
from tltrain.formats import Format, families, servers
from tltrain.formats.families import AUTO, FAMILIES, NATIVE, TL_NAME, TL_NAMES
from tltrain.formats.tl import TL, TL_FULL, chat_template, tl_format
from tltrain.models import loading, sizes, trained_format
from tltrain.models.trained_format import RECORD
from tltrain.runtime import json_files, targets
from tltrain.tokens.chat_templates import TemplateFormat
from tltrain.tokens.encoder import Encoder
from tltrain.tokens.native import NativeEncoder
from tltrain.trajectory import Trajectory

log = logging.getLogger(__name__)

VERSION = 1


@dataclass(frozen=True)
class TokenizationRecord:
    """How conversations were tokenized when a model was trained.

    Attributes:
        bos: whether a conversation began with the tokenizer's BOS token.
        prompts: number of training prompts.
        prompts_read_apart: those whose text has other tokens if it is tokenized as a whole (`Encoder.reads_apart`).
        format: the format of its conversations; for a user's own format its `_target_`. The TL format is not written,
            as in records from before there were others.
        parser: server -> the name under which it knows the parser of this format's calls; empty in the TL format.
        thinking: whether the model learned to write thoughts; None in the TL format, which has none.
        options: variables of the chat template, by its own names, with which it was rendered.
        date: today's date, as it was rendered by a template that writes it; empty for all others.
    """

    bos: bool
    prompts: int = 0
    prompts_read_apart: int = 0
    version: int = VERSION
    format: str = TL_NAME
    parser: Mapping[str, str] = field(default_factory=dict)
    thinking: bool | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    date: str = ""

    def write(self, folder: Path) -> None:
        """Write the record to a model's folder."""
        unsaid: dict[str, Any] = {"format": TL_NAME, "parser": {}, "thinking": None, "options": {}, "date": ""}
        record = {name: value for name, value in asdict(self).items() if unsaid.get(name, ...) != value}
        (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

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
            if found.get("format", TL_NAME) not in families.NAMES and "." not in found["format"]:
                raise ValueError(f"format {str(found['format'])[:40]}")
            for name, kind in (("parser", dict), ("options", dict), ("date", str)):
                if not isinstance(found.get(name, kind()), kind):
                    raise ValueError(f"{name} {str(found[name])[:40]}")
            return cls(**found)
        except (OSError, ValueError, KeyError, TypeError) as error:
            why = " ".join(str(error).split())[:200]
            raise TltrainError(f"{file} cannot be read ({why}): set model.bos=true or false as well") from error


def record_of(
    encoder: Encoder, prompts: int, prompts_read_apart: int, thinking: bool = False, options: Mapping[str, Any] = {}
) -> TokenizationRecord:
    """Return the record of how an encoder tokenizes.

    Args:
        thinking: whether the learned turns have thoughts. options: variables of the chat template.
    """
    if not isinstance(encoder, NativeEncoder):
        return TokenizationRecord(bool(encoder.opening), prompts, prompts_read_apart, format=encoder.format_name)
    native = encoder.native
    first = native.prompt([{"role": "user", "content": "a"}], []).ids[:1]
    reads = getattr(encoder.tokenizer, "response_template", None) is not None
    return TokenizationRecord(
        first == [encoder.tokenizer.bos_token_id],
        prompts,
        prompts_read_apart,
        format=native.name,
        parser=servers.parsers(native.name) if reads else {},
        thinking=thinking and native.thoughts,
        options=dict(options),
        date=native.date or "",
    )


def end_at(folder: Path, stop_ids: Collection[int]) -> None:
    """Make the generation configuration in a model's folder end answers at all tokens that end one.

    A base model often names only the end of a text there, and a server would let the model continue after its answer.
    """
    file = folder / "generation_config.json"
    if not file.is_file():  # of an adapter
        return
    found = json_files.read_object(file)
    ends = found.get("eos_token_id")
    known = ends if isinstance(ends, list) else [] if ends is None else [ends]
    if missing := sorted(set(stop_ids) - set(known)):
        found["eos_token_id"] = [*known, *missing]
        file.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def load_encoder(path: str, model: DictConfig, format: DictConfig | None = None) -> Encoder:
    """Load the encoder of the model at `path`. In the TL format its tokenizer gets the TL chat template.

    Args:
        format: the configuration's `format`; None: the format that the model was trained in, the TL format if none.

    Raises:
        TltrainError: the tokenizer cannot be read, has tokens that the model's embeddings lack, or does not suit the
            format; or the model was trained in another format.
    """
    tokenizer = loading.load_tokenizer(path, model)
    sizes.check_tokens(loading.sizes_at(path), tokenizer.get_vocab(), path)
    if format is not None and (found := loading.own_format(format)) is not None:
        target = format_of(path, tokenizer, str(format[targets.TARGET]))
        return Encoder(tokenizer, found, bos_of(path, model), target)
    name = format_of(path, tokenizer, None if format is None else format.name)
    if name in TL_NAMES:
        return encoder_of(tokenizer, bos_of(path, model), tl_format(name))
    given = {} if format is None else {"options": dict(format.options), "date": format.date}
    if (trained := TokenizationRecord.read(Path(path))) is not None and trained.options:
        given["options"] = {**trained.options, **given.get("options", {})}
    return native_encoder(tokenizer, name, given)


def load_own_encoder(path: str, model: DictConfig, format: DictConfig) -> Encoder:
    """Load the encoder of the model at `path` in the format that it was trained in, without a record in `format`.

    This is how models of different formats are compared. Raises the same errors as `load_encoder`.
    """
    own = format.copy()
    own.name = trained_format.read(path) or format.name
    return load_encoder(path, model, own)


def random_encoder(items: list[Trajectory], model: DictConfig, format: DictConfig) -> Encoder:
    """Create the encoder that a model with random weights would have, of a tokenizer trained on these conversations.

    Raises:
        TltrainError: the format is the model's own, and a model with random weights has none.
    """
    family = str(format.name) if format.name in FAMILIES else None
    tokenizer = loading.byte_level_tokenizer(loading.corpus(items, format), model.random.vocab_size, family)
    if (found := loading.own_format(format)) is not None:
        return Encoder(tokenizer, found)
    if format.name in (AUTO, *TL_NAMES):
        return encoder_of(tokenizer, None, tl_format(format.name))
    return native_encoder(tokenizer, str(format.name), format)


def format_of(path: str, tokenizer: PreTrainedTokenizerBase, asked: str | None) -> str:
    """Return the name of the format in which the model at `path` is trained or asked.

    Args:
        asked: the configured name; None: the format that the model was trained in.

    Raises:
        TltrainError: the model was trained in another one.
    """
    trained = TokenizationRecord.read(Path(path))
    if asked in (None, AUTO):
        if trained is not None and trained.format not in families.NAMES:
            raise TltrainError(
                f"{path} was trained with a format of somebody's own, {trained.format}: choose it with format=NAME and "
                "--config-dir FOLDER, as it was when the model was trained"
            )
        if trained is not None:
            return trained.format
        own = asked == AUTO and knows_tools(tokenizer)
        if asked == AUTO:
            log.info("format=auto: %s", "the model's own" if own else "tl, the model's chat template knows no tools")
        return NATIVE if own else TL_NAME
    trained_format.check(path, None if trained is None else trained.format, str(asked))
    return str(asked)


def knows_tools(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the tokenizer has a chat template that offers tools and writes calls."""
    if tokenizer.chat_template is None:
        return False
    try:
        native_encoder(tokenizer, NATIVE, {})
    except TltrainError:
        return False
    return True


def native_encoder(tokenizer: PreTrainedTokenizerBase, name: str, format: Any) -> NativeEncoder:
    """Create the encoder of a native format.

    The chat template is the model's own, or the family's if the model has none. Answers are parsed as the model's
    folder says, else like the family's, else by TRL's rules for exactly this template. The tokenizer gets both, so a
    server finds them in the folder in which it is saved.

    Args:
        format: the configuration's `format`, for its `options` and `date`; may be empty.

    Raises:
        TltrainError: the tokenizer lacks tokens of the format, or the template cannot write calls.
    """
    from trl import chat_template_utils

    family = FAMILIES.get(name)
    vocabulary = tokenizer.get_vocab()
    lacking = [token for token in (family.turn_marks if family else ()) if token not in vocabulary]
    if lacking:
        raise TltrainError(
            f"format={name}: the tokenizer {tokenizer.name_or_path} lacks its tokens {', '.join(lacking)}: "
            "format=auto takes the model's own format, format=tl needs no tokens of its own"
        )
    template = tokenizer.chat_template
    if isinstance(template, dict):  # several by name
        template = template.get("tool_use") or template.get("default")
    if template is None and family is not None:
        template = loading.template_of(name)
    if template is None:
        raise TltrainError(f"format={name}: the tokenizer {tokenizer.name_or_path} has no chat template: format=tl")
    response = getattr(tokenizer, "response_template", None)
    if response is None and family is not None:
        response = getattr(chat_template_utils, family.response)
    if response is None:
        response = _known_response(tokenizer, template)
    options = dict(format.get("options") or {})
    date = format.get("date") or "2024-07-26"
    encoder = NativeEncoder(tokenizer, lambda own: TemplateFormat(own, name, template, response, options, date))
    if tokenizer.chat_template is None:
        tokenizer.chat_template = template
    tokenizer.response_template = response
    return encoder


def _known_response(tokenizer: PreTrainedTokenizerBase, template: str) -> dict[str, Any] | None:
    """Return TRL's response template for exactly this chat template, or Mistral's for one of its; None for others."""
    from types import SimpleNamespace

    from trl import chat_template_utils

    stand_in: Any = SimpleNamespace(chat_template=template)
    try:
        return chat_template_utils.add_response_schema(stand_in).response_template
    except (ValueError, AttributeError):
        return families.mistral_response(str(tokenizer.eos_token)) if families.writes_mistral_lists(template) else None


def encoder_of(tokenizer: PreTrainedTokenizerBase, bos: bool | None, format: Format = TL) -> Encoder:
    """Create the encoder of a tokenizer, which gets the chat template of a TL format; `bos` as in `Encoder`."""
    encoder = Encoder(tokenizer, format, bos, getattr(format, "name", TL_NAME))
    opening = "".join(tokenizer.convert_ids_to_tokens(encoder.opening))
    tokenizer.chat_template = chat_template(opening, full=format is TL_FULL)
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
