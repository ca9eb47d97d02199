"""How to serve a trained model: each server's parser names for a format, and its command.

The names come from the packages of vLLM 0.33.0 and SGLang 0.5.23. `transformers serve` needs none, since it reads the
`response_template` in the model's folder.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tltrain.formats.families import TL_NAMES

CHECKED = {"vllm": "0.33.0", "sglang": "0.5.23"}
"""The versions from which the parser names were taken."""


@dataclass(frozen=True)
class Names:
    """A server's names of its parsers for calls and for thoughts; empty if it has none for the format."""

    calls: str
    thoughts: str = ""


_BY_FOLDER = {"vllm": Names("hf", "hf"), "sglang": Names("response_template", "response_template")}
"""Parsers that read the `response_template` in the model's folder, whatever the format."""
_NAMES: Mapping[str, Mapping[str, Names]] = {
    "qwen3": {"vllm": Names("hermes", "qwen3"), "sglang": Names("qwen25", "qwen3")},
    "qwen3_5": {"vllm": Names("qwen3_coder", "qwen3"), "sglang": Names("qwen3_coder", "qwen3")},
    "hermes": {"vllm": Names("hermes"), "sglang": Names("hermes")},
    "llama3": {"vllm": Names("llama3_json"), "sglang": Names("llama3")},
    "gptoss": {"vllm": Names("openai", "openai_gptoss"), "sglang": Names("gpt-oss", "gpt-oss")},
    "gemma": {"vllm": Names("gemma4", "gemma4"), "sglang": Names("gemma4", "gemma4")},
    "lfm2": {"vllm": Names("lfm2"), "sglang": Names("lfm2")},
}


def names_of(format: str) -> Mapping[str, Names]:
    """Map each server to its parsers for a native format; empty for the TL format, which no server parses."""
    return {} if format in TL_NAMES else _NAMES.get(format, _BY_FOLDER)


def parsers(format: str) -> dict[str, str]:
    """Map each server to its parser for the calls of a native format."""
    found = {server: names.calls for server, names in names_of(format).items()}
    return {"transformers": "response_template", **found} if found else {}


def commands(format: str, folder: str, thinking: bool, options: Mapping[str, Any] | None = None) -> list[str]:
    """Return the commands that serve a model's folder.

    Args:
        thinking: whether the model writes thoughts.
        options: variables of its chat template; for SGLang, requests send them as `chat_template_kwargs`.
    """
    folder, given = shlex.quote(folder), shlex.quote(json.dumps(dict(options or {})))
    kwargs = f"chat-template-kwargs {given}" if options else ""
    found = [f"transformers serve {folder} --host 127.0.0.1 --port 8000{kwargs and f' --{kwargs}'}"]
    if format in TL_NAMES:
        return [*found, f"vllm serve {folder}", f"python -m sglang.launch_server --model-path {folder}"]
    names = names_of(format)
    vllm, sglang = names["vllm"], names["sglang"]
    thoughts = {
        server: f" --reasoning-parser {each.thoughts}" if thinking and each.thoughts else ""
        for server, each in names.items()
    }
    return [
        *found,
        f"vllm serve {folder} --enable-auto-tool-choice --tool-call-parser {vllm.calls}{thoughts['vllm']}"
        f"{kwargs and f' --default-{kwargs}'}",
        f"python -m sglang.launch_server --model-path {folder} --tool-call-parser {sglang.calls}{thoughts['sglang']}",
    ]
