"""Where a model computes and in which precision, as the groups `hardware` and `model` say."""

from __future__ import annotations

import torch
from omegaconf import DictConfig

from tltrain.errors import TltrainError
from tltrain.runtime import distributed


def device_and_dtype(hardware: DictConfig) -> tuple[torch.device, bool]:
    """The device that `hardware` asks for, and whether to compute in bfloat16 on it."""
    wanted = hardware.device.name
    if wanted == "cuda" and not torch.cuda.is_available():
        raise TltrainError("hardware=gpu: torch sees no CUDA device here; hardware=cpu or hardware=auto")
    device = torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")
    team = distributed.team()
    if team is not None and device.type == "cuda":
        device = torch.device("cuda", team.place.local_rank)
        torch.cuda.set_device(device)
    if hardware.threads is not None:
        torch.set_num_threads(hardware.threads)
    elif team is not None:
        torch.set_num_threads(distributed.threads(team.place.local_size))
    if hardware.bf16 is not None:
        return device, hardware.bf16
    return device, torch.cuda.is_bf16_supported() if device.type == "cuda" else cpu_computes_bf16()


def cpu_computes_bf16() -> bool:
    """Whether this CPU has instructions for bfloat16; elsewhere emulation is slower than float32."""
    return bool(torch.cpu.get_capabilities().get("avx512_bf16") or torch.cpu.get_capabilities().get("bf16"))


def weights_dtype(model: DictConfig) -> torch.dtype:
    """The dtype of the weights that `model.dtype` names.

    Raises:
        TltrainError: it is not a floating point type of torch's.
    """
    dtype = getattr(torch, model.dtype, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TltrainError(f"model.dtype: expected float32, bfloat16 or float16, found {model.dtype}")
    return dtype
