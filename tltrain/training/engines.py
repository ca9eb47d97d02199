"""DeepSpeed and FSDP: their arguments, gathering of partitioned weights, and gradient clipping per model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn
from transformers import AutoConfig, PreTrainedModel
from trl.models import unwrap_model_for_generation

from tltrain.config import plain
from tltrain.errors import TltrainError
from tltrain.runtime import distributed


def arguments(hardware: DictConfig) -> dict[str, Any]:
    """Return the transformers.TrainingArguments that select the engine.

    Raises:
        TltrainError: two engines are configured, or one that this machine cannot run.
    """
    if hardware.deepspeed and hardware.fsdp:
        raise TltrainError("hardware.deepspeed and hardware.fsdp are both set: one engine at a time")
    if hardware.deepspeed:
        return {"deepspeed": plain(hardware.deepspeed)}
    if hardware.fsdp and distributed.size() > 1:
        if not torch.cuda.is_available() or hardware.device.name == "cpu":
            raise TltrainError(
                "hardware.fsdp needs GPUs: accelerate supports it only there; hardware=zero3 runs on CPUs"
            )
        return {"fsdp": True, "fsdp_config": plain(hardware.fsdp)}
    return {}


def connect(device: str) -> None:
    """Initialize DeepSpeed's communication, which must precede loading a partitioned model."""
    import deepspeed

    deepspeed.init_distributed(
        dist_backend="gloo" if device == "cpu" else None, auto_mpi_discovery=False, verbose=False
    )


# --- partitioned weights ----------------------------------------------------------------------------------------------


def _divided(model: nn.Module) -> bool:
    """Return whether ZeRO-3 has partitioned the weights."""
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Gather the weights of a model loaded under ZeRO-3, not yet in an engine, on every process within the block."""
    gathered: Any = nullcontext()
    if _divided(model):
        import deepspeed

        gathered = deepspeed.zero.GatheredParameters(list(model.parameters()))
    with gathered:
        yield


@contextmanager
def gathered_for_generation(trainer: Any) -> Iterator[nn.Module]:
    """Yield the trained model outside its engine, gathered on every process, so that each can call it independently."""
    with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model:
        hooks = model._forward_pre_hooks
        # TRL removes DeepSpeed's hooks except the outermost module's, at which the processes would wait for each other.
        kept = hooks.copy() if _divided(model) else {}
        for key in kept:
            del hooks[key]
        try:
            yield model
        finally:
            hooks.update(kept)


def save(model: PreTrainedModel, trainer: Any, folder: Path, dtype: torch.dtype) -> None:
    """Save `model`, trained by `trainer` as a whole or as a part of its model, as plain safetensors.

    All processes must call this; rank 0 writes. Under DeepSpeed the saved weights are the optimizer's float32 copies,
    the same that a single process would save.

    Args:
        dtype: dtype in which the model was loaded; its configuration may name the engine's compute dtype instead.
    """
    if not (trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled):
        if distributed.leads():
            model.save_pretrained(folder)
        return
    if trainer.is_deepspeed_enabled:
        state = _deepspeed_state(model, dtype)
    else:
        state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if distributed.leads():
        model.save_pretrained(folder, state_dict=state)
        if hasattr(model, "peft_config"):
            return
        config = AutoConfig.from_pretrained(folder)
        config.dtype = dtype
        config.save_pretrained(folder)


@torch.no_grad()
def _deepspeed_state(model: nn.Module, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return all weights, gathered, on the CPU; empty on all processes except rank 0."""
    from deepspeed.utils import safe_get_full_fp32_param

    found = {}
    adapter = hasattr(model, "peft_config")  # only the adapter's own weights are saved
    for name, parameter in model.named_parameters():
        if adapter and not parameter.requires_grad:
            continue
        weight = safe_get_full_fp32_param(parameter) if parameter.requires_grad else None
        if weight is None:  # frozen: not in the optimizer
            with gathered_parameter(parameter):
                weight = parameter.detach().clone()
        if distributed.leads():
            found[name] = weight.to("cpu", dtype, copy=True)
    return found


@contextmanager
def gathered_parameter(parameter: nn.Parameter) -> Iterator[None]:
    """Gather one parameter within the block; afterwards all processes have rank 0's changes."""
    if not hasattr(parameter, "ds_id"):
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
        yield


# --- clipping ---------------------------------------------------------------------------------------------------------


def clip_separately(optimizer: Any, models: Sequence[nn.Module]) -> bool:
    """Make a ZeRO optimizer clip each model's gradients by that model's own norm, as a single process does.

    DeepSpeed itself clips by one norm over all parameters. That clipping is switched off, and the reported norm is the
    first model's norm before clipping.

    Returns:
        False if the gradients are not accessible here (offloaded, scaled, or in groups that mix models); the optimizer
        then still clips by one norm.
    """
    groups = getattr(optimizer, "fp16_groups", None) or getattr(optimizer, "bit16_groups", None)
    offloaded = getattr(optimizer, "offload_optimizer", False) or getattr(optimizer, "cpu_offload", False)
    if not groups or offloaded or not hasattr(optimizer, "averaged_gradients") or optimizer.loss_scale != 1.0:
        return False
    if not optimizer.clip_grad:
        return True
    owned = [{id(parameter) for parameter in model.parameters()} for model in models]
    of_model = [[i for i, group in enumerate(groups) if all(id(p) in own for p in group)] for own in owned]
    if sorted(i for own in of_model for i in own) != list(range(len(groups))):
        return False
    step, largest, optimizer.clip_grad = optimizer.step, optimizer.clip_grad, 0.0
    mine = getattr(optimizer, "params_in_partition", groups)

    def clipped_step(*args: Any, **kwargs: Any) -> Any:
        norms = []
        for indices in of_model:
            parts = [float(optimizer.get_grad_norm_direct(optimizer.averaged_gradients[i], mine[i])) for i in indices]
            norms.append(math.hypot(*parts))
            scale = largest / (norms[-1] + 1e-6)
            if scale < 1:
                for i in indices:
                    for gradient in optimizer.averaged_gradients[i] or ():
                        if gradient is not None:
                            gradient.mul_(scale)
        done = step(*args, **kwargs)
        optimizer._global_grad_norm = norms[0]
        return done

    optimizer.step = clipped_step
    return True


def reset_deepspeed_config() -> None:
    """Make transformers forget the last DeepSpeed configuration, so that later models are loaded unpartitioned."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()
