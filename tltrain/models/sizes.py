"""Check the sizes in a model's configuration before a weight is created. Nothing here loads torch.

For a size of 0 or below, libraries end in a traceback or train nothing. They do not refuse a size that is far too
large, but build layers until memory runs out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tltrain.config import Bounds
from tltrain.errors import TltrainError
from tltrain.runtime import json_files

CONFIG = "config.json"
_LAYERS, _HEADS, _WIDTH = Bounds(least=1, most=1000), Bounds(least=1, most=100_000), Bounds(least=1, most=1_000_000)
_EXPERTS, _CONTEXT = Bounds(least=0, most=10_000), Bounds(least=1, most=100_000_000)
BOUNDS = {
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), _LAYERS),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "n_head", "n_heads", "head_dim"), _HEADS),
    **dict.fromkeys(("hidden_size", "intermediate_size", "n_embd", "n_inner", "d_model", "ffn_dim"), _WIDTH),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), _EXPERTS),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), _CONTEXT),
    "vocab_size": Bounds(least=1, most=10_000_000),
}
"""The range of each size, by its names in transformers' configurations."""
BYTES = 256
"""Tokens of an untrained byte-level tokenizer, without its end and padding tokens."""
SMALLEST_VOCABULARY = BYTES + 2
LLAMA = {
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}
"""The defaults of transformers' LlamaConfig."""


def check(sizes: Mapping[Any, Any], where: str) -> None:
    """Raise a TltrainError for a size out of range; messages put `where` before its name."""
    if not isinstance(sizes, Mapping):
        raise TltrainError(f"{where.rstrip('.')}: expected a mapping, found {'null' if sizes is None else sizes}")
    for name, value in sizes.items():
        bounds = BOUNDS.get(name)
        if bounds is None or value is None or isinstance(value, list):  # a list: one number for each layer
            continue
        if not isinstance(value, int) or value not in bounds:
            raise TltrainError(f"{where}{name}: expected {bounds}, found {value}")
    if isinstance(nested := sizes.get("text_config"), Mapping):
        check(nested, f"{where}text_config.")


def check_random(sizes: Mapping[str, int], where: str = "model.random.") -> None:
    """Check the sizes of a Llama with random weights and a new tokenizer, and that they are consistent."""
    check(sizes, where)
    whole = LLAMA | dict(sizes)
    hidden, heads = whole["hidden_size"], whole["num_attention_heads"]
    keys, size = whole.get("num_key_value_heads") or heads, whole.get("head_dim")
    if whole["vocab_size"] < SMALLEST_VOCABULARY:
        raise TltrainError(
            f"{where}vocab_size: expected {SMALLEST_VOCABULARY} or more ({BYTES} bytes, the end and the padding), "
            f"found {whole['vocab_size']}"
        )
    if size is None and hidden % heads:
        raise TltrainError(
            f"{where}hidden_size={hidden}: expected a multiple of {where}num_attention_heads={heads}, such as "
            f"{(hidden // heads + 1) * heads}"
        )
    if heads % keys:
        raise TltrainError(
            f"{where}num_key_value_heads={keys}: expected a number that divides {where}num_attention_heads={heads}"
        )
    if (size := size or hidden // heads) % 2:
        raise TltrainError(
            f"{where}hidden_size={hidden}: {heads} heads of {size} elements; rotary positions need an even number"
        )


def check_folder(folder: Path, key: str) -> None:
    """Raise a TltrainError if a `config.json` has a size out of range, or describes more weights than there are.

    Args:
        key: the configuration key that names the folder, for messages.
    """
    found = read(folder)
    if found is None:
        return
    check(found, f"{key}={folder}, {CONFIG}: ")
    weights, bytes_there = at_least(found), sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    # 4-bit weights take half a byte each; the other factor of 2 allows for shared weights.
    if bytes_there and weights > 4 * bytes_there:
        raise TltrainError(
            f"{key}={folder}: its {CONFIG} describes {weights:.2g} weights or more, its safetensors hold {bytes_there} "
            "bytes: they belong to different models"
        )


def read(folder: Path) -> dict[str, Any] | None:
    """Read a model's `config.json`; None if there is none.

    Raises:
        TltrainError: the file is not a JSON object.
    """
    file = folder / CONFIG
    if not file.is_file():
        return None
    try:
        return json_files.read_object(file)
    except (OSError, ValueError) as error:
        raise TltrainError(f"{file} cannot be read: {' '.join(str(error).split())}") from error


def at_least(sizes: Mapping[str, Any]) -> int:
    """Return a lower bound of a decoder's weights: embeddings and two matrices per feed-forward layer; 0 if unknown."""
    text = sizes.get("text_config")
    sizes = text if isinstance(text, Mapping) else sizes
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    vocabulary, hidden, intermediate, layers = (sizes.get(name) for name in names)
    if not all(isinstance(size, int) for size in (vocabulary, hidden, intermediate, layers)):
        return 0
    return hidden * (vocabulary + 2 * intermediate * layers)  # type: ignore[operator]


def of_llama(sizes: Mapping[str, int]) -> int:
    """Return the number of weights of a Llama with tied embeddings, without norms."""
    whole = LLAMA | dict(sizes)
    hidden, heads, layers = whole["hidden_size"], whole["num_attention_heads"], whole["num_hidden_layers"]
    size = whole.get("head_dim") or hidden // heads
    keys = (whole.get("num_key_value_heads") or heads) * size
    block = 2 * hidden * (heads * size + keys) + 3 * hidden * whole["intermediate_size"]
    return whole["vocab_size"] * hidden + layers * block


def check_tokens(sizes: Mapping[str, Any], tokens: Mapping[str, int], path: str) -> None:
    """Raise a TltrainError if a model's embeddings have no row for a token of its tokenizer.

    Args:
        sizes: the model's `config.json`.
        tokens: token -> its id.
        path: the model's folder or hub id, for messages.
    """
    text = sizes.get("text_config")
    rows = (text if isinstance(text, Mapping) else sizes).get("vocab_size")
    if not isinstance(rows, int) or not tokens:
        return
    last = max(tokens, key=lambda token: tokens[token])
    if tokens[last] >= rows:
        raise TltrainError(
            f"{path}: its tokenizer has {len(tokens)} tokens and its embeddings {rows} rows, none for {last!r} (id "
            f"{tokens[last]}): take the tokenizer that the model was trained with, or resize the embeddings "
            "(resize_token_embeddings) and save the model again"
        )
