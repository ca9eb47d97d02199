"""Derive from a model's configuration the sizes that decide its memory and time. Reads no weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tltrain.errors import TltrainError
from tltrain.models import packages


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder, in numbers of weights or in elements per token.

    Attributes:
        parameters: all weights, tied ones counted once.
        matrices: weights of the linear layers inside the blocks.
        block: all weights of the largest block.
        active: those of `matrices` that one token uses (few of them in a mixture of experts).
        hidden, intermediate: width of the residual stream, and of the feed-forward layer (all experts of a token).
        queries, keys: elements of all query heads, and of all key heads (the values have as many).
        gated: the feed-forward layer multiplies two projections. normed: queries and keys are normalized.
        context: maximum number of tokens that the model supports.
        norms: norms over the residual stream in a block. wide_norms: their weights multiply float32 (Gemma, GPT-OSS).
        experts: experts of a token; 0 if there are none. sinks: attention has sinks, a softmax in the compute dtype.
    """

    parameters: int
    matrices: int
    block: int
    active: int
    layers: int
    hidden: int
    intermediate: int
    heads: int
    queries: int
    keys: int
    vocab: int
    tied: bool
    gated: bool = True
    normed: bool = False
    context: int | None = None
    norms: int = 2
    wide_norms: bool = False
    experts: int = 0
    sinks: bool = False

    @property
    def embedding(self) -> int:
        """Weights of the token embedding; the head has as many."""
        return self.vocab * self.hidden

    @property
    def body(self) -> int:
        """Weights without the head, as a critic has them."""
        return self.parameters - (0 if self.tied else self.embedding)


def read_config(model: Any, cache_dir: str) -> Any:
    """Return the transformers configuration of the group `model`: from its folder, from its `sizes`, or from the hub.

    Raises:
        TltrainError: there is none, or it cannot be read.
    """
    from transformers import AutoConfig

    try:
        if model.path is None and (sizes := model.random or model.sizes):
            own = {"tie_word_embeddings": True} if model.random else {}
            return AutoConfig.for_model(**{"model_type": "llama", **own, **sizes})
        where = model.path or model.hub
        if model.path is None and (file := packages.weights(model.package)) is not None:
            converted = packages.converted(file, model.name, cache_dir)
            if not (converted / "config.json").is_file():
                return AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
            where = str(converted)
    except (TypeError, ValueError) as error:
        raise TltrainError(f"model={model.name}, its sizes: {' '.join(str(error).split())}") from error
    if where is None:
        raise TltrainError(f"model={model.name} needs model.path=FOLDER or a hub id")
    from tltrain.models import loading

    return loading.load_config(where, model)


def shape_of(config: Any) -> Shape:
    """Return the sizes of the causal language model that a transformers configuration describes.

    The modules are built on the meta device, so that every architecture of the library is counted exactly.

    Raises:
        TltrainError: it does not describe a causal language model, or its sizes have other names.
    """
    import torch
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    text = config.get_text_config()
    try:
        kind = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    except KeyError as error:
        raise TltrainError(f"model: {config.model_type} is not a causal language model of transformers") from error
    try:
        with torch.device("meta"):
            model = kind(config)
        heads, hidden = text.num_attention_heads, text.hidden_size
        size = getattr(text, "head_dim", None) or hidden // heads
        keys = (getattr(text, "num_key_value_heads", None) or heads) * size
        layers, vocab = text.num_hidden_layers, text.vocab_size
        intermediate = _intermediate(text)
    except (AttributeError, ValueError, ZeroDivisionError) as error:
        raise TltrainError(f"model: the sizes of {config.model_type} cannot be read: {error}") from error
    blocks = max((module for module in model.modules() if isinstance(module, torch.nn.ModuleList)), key=_count)
    names = {name.rpartition(".")[2] for name, _ in blocks.named_modules()}
    matrices = sum(p.numel() for p in blocks.parameters() if p.dim() > 1)
    experts = sum(p.numel() for name, p in blocks.named_parameters() if "experts." in name and p.dim() > 1)
    of_block = [module for module in blocks[0].children() if "Norm" in type(module).__name__]
    share = (getattr(text, "num_experts_per_tok", None) or 1) / (_experts(text) or 1)
    return Shape(
        parameters=_count(model),
        matrices=matrices,
        block=max(map(_count, blocks)),
        active=matrices - round(experts * (1 - share)),
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        heads=heads,
        queries=heads * size,
        keys=keys,
        vocab=vocab,
        tied=bool(text.tie_word_embeddings),
        gated=any("gate" in name for name in names),
        normed="q_norm" in names,
        context=getattr(text, "max_position_embeddings", None),
        norms=len(of_block) or 2,
        wide_norms=any(name in type(norm).__name__ for norm in of_block for name in WIDE_NORMS),
        experts=(getattr(text, "num_experts_per_tok", None) or 1) if _experts(text) else 0,
        sinks=any(name.endswith(".sinks") for name, _ in blocks.named_parameters()),
    )


WIDE_NORMS = ("Gemma3", "GptOss")
"""Beginnings of the names of transformers' norms that multiply by their weights before they leave float32."""


def _count(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _experts(text: Any) -> int | None:
    return getattr(text, "num_local_experts", None) or getattr(text, "num_experts", None)


def _intermediate(text: Any) -> int:
    """Return the elements per token inside the feed-forward layer."""
    if _experts(text):
        one = getattr(text, "moe_intermediate_size", None) or text.intermediate_size
        return one * (getattr(text, "num_experts_per_tok", None) or 1)
    own = getattr(text, "intermediate_size", None) or getattr(text, "n_inner", None)
    return own or 4 * text.hidden_size
