"""The keys of stage=export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from tltrain.config.choices import ExportDtype, Gguf, MaeRule
from tltrain.config.keys import key
from tltrain.config.meanings import NAME, RULE

# `Optional[...]` because OmegaConf reads the annotations at run time.
# ruff: noqa: UP045

GGUF = ("f32", "f16", "bf16", "q8_0")


@dataclass
class ExportStage:
    name: str = key("export", NAME)
    dtype: Optional[ExportDtype] = key(
        None, "dtype of the exported weights; null: as the folder has them; an adapter's: as model.dtype says"
    )
    hub: Optional[str] = key(None, "OWNER/NAME of the hub's repository to push to; null: nothing leaves this machine")
    private: bool = key(True, "push to a private repository; a public one is refused; false: make it public")
    gguf: Optional[Gguf] = key(
        None,
        "precision of a GGUF file for llama.cpp and Ollama, beside the safetensors; q8_0: 8 bits in blocks; null: none",
    )
    converter: Optional[str] = key(
        None,
        "llama.cpp's convert_hf_to_gguf.py: the file, a folder that has it, or a command; null: where the stage's own "
        "message says to install it",
        only={"gguf": GGUF},
    )
    verify: int = key(
        20,
        "held-out prompts whose token ids and greedy answers are compared with llama.cpp's, if the package xllamacpp "
        "is installed; 0: none",
        least=0,
        most=10_000,
        only={"gguf": GGUF},
    )
    mae: bool = key(True, "do not ask for calls that the tool answered with an error (MAE)", only={"gguf": GGUF})
    rule: MaeRule = key(MaeRule.paper, RULE, only={"gguf": GGUF})
