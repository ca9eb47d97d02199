"""Small random models of several families, and their greedy answers computed one prompt at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from hypothesis import strategies as st
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from tltrain.inference.continuous_batching import Decoding

PAD, END, STOP = 0, 1, 2
"""Token ids: padding, the end token, and one that `Decoding.ended` accepts as an end."""
VOCABULARY = 20
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,  # so that the most likely tokens differ
}
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=2)),
    "llama, eager": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=1, attn_implementation="eager")),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, num_key_value_heads=2)),
    "gpt-neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=16, num_key_value_heads=2)),
}
KEEPS_ALL = [name for name in MODELS if name != "mistral"]


@cache
def model_of(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    # In float32 two tokens are equally likely now and then. Eager attention computes in float32 in any case.
    return model if "eager" in name else model.double()


def greedy(most: int) -> Decoding:
    return Decoding(most, END, PAD, ended=lambda tokens: STOP in tokens)


def whole(answer: Sequence[int]) -> list[int]:
    """Return an answer without the tokens decoded after its end."""
    return list(answer[: next((at + 1 for at, token in enumerate(answer) if token in (END, STOP)), None)])


def alone(model: PreTrainedModel, prompt: Sequence[int], most: int) -> list[int]:
    """Return the most likely next tokens, each computed from the whole sequence: no cache, padding or `generate`."""
    ids = list(prompt)
    with torch.no_grad():
        while len(ids) < len(prompt) + most and not {END, STOP} & set(ids[len(prompt) :]):
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[len(prompt) :]


tokens = st.integers(STOP + 1, VOCABULARY - 1)
