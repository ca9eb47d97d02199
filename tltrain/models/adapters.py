"""LoRA (Hu et al. 2021): train small matrices beside chosen weights, by peft; with QLoRA's 4-bit base on request.

On where `model.lora.r` is a number. The model's own weights stay as they are, so that they can be the reference of
stage=irm too: the adapter is switched off for it.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from transformers.integrations import is_deepspeed_zero3_enabled

from tltrain.errors import TltrainError
from tltrain.runtime import out_of_space, terminal

ADAPTER = "adapter_config.json"
"""A folder with this file holds an adapter alone, and names the model that it belongs to."""
WEIGHTS = "adapter_model.safetensors"
HEADS = ("score", "classifier")
"""Names that transformers gives the head of a critic: it is new, so it is trained whole."""


def adapted(base: Any, model: DictConfig, task: str) -> Any:
    """`base` with a new adapter, which alone is trained; `base` itself where `model.lora` asks for none.

    Raises:
        TltrainError: the model has no modules of these names.
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
        # ZeRO-3 wants one dtype of all that is trained, and keeps float32 copies itself.
        return peft.get_peft_model(base, config, autocast_adapter_dtype=not is_deepspeed_zero3_enabled())
    except ValueError as error:
        raise TltrainError(f"model.lora: {' '.join(str(error).split())}") from error


def with_adapter(base: Any, folder: Path) -> Any:
    """`base` with the adapter in `folder` added to its weights."""
    need("peft")
    import peft

    if not (folder / WEIGHTS).is_file():  # peft would take the same in pickle
        raise TltrainError(f"{folder} cannot be read as an adapter: it has no {WEIGHTS}")
    with terminal.status("adding the adapter to the weights"):
        try:
            return peft.PeftModel.from_pretrained(base, folder).merge_and_unload()
        except Exception as error:  # safetensors has an error of its own
            if out_of_space.of_memory(error):
                raise
            raise TltrainError(
                f"{folder} cannot be read as an adapter: {' '.join(str(error).split())[:400]}"
            ) from error


def base_of(folder: Path) -> str | None:
    """Where the model is that the adapter in `folder` belongs to; None where it holds no adapter.

    Raises:
        TltrainError: the package peft is not installed, or the folder is not as peft leaves one.
    """
    if not (folder / ADAPTER).is_file():
        return None
    need("peft")
    import peft

    try:
        return peft.PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise TltrainError(f"{folder / ADAPTER} cannot be read: {' '.join(str(error).split())[:400]}") from error


def quantization(model: DictConfig) -> dict[str, Any]:
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
    if importlib.util.find_spec(package) is None:
        raise TltrainError(f"{key} needs the package {package}: pip install {package}")
