"""The available native formats: the names of each family's template and parser in TRL, and its special tokens.

Training renders a model's own chat template. The template here is for models without one, such as those with random
weights. The response template tells `transformers`' chat response parser how to read answers back; it is the family's
unless the model's folder contains one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

AUTO, TL_NAME, NATIVE = "auto", "tl", "native"
TL_FULL_NAME = "tl_full"
TL_NAMES = (TL_NAME, TL_FULL_NAME)
"""The TL format with the paper's stubs, and with stubs that show the whole schema."""


@dataclass(frozen=True)
class Family:
    """A native format.

    Attributes:
        template: TRL's chat template, the name of a file of its package without `.jinja`.
        response: TRL's response template, an attribute of `trl.chat_template_utils`.
        turn_marks: tokens that a tokenizer needs to write the turns of this format.
        tokens: all special tokens of the format, for a tokenizer that is made for it.
        ends: the tokens that end an answer of such a tokenizer, its end token first.
        fixed_head: whether the same text precedes the name of each call, so that decoding can restrict names to the
            tools on offer.
    """

    template: str
    response: str
    turn_marks: tuple[str, ...]
    tokens: tuple[str, ...]
    ends: tuple[str, ...]
    fixed_head: bool = True


_CHATML = ("<|im_start|>", "<|im_end|>")
_TOOL_CALL = ("<tool_call>", "</tool_call>")
_QWEN = (*_CHATML, "<|endoftext|>", *_TOOL_CALL, "<tool_response>", "</tool_response>", "<think>", "</think>")
_HEADERS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_HARMONY = ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|call|>", "<|return|>")
_GEMMA = ("<|turn>", "<turn|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>')
_LFM = (*_CHATML, "<|tool_call_start|>", "<|tool_call_end|>")

FAMILIES: Mapping[str, Family] = {
    "qwen3": Family("qwen3", "qwen3_template", _CHATML, _QWEN, ("<|im_end|>",)),
    "qwen3_5": Family("qwen3_5_think", "qwen3_5_template", _CHATML, _QWEN, ("<|im_end|>",)),
    "hermes": Family("qwen2_5", "qwen3_template", _CHATML, (*_CHATML, "<|endoftext|>", *_TOOL_CALL), ("<|im_end|>",)),
    "llama3": Family(
        "llama3_1",
        "llama3_template",
        _HEADERS,
        ("<|begin_of_text|>", "<|end_of_text|>", *_HEADERS, "<|eom_id|>", "<|python_tag|>"),
        ("<|eot_id|>",),
    ),
    "gptoss": Family(
        "gptoss", "gptoss_template", _HARMONY, (*_HARMONY, "<|constrain|>", "<|endoftext|>"), ("<|return|>", "<|call|>")
    ),
    "gemma": Family(
        "gemma4_v5",
        "gemma4_template",
        ("<|turn>", "<turn|>"),
        ("<bos>", "<eos>", *_GEMMA, "<|tool>", "<tool|>", "<|channel>", "<channel|>", "<|think|>"),
        ("<turn|>", "<|tool_response>"),
    ),
    "lfm2": Family(
        "lfm2_2_5_v2", "lfm2_2_5_template", _CHATML, (*_LFM, "<think>", "</think>"), ("<|im_end|>",), fixed_head=False
    ),
}
"""The named formats: `format=NAME`, each with `conf/format/NAME.yaml`."""


def mistral_response(eos: str) -> dict[str, Any]:
    """Return the response template of Mistral's format with a JSON list of calls (v0.3, Nemo, Small 2409), not in TRL.

    Args:
        eos: the end token.
    """
    end = re.escape(eos) + r"\s*"
    called = {"type": "function", "function": {"name": "{name}", "arguments": "{arguments}"}}
    return {
        "defaults": {"role": "assistant"},
        "start_anchor_pattern": r"\[/(?:INST|TOOL_RESULTS)\]",
        "fields": {
            "tool_calls": {
                "open": "[TOOL_CALLS]",
                "close_pattern": end,
                "content": "json",
                "transform": called,
                "transform_each": True,
            },
            "content": {"close_pattern": end, "content": "text"},
        },
    }


def writes_mistral_lists(template: str) -> bool:
    """Return whether a chat template writes calls as Mistral's JSON list; later ones write a name and `[ARGS]`."""
    return "[TOOL_CALLS]" in template and "[ARGS]" not in template


NAMES = (AUTO, *TL_NAMES, NATIVE, *FAMILIES)
