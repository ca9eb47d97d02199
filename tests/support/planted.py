"""A model that always makes one fixed call, in a folder like that of a training run."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import AddedToken
from transformers import LlamaConfig, LlamaForCausalLM

from tltrain.formats.families import FAMILIES
from tltrain.formats.native import corpus_text
from tltrain.models import encoders
from tltrain.models.loading import byte_level_tokenizer
from tltrain.serving.prompts import TrainedPrompts
from tltrain.tokens.native import NativeEncoder
from tltrain.trajectory import Trajectory

CALL = {"id": "call00000", "type": "function", "function": {"name": "finish", "arguments": {"answer": "seven"}}}
VOCABULARY = 600


def plant(folder: Path, family: str, items: list[Trajectory]) -> NativeEncoder:
    """Write a model of a family that answers everything with `CALL`; return its training encoder.

    Its tokenizer has a token for the whole text of the answer. The model has two states: that token follows every other
    token, and the end token follows it.
    """
    tokenizer = byte_level_tokenizer(map(corpus_text, items), VOCABULARY, family)
    encoder = encoders.native_encoder(tokenizer, family, {})
    user = {"role": "user", "content": "Go."}
    said = encoder.native.said([user, {"role": "assistant", "content": "", "tool_calls": [CALL]}], []).ids
    answer = tokenizer.decode(said[:-1], skip_special_tokens=False, clean_up_tokenization_spaces=False)
    tokenizer.add_tokens(AddedToken(answer, normalized=False))
    encoder = encoders.native_encoder(tokenizer, family, {})
    whole = tokenizer.convert_tokens_to_ids(answer)
    _two_states(len(tokenizer), whole, said[-1]).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    encoders.record_of(encoder, len(items), 0).write(folder)
    TrainedPrompts.of(encoder, items).write(folder)
    encoders.end_at(folder, encoder.native.stop_ids)
    assert family in FAMILIES
    return encoder


def _two_states(vocabulary: int, whole: int, end: int) -> LlamaForCausalLM:
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
            max_position_embeddings=8192,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=end,
        )
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.zero_()
        model.model.embed_tokens.weight[:, 0] = 1
        model.model.embed_tokens.weight[whole] = torch.eye(8)[1]
        model.lm_head.weight[whole, 0] = 1
        model.lm_head.weight[end, 1] = 1
    return model
