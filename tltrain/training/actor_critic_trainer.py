"""Train a policy and a critic as one module with transformers' Trainer, beside a frozen reference.

One optimizer, one engine and one checkpoint hold both models. The critic has a learning rate of its own, and gradients
are clipped separately. What a step does is left to a subclass, such as `ppo.PPOTrainer`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
)
from trl.trainer.utils import disable_dropout_in_model

from tltrain.training import engines
from tltrain.training.actor_critic import ActorCritic, Models, ValueHead, apply_liger_kernels, freeze_reference
from tltrain.training.blank_batches import FilledBatches
from tltrain.training.checkpoints import ResumableCheckpoints
from tltrain.training.rollout_metrics import RolloutMetrics

log = logging.getLogger(__name__)


class ActorCriticTrainer(ResumableCheckpoints, FilledBatches, Trainer):
    """The Trainer of policy and critic.

    Args:
        rows: number of rows of the dataset, which has their indices.
        critic_learning_rate: learning rate of the critic; the policy's is `args.learning_rate`.

    Attributes:
        reference: the frozen reference; None if nothing depends on it, or if the policy's adapter is switched off.
    """

    metrics: type[RolloutMetrics] = RolloutMetrics

    def __init__(
        self, models: Models, args: Any, rows: int, critic_learning_rate: float, callbacks: Sequence[Any] = ()
    ) -> None:
        actor_critic = ActorCritic(models.policy, models.critic, self._timed)
        for model in actor_critic.models:
            disable_dropout_in_model(model)  # as in the released code; the update's forward pass then matches sampling
        if args.use_liger_kernel:
            apply_liger_kernels(filter(None, (*actor_critic.models, models.reference)), args.liger_kernel_config)
        self._critic_learning_rate = critic_learning_rate
        self._sums = self.metrics()
        super().__init__(
            actor_critic,
            args,
            data_collator=torch.tensor,
            train_dataset=list(range(rows)),
            callbacks=list(callbacks),
        )
        self.remove_callback(PrinterCallback)
        self.reference = None if models.reference is None else self._frozen(models.reference)
        self._clips_apart = False

    def _frozen(self, reference: PreTrainedModel) -> nn.Module:
        if self.is_deepspeed_enabled:
            from trl.models import prepare_deepspeed

            return prepare_deepspeed(freeze_reference(reference, autocast=False), self.accelerator)
        return self.accelerator.prepare_model(
            freeze_reference(reference, autocast=self.args.bf16), evaluation_mode=True
        )

    def _now(self) -> float:
        """Return the time in seconds once the device has done its work."""
        if self.args.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        """Add the time of the block to the sum `seconds_<part>`."""
        start = self._now()
        yield
        self._sums.add(**{f"seconds_{part}": self._now() - start})

    # --- optimizer -------------------------------------------------------------------------------------------------

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the Trainer's optimizer, with a separate learning rate for the critic's parameters."""
        if self.optimizer is None:
            optimizer = super().create_optimizer(model)
            critic = {id(parameter) for parameter in (model or self.model).critic.parameters()}
            for group in list(optimizer.param_groups):
                own = [parameter for parameter in group["params"] if id(parameter) in critic]
                group["params"] = [parameter for parameter in group["params"] if id(parameter) not in critic]
                optimizer.add_param_group({**group, "params": own, "lr": self._critic_learning_rate})
            optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
            started: list[float] = []
            optimizer.register_step_pre_hook(lambda *_: started.append(self._now()))
            optimizer.register_step_post_hook(lambda *_: self._sums.add(seconds_optimizer=self._now() - started.pop()))
        return self.optimizer

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Clip the gradients of policy and critic separately; return the policy's norm, which is logged."""
        if self.is_deepspeed_enabled:  # it has clipped already, see `_clip_apart_in_engine`
            return super()._clip_grad_norm(model)
        whole = self.accelerator.unwrap_model(model)
        with self._timed("optimizer"):
            norms = [
                self.accelerator.clip_grad_norm_(part.parameters(), self.args.max_grad_norm)
                for part in (whole.policy, whole.critic)
            ]
        if not all(torch.isfinite(norm) for norm in norms):
            raise self._not_finite("the gradient is not finite", self.state.global_step + 1)
        return norms[0]

    def _clip_apart_in_engine(self) -> None:
        if self.is_deepspeed_enabled and not self._clips_apart:
            engine = self.model_wrapped
            self._clips_apart = True
            if not engines.clip_separately(engine.optimizer, (engine.module.policy, engine.module.critic)):
                log.warning("this engine clips the gradients of policy and critic together, by one norm over both")

    # --- checkpoints -----------------------------------------------------------------------------------------------

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Save policy and critic as plain model folders, `policy/` and `critic/`."""
        folder = Path(output_dir or self.args.output_dir)
        for name in ("policy", "critic"):
            own = state_dict and {k.removeprefix(f"{name}."): v for k, v in state_dict.items() if k.startswith(name)}
            getattr(self.model, name).save_pretrained(
                folder / name, state_dict=own or None, is_main_process=self.args.should_save
            )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        target = model or self.model
        folder = Path(resume_from_checkpoint)
        for own, kind, name in (
            (target.policy, AutoModelForCausalLM, "policy"),
            (target.critic, AutoModelForTokenClassification, "critic"),
        ):
            if isinstance(own, ValueHead):
                own.load_pretrained(folder / name)
            elif (folder / name / "adapter_config.json").is_file():
                from peft import set_peft_model_state_dict
                from peft.utils import load_peft_weights

                set_peft_model_state_dict(own, load_peft_weights(str(folder / name)))
            else:
                saved = kind.from_pretrained(folder / name, dtype=own.dtype, use_safetensors=True)
                own.load_state_dict(saved.state_dict())
