"""Tokenizers that begin a text like LLaMA's, Gemma's and Qwen's, made from the small ones of the fixtures."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast


def with_bos(tokenizer: PreTrainedTokenizerBase, *, space_before: bool) -> PreTrainedTokenizerFast:
    """Return the SentencePiece-like tokenizer with `<s>` before every text.

    Args:
        space_before: also put a space before the text, as LLaMA 2's does and Gemma's does not.
    """
    model = json.loads(tokenizer.backend_tokenizer.to_str())
    if not space_before:
        model["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        model["decoder"]["decoders"] = model["decoder"]["decoders"][:-1]  # no space to strip again
    own = Tokenizer.from_str(json.dumps(model))
    own.post_processor = TemplateProcessing("<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)])
    names: dict[str, Any] = {name: getattr(tokenizer, name) for name in ("bos_token", "eos_token", "unk_token")}
    return PreTrainedTokenizerFast(tokenizer_object=own, **names)


def joining_quotes(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerFast:
    """Return the byte-level tokenizer with one token for three quotes and the line feed after them, like Qwen3's."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())
    quotes, feed = '"', "Ċ"
    pairs = [(quotes, quotes), (quotes * 2, quotes), (quotes * 3, feed)]
    for left, right in pairs:
        model["model"]["vocab"].setdefault(left + right, len(model["model"]["vocab"]))
    model["model"]["merges"] = [list(pair) for pair in pairs] + [
        merge for merge in model["model"]["merges"] if tuple(merge) not in pairs
    ]
    own = Tokenizer.from_str(json.dumps(model))
    own.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split('"""\n', "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=own, eos_token=tokenizer.eos_token, pad_token=tokenizer.pad_token)
