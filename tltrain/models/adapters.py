"""LoRA (Hu et al. 2021) with peft: train small matrices beside selected weights, optionally on QLoRA's 4-bit base.

LoRA is enabled when `model.lora.r` is a number. The base weights do not change, so they also serve as the reference
of stage=irm, with the adapter switched off.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from transformers.integrations import is_deepspeed_zero3_enabled

from tltrain.errors import TltrainError, shorten
from tltrain.runtime import out_of_space, terminal

ADAPTER = "adapter_config.json"
"""A folder with this file holds only an adapter; the file names the base model."""
WEIGHTS = "adapter_model.safetensors"
HEADS = ("score", "classifier")
"""Names of a critic's head in transformers; a head is new, so all of its weights are trained."""


def add_adapter(base: Any, model: DictConfig, task: str) -> Any:
    """Add a new adapter to `base` and freeze the rest; return `base` unchanged if `model.lora` is off.

    Raises:
        TltrainError: peft rejects the settings, such as target modules that the model does not have.
    """
    if model.lora.r is None:
        return base
    import peft

    targets = model.lora.target_modules
    config = peft.LoraConfig(
        task_type=task,
        r=model.lora.r,
        lora_alpha=model.lora.alpha,
        lora_dropout=model.lora.dropout,
        target_modules=targets if isinstance(targets, str) else OmegaConf.to_container(targets),
        modules_to_save=[name for name, _ in base.named_children() if name in HEADS] or None,
    )
    if getattr(base, "is_quantized", False):
        base = peft.prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
    try:
        # ZeRO-3 needs one dtype for all trained parameters, and keeps float32 copies itself.
        return peft.get_peft_model(base, config, autocast_adapter_dtype=not is_deepspeed_zero3_enabled())
    except ValueError as error:
        raise TltrainError(f"model.lora: {' '.join(str(error).split())}") from error


def merge_adapter(base: Any, folder: Path) -> Any:
    """Merge the adapter in `folder` into the weights of `base`.

    Raises:
        TltrainError: the package peft is not installed, or the adapter cannot be read.
    """
    need("peft")
    import peft

    if not (folder / WEIGHTS).is_file():  # peft would fall back to a pickle file
        raise TltrainError(f"{folder} cannot be read as an adapter: it has no {WEIGHTS}")
    with terminal.status("adding the adapter to the weights"):
        try:
            return peft.PeftModel.from_pretrained(base, folder).merge_and_unload()
        except Exception as error:  # safetensors raises its own error type
            if out_of_space.of_memory(error):
                raise
            raise TltrainError(f"{folder} cannot be read as an adapter: {shorten(str(error), 400)}") from error


def base_model(folder: Path) -> str | None:
    """Return the path or hub id of the base model of the adapter in `folder`; None if there is no adapter.

    Raises:
        TltrainError: the package peft is not installed, or the adapter's configuration cannot be read.
    """
    if not (folder / ADAPTER).is_file():
        return None
    need("peft")
    import peft

    try:
        return peft.PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise TltrainError(f"{folder / ADAPTER} cannot be read: {shorten(str(error), 400)}") from error


def quantization(model: DictConfig) -> dict[str, Any]:
    """Return the arguments of `from_pretrained` that quantize the base as `model.lora.quantize` says; empty if unset.

    Raises:
        TltrainError: the package bitsandbytes is not installed.
    """
    if model.lora.quantize is None:
        return {}
    need("bitsandbytes", "model.lora.quantize")
    from transformers import BitsAndBytesConfig

    if model.lora.quantize == "8bit":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    }


def need(package: str, key: str = "model.lora") -> None:
    """Raise a TltrainError if the package that the configuration key `key` needs is not installed."""
    if importlib.util.find_spec(package) is None:
        raise TltrainError(f"{key} needs the package {package}: pip install {package}")
