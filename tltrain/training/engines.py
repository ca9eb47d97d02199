"""What DeepSpeed and FSDP need said differently: arguments, whole weights, clipping by model."""

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
    """The arguments of transformers.TrainingArguments that choose the engine.

    Raises:
        TltrainError: two engines are asked for, or one that this machine cannot run.
    """
    if hardware.deepspeed and hardware.fsdp:
        raise TltrainError("hardware.deepspeed and hardware.fsdp are both set: one engine at a time")
    if hardware.deepspeed:
        return {"deepspeed": plain(hardware.deepspeed)}
    if hardware.fsdp and distributed.size() > 1:
        if not torch.cuda.is_available() or hardware.device.name == "cpu":
            raise TltrainError(
                "hardware.fsdp needs GPUs: accelerate has it for them alone; hardware=zero3 runs on CPUs"
            )
        return {"fsdp": True, "fsdp_config": plain(hardware.fsdp)}
    return {}


def connect(device: str) -> None:
    """Make DeepSpeed know the other processes, before a model is loaded in parts."""
    import deepspeed

    deepspeed.init_distributed(
        dist_backend="gloo" if device == "cpu" else None, auto_mpi_discovery=False, verbose=False
    )


# --- whole weights ----------------------------------------------------------------------------------------------------


def _divided(model: nn.Module) -> bool:
    """Whether ZeRO-3 keeps the weights in parts."""
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Within it a model that was loaded under ZeRO-3, and is not in an engine yet, has its weights on every process."""
    gathered: Any = nullcontext()
    if _divided(model):
        import deepspeed

        gathered = deepspeed.zero.GatheredParameters(list(model.parameters()))
    with gathered:
        yield


@contextmanager
def whole_for_generation(trainer: Any) -> Iterator[nn.Module]:
    """What `trainer` trains, outside its engine and whole on every process, so that each may call it as it likes."""
    with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model:
        hooks = model._forward_pre_hooks
        # TRL takes off DeepSpeed's hooks but the outermost module's, at which all processes would wait for one another.
        kept = hooks.copy() if _divided(model) else {}
        for key in kept:
            del hooks[key]
        try:
            yield model
        finally:
            hooks.update(kept)


def save(model: PreTrainedModel, trainer: Any, folder: Path, dtype: torch.dtype) -> None:
    """Leave `model`, which `trainer` trained or which is a part of what it trained, as plain safetensors.

    All processes call this; the first writes. Under DeepSpeed the weights are those that the optimizer keeps: what one
    process would save.

    Args:
        dtype: that the model was loaded in; its configuration may name the one that the engine computes in.
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
    """All weights, whole and on the CPU; empty on all processes but the first."""
    from deepspeed.utils import safe_get_full_fp32_param

    found = {}
    adapter = hasattr(model, "peft_config")  # of it, what it adds to a model is saved
    for name, parameter in model.named_parameters():
        if adapter and not parameter.requires_grad:
            continue
        weight = safe_get_full_fp32_param(parameter) if parameter.requires_grad else None
        if weight is None:  # frozen: the optimizer does not have it
            with whole_parameter(parameter):
                weight = parameter.detach().clone()
        if distributed.leads():
            found[name] = weight.to("cpu", dtype, copy=True)
    return found


@contextmanager
def whole_parameter(parameter: nn.Parameter) -> Iterator[None]:
    """One parameter, whole within the block; what the first process makes of it, all have."""
    if not hasattr(parameter, "ds_id"):
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
        yield


# --- clipping ---------------------------------------------------------------------------------------------------------


def clip_separately(optimizer: Any, models: Sequence[nn.Module]) -> bool:
    """Have a ZeRO optimizer clip the gradients of each model by that model's own norm, as one process does.

    DeepSpeed itself knows one norm over all. Its own clipping is then switched off; the norm that it reports is the
    first model's before clipping.

    Returns:
        False where the optimizer keeps its gradients elsewhere (offloaded, scaled): it goes on clipping all together.
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


def forget() -> None:
    """Models loaded from here on are whole again: transformers remembers the last DeepSpeed configuration."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()
