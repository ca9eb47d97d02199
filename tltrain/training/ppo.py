"""IRM: proximal policy optimization with the rule-based reward, on transformers' Trainer.

An optimizer step uses one rollout: it samples a call for every prompt of the step, grades it, and trains on it once (or
in `ppo_epochs` steps). The order within a step is:

    get_batch_samples   prompts -> responses -> grades -> micro-batches                 (rollout.py, reward_function.py)
    compute_loss        reference, policy and critic on each micro-batch -> rewards with KL -> advantages -> losses
                                                                                        (policy_gradient.py)

Losses are means over all response tokens or all responses (`loss_mean`) of the step, independent of its split into
micro-batches and processes. In the first PPO epoch the policy is still the sampling policy, so the old
log-probabilities and values come from the forward pass that is differentiated anyway. The reference is not evaluated
if the KL penalty is 0 and the KL has no limit. Under mixed precision a bfloat16 copy of the policy samples, which
differs by rounding; the difference is logged. Optimizers, schedules, DeepSpeed, checkpoints and callbacks are those of
transformers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import compress, islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from tltrain.config import LossMean
from tltrain.errors import TltrainError
from tltrain.tokens.prompts import PromptTree
from tltrain.training import engines, rollout, tree_mask, update_batches
from tltrain.training import policy_gradient as pg
from tltrain.training.actor_critic import Models, check_shapes, response_logits, token_logprobs
from tltrain.training.actor_critic_trainer import ActorCriticTrainer
from tltrain.training.kl import KlControl
from tltrain.training.reward_function import RewardSignal, response_counts
from tltrain.training.rollout import Asked, RolloutSampler

ROLLOUT = "rollout.pt"
"""File in a checkpoint: a rollout with PPO epochs still to run."""
SUMS = "sums.pt"
"""File in a checkpoint: the metric sums since the last log."""
BLANK = -1
"""Index in place of a tree if a process has none left."""


@dataclass(frozen=True)
class Settings:
    """Hyperparameters of PPO; the defaults are those of the paper (IRM, released code)."""

    gamma: float = 1.0
    lam: float = 0.95
    clip: float = 0.2
    value_clip: float = 0.2
    reward_clip: float = 5.0
    ppo_epochs: int = 1
    loss_mean: LossMean = LossMean.tokens
    critic_learning_rate: float = 1e-7
    value_coefficient: float = 1.0  # weight of the value loss, which matters if the critic shares the policy's body
    generation_batch_size: int | None = None  # responses sampled at the same time; None: all of a step


class PPOTrainer(ActorCriticTrainer):
    """PPO over prompt trees.

    Logs per step: `reward`, `grade/<outcome>` (shares), `kl` (sum over a response's tokens, mean over responses),
    `entropy`, `policy_loss`, `value_loss`, `policy_clip_fraction`, `value_clip_fraction`, `explained_variance`,
    `value`, `advantage`, `response_length`, `ended` (share of responses with an end token), `trailing_text` and
    `no_end_token` (shares of responses with a readable call that is followed by text, or has no end token),
    `sampling_logprob_difference` and `sampling_logprob_difference_max` (per token, absolute difference between the
    log-probability at sampling and in the update), `samples`, `response_tokens`, `tokens_per_second` (prompt and
    response tokens), `seconds` and its parts `seconds_generation`, `seconds_scoring`, `seconds_update`; of generation
    `seconds_prefill`, of the update `seconds_reference`, `seconds_policy`, `seconds_critic` (forward passes),
    `seconds_backward`, `seconds_optimizer`, and `update_padding` (share of the update's tokens that is padding).

    Args:
        prompts: its `rows` are the rows of the dataset, here prompt trees.
    """

    kl: KlControl
    prompts: Any
    loss_is_scaled_for_ga = True  # the losses below are divided by the tokens or responses of the whole step

    def __init__(
        self,
        models: Models,
        args: Any,
        prompts: Asked,
        *,
        reward: RewardSignal,
        settings: Settings,
        callbacks: Sequence[Any] = (),
    ) -> None:
        policy, critic = models.policy, models.critic
        if isinstance(critic, PreTrainedModel):
            check_shapes(policy, critic)
            if prompts.branching:
                tree_mask.check_same_layers(policy, critic)
        self.prompts, self.rows, self.sampling = prompts, prompts.rows, prompts.sampling
        self.judge, self.kl, self.on_samples = reward.judge, reward.kl, reward.on_samples
        self.settings, self.temperature = settings, self.sampling.temperature or 1.0
        super().__init__(models, args, len(self.rows), settings.critic_learning_rate, callbacks)
        self.stopped: str | None = None
        self._micro_batches: list[dict[str, torch.Tensor]] = []
        self._sampling_copy = rollout.SamplingCopy()
        self._clock = time.perf_counter()
        self._tree_multiple = tree_mask.BLOCK if self.args.device.type == "cuda" else 1

    # --- rollout ---------------------------------------------------------------------------------------------------

    def _get_train_sampler(self, train_dataset: Any = None) -> RolloutSampler:
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return RolloutSampler(len(self.rows), size, self.settings.ppo_epochs, self.args.seed)

    def _with_blank(self, dataset: list[int]) -> list[int]:
        return [*dataset, BLANK]

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, torch.Tensor]], torch.Tensor]:
        """Return the step's micro-batches and the number of tokens or responses, on all processes, in its mean."""
        self._clip_apart_in_engine()
        batches = [batch.tolist() for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        first_epoch = self.state.global_step % self.settings.ppo_epochs == 0
        if first_epoch or not self._micro_batches:
            self._clock = time.perf_counter()
            self._micro_batches = self._roll_out([[self.rows[i] for i in batch if i != BLANK] for batch in batches])
        counted = "targets" if self.settings.loss_mean is LossMean.tokens else "scores"
        items = sum(len(batch[counted]) for batch in self._micro_batches)
        self.counts["target_tokens"] += sum(len(batch["targets"]) for batch in self._micro_batches)
        # At least 1: all responses of a step may be thoughts that are not learned.
        return self._micro_batches, self.accelerator.gather(torch.tensor([items], device=device)).sum().clamp(min=1)

    def _roll_out(self, batches: Sequence[Sequence[PromptTree]]) -> list[dict[str, torch.Tensor]]:
        """Sample and grade responses to the step's prompts, and return a micro-batch for each of `batches`."""
        trees = [tree for batch in batches for tree in batch]
        step = self.state.global_step + 1
        with torch.random.fork_rng(devices=[self.args.device] if self.args.device.type == "cuda" else []):
            torch.manual_seed(rollout.derive_seed(self.args.seed, step, self.args.process_index))
            responses, drawn = self._sample(trees)
        self._sums.add(seconds_generation=self._lap())
        judged = self.prompts.graded(trees, responses, self.judge)
        learned = self.prompts.learned(trees, responses)
        everything = [one for own in judged for one in own]
        for one in everything:
            if not math.isfinite(one.reward):
                raise self._not_finite(f"the reward of {one.sample.id} is {one.reward}", step, TltrainError)
        if self.is_world_process_zero():
            self.on_samples(step, everything)
        lengths = [len(tokens) for own in responses for tokens in own]
        self.counts["sampled_calls"] += len(lengths)
        self.counts["sampled_tokens"] += sum(lengths)
        self._sums.add(
            samples=len(everything),
            reward=sum(one.reward for one in everything),
            response_length=sum(lengths),
            prompt_tokens=sum(end for tree in trees for end in tree.ends),
            ended=sum(tokens[-1] in self.sampling.ends for own in responses for tokens in own),
            **response_counts(everything),
        )
        micro_batches, start, logprobs = [], 0, iter(drawn)
        for batch in batches:
            part = slice(start, start + len(batch))
            start += len(batch)
            scores = [one.reward for own in judged[part] for one in own]
            flags = None if learned is None else learned[part]
            laid_out = update_batches.make_batch(
                batch, responses[part], scores, self.sampling.pad_id, self._tree_multiple, flags
            )
            names = [one.sample.id for own in judged[part] for one in own]
            if self.sampling.offered is not None:
                laid_out |= update_batches.allowed_tokens(
                    self.sampling.offered, batch, responses[part], laid_out["index"], flags
                )
            own = list(islice(logprobs, len(names)))
            if flags is not None:
                each = (response for tree in flags for response in tree)
                own = [list(compress(*pair)) for pair in zip(own, each, strict=True)]
            laid_out["drawn_logprobs"] = update_batches.padded(own, laid_out["mask"])
            micro_batches.append(rollout.to_device(laid_out, self.args.device) | {"samples": names})
        self._sums.add(seconds_scoring=self._lap())
        return micro_batches

    def _sample(self, trees: Sequence[PromptTree]) -> tuple[list[list[list[int]]], list[list[float]]]:
        """Return responses by tree and prompt, and the log-probabilities of each response's tokens at sampling."""
        responses: list[list[list[int]]] = []
        drawn: list[list[float]] = []
        with engines.gathered_for_generation(self) as unwrapped:
            policy = unwrapped.policy.eval()
            if self.args.bf16 and policy.dtype != torch.bfloat16:
                policy = self._sampling_copy.synced_with(policy)
            for part in rollout.tree_groups(trees, self.settings.generation_batch_size):
                try:
                    responses += rollout.sample(policy, part, self.sampling, drawn, self._timed)
                except RuntimeError as error:
                    if "probability tensor" not in str(error):
                        raise
                    what = f"the policy's probabilities are not finite at {part[0].samples[0].id} or near it"
                    raise self._not_finite(what, self.state.global_step + 1) from error
        return responses, drawn

    # --- update ----------------------------------------------------------------------------------------------------

    def _prepare_inputs(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return inputs  # already on the device; later PPO epochs reuse what the first one adds

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Compute a micro-batch's gradients; return its share of the loss."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._sums.add(seconds_backward=self._now() - self._forward_end)
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, dict[str, Any]]:
        """Return a micro-batch's policy and value loss, divided by the number of tokens or responses of the step."""
        s, mask, index = self.settings, inputs["mask"], inputs["index"]
        names = ("input_ids", "position_ids", "keep", "targets", "allowed_at", "allowed")
        batch = {name: inputs[name] for name in names if name in inputs}
        batch |= self._attention(inputs)
        with_reference = "old_logprobs" not in inputs and self._uses_reference
        if with_reference:  # before the policy's forward, whose activations need memory
            with self._timed("reference"):
                reference = _by_response(self._reference_logprobs(batch), index)
        logprobs, entropy, values = model(temperature=self.temperature, **batch)
        logprobs, values = _by_response(logprobs, index), _by_response(values, index)
        if "old_logprobs" not in inputs:
            old, old_values = logprobs.detach(), values.detach()
            if not with_reference:
                reference = old  # the penalty is 0
            advantages, returns = self._credit(inputs, old, reference, old_values)
            inputs |= {"old_logprobs": old, "old_values": old_values, "advantages": advantages, "returns": returns}
            apart = (inputs["drawn_logprobs"] - old).abs()[mask]
            if with_reference:
                self._sums.add(kl=((old - reference) * mask).sum())
            self._sums.add(sampling_logprob_difference=apart.sum(), compared_tokens=len(apart))
            self._sums.update_max(sampling_logprob_difference_max=apart.max() if len(apart) else 0.0)
        policy_losses, clipped = pg.policy_loss(
            logprobs, inputs["old_logprobs"], inputs["advantages"], mask, clip=s.clip
        )
        value_losses, value_clipped = pg.value_loss(
            values, inputs["old_values"], inputs["returns"], mask, clip=s.value_clip
        )
        policy_loss, value_loss = (
            pg.reduce_losses(losses, mask, s.loss_mean) for losses in (policy_losses, value_losses)
        )
        error = (inputs["returns"] - values.detach())[mask]
        returns = inputs["returns"][mask]
        self._sums.add(
            tokens=mask.sum(),
            update_tokens=inputs["input_ids"].numel(),
            update_padding=inputs["input_ids"].numel() - inputs["real"].sum(),
            items=mask.sum() if s.loss_mean is LossMean.tokens else len(mask),
            policy_loss=policy_loss.detach(),
            value_loss=value_loss.detach(),
            policy_clip_fraction=clipped.sum(),
            value_clip_fraction=value_clipped.sum(),
            entropy=entropy.sum(),
            value=values.detach()[mask].sum(),
            advantage=inputs["advantages"][mask].sum(),
            returns=returns.sum(),
            returns_squared=returns.double().square().sum(),
            error=error.sum(),
            error_squared=error.double().square().sum(),
        )
        loss = (policy_loss + s.value_coefficient * value_loss) / num_items_in_batch * self.accelerator.num_processes
        if not torch.isfinite(loss):
            which = f"the loss is {loss.item()} on {inputs['samples'][self._worst(policy_losses + value_losses)]}"
            raise self._not_finite(which, self.state.global_step + 1)
        self._forward_end = self._now()
        return (loss, {}) if return_outputs else loss

    def _credit(
        self, inputs: dict[str, Any], old: torch.Tensor, reference: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return advantages and returns, [M, R] each, from log-probabilities of policy and reference and from values.

        Discount and generalized advantage estimation run over the tokens of each response.
        """
        s, mask = self.settings, inputs["mask"]
        rewards = pg.token_rewards(inputs["scores"], old, reference, mask, kl=self.kl.coefficient, clip=s.reward_clip)
        return pg.generalized_advantages(rewards, values, mask, gamma=s.gamma, lam=s.lam)

    def _attention(self, inputs: dict[str, torch.Tensor]) -> dict[str, Any]:
        """Return the attention mask of the models, made on the device on demand: a tree's mask has T x T entries."""
        if "reach" not in inputs:
            return {"attention_mask": inputs["attention_mask"]}
        policy, dtype = self.accelerator.unwrap_model(self.model).policy, torch.bfloat16 if self.args.bf16 else None
        return {"attention_mask": tree_mask.attention_mask(policy, inputs["reach"], inputs["position_ids"], dtype)}

    @property
    def _uses_reference(self) -> bool:
        """Whether anything depends on the reference: the penalty, or a limit on the divergence."""
        return self.kl.coefficient > 0 or self.kl.limit is not None

    @staticmethod
    def _worst(losses: torch.Tensor) -> int:
        """Return the index of the first response whose loss is not finite."""
        return int((~torch.isfinite(losses)).any(dim=1).int().argmax())

    @torch.no_grad()
    def _reference_logprobs(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return log-probabilities under the reference, [N], at the sampling temperature."""
        if self.reference is not None:
            model, switched_off, precision = self.reference, nullcontext(), nullcontext()
        else:  # unwrapped, the policy needs autocast to compute in the update's precision
            model = self.accelerator.unwrap_model(self.model).policy
            switched_off, precision = model.disable_adapter(), self.accelerator.autocast()
        with switched_off, precision:
            return token_logprobs(response_logits(model, batch, self.temperature), batch["targets"])

    # --- logging ---------------------------------------------------------------------------------------------------

    def _lap(self) -> float:
        """Return the seconds since the previous call, and restart the clock."""
        before, self._clock = self._clock, self._now()
        return self._clock - before

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the metrics since the last log."""
        if "loss" in logs:
            self._sums.add(seconds_update=self._lap())
            logs.update(self._sums.reduce_and_reset(self.accelerator), kl_coefficient=self.kl.coefficient)
            if not self._uses_reference:
                logs.pop("kl", None)  # nothing computed it
            if "kl" in logs and (reason := self.kl.update(logs["kl"], self.state.global_step)):
                self.stopped, self.control.should_training_stop = reason, True
        super().log(logs, start_time)

    # --- checkpoints -----------------------------------------------------------------------------------------------

    def _save_extra(self, folder: Path) -> None:
        torch.save(self._sums.values, folder / f"{self.args.process_index}_{SUMS}")
        if self.state.global_step % self.settings.ppo_epochs:
            torch.save(self._micro_batches, folder / f"{self.args.process_index}_{ROLLOUT}")

    def _load_extra(self, folder: Path) -> None:
        sums = folder / f"{self.args.process_index}_{SUMS}"
        if sums.is_file():
            self._sums.values |= torch.load(sums, map_location=self.args.device, weights_only=True)
        kept = folder / f"{self.args.process_index}_{ROLLOUT}"
        if kept.is_file():
            self._micro_batches = torch.load(kept, map_location=self.args.device, weights_only=True)


def _by_response(numbers: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return [M, R] from numbers of N tokens, [N], by `index` of a batch.

    Without tokens (all responses are thoughts that are not learned) the index has nothing to point at but padding.
    """
    return (numbers if len(numbers) else numbers.sum()[None])[index]
