"""The device and the precision of a model, from the groups `hardware` and `model`."""

from __future__ import annotations

import torch
from omegaconf import DictConfig

from tltrain.errors import TltrainError
from tltrain.runtime import distributed, memory


def device_and_dtype(hardware: DictConfig) -> tuple[torch.device, bool]:
    """Return the device that `hardware` selects and whether to compute in bfloat16 on it.

    May also set torch's number of threads and, with several processes, the current CUDA device; on a CPU, freed memory
    is kept for reuse.

    Raises:
        TltrainError: `hardware` asks for a GPU and torch sees none.
    """
    wanted = hardware.device.name
    if wanted == "cuda" and not torch.cuda.is_available():
        raise TltrainError("hardware=gpu: torch sees no CUDA device here; hardware=cpu or hardware=auto")
    device = torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        memory.reuse_freed()
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
    """Return whether this CPU has bfloat16 instructions; without them, emulation is slower than float32."""
    return bool(torch.cpu.get_capabilities().get("avx512_bf16") or torch.cpu.get_capabilities().get("bf16"))


def weights_dtype(model: DictConfig) -> torch.dtype:
    """Return the dtype of the weights that `model.dtype` names.

    Raises:
        TltrainError: the name is not a floating-point dtype of torch.
    """
    dtype = getattr(torch, model.dtype, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TltrainError(f"model.dtype: expected float32, bfloat16 or float16, found {model.dtype}")
    return dtype
