"""The models of PPO: the policy, and a critic that predicts the expected reward before each token."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModelForTokenClassification, PreTrainedModel
from transformers.utils import logging as transformers_logging

from tltrain.config import CriticInit
from tltrain.errors import TltrainError
from tltrain.runtime import out_of_space
from tltrain.tokens.prompts import PromptTree
from tltrain.training import engines, rollout
from tltrain.training import policy_gradient as pg
from tltrain.training.rollout import Sampling
from tltrain.trajectory import Sample


@dataclass(frozen=True)
class Models:
    """The models of PPO.

    `reference` is None if nothing depends on it, or if the policy with its adapter switched off takes its place.
    """

    policy: PreTrainedModel
    critic: PreTrainedModel | ValueHead
    reference: PreTrainedModel | None


class ValueHead(nn.Module):
    """A critic that shares the policy's body: a scalar head on the hidden states from which the policy's logits come.

    The head's weights start at 0. Its `bias` can start at the mean reward, like that of a separate critic.
    """

    FILE = "value_head.safetensors"

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.score = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the value, [N] in float32, from each hidden state [N, hidden_size]."""
        return self.score(hidden.float())[:, 0]

    def save_pretrained(self, folder: Path, state_dict: dict | None = None, is_main_process: bool = True) -> None:
        """Write the head to a file in `folder`."""
        if is_main_process:
            Path(folder).mkdir(parents=True, exist_ok=True)
            save_file(state_dict or self.state_dict(), Path(folder) / self.FILE)

    def load_pretrained(self, folder: Path) -> None:
        """Read what `save_pretrained` wrote."""
        self.load_state_dict(load_file(Path(folder) / self.FILE))


class NoCritic(ValueHead):
    """Stands in for a critic if the conversations of a group are compared with one another: every value is 0."""

    def __init__(self) -> None:
        nn.Module.__init__(self)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return zeros, [N] in float32."""
        return torch.zeros(len(hidden), device=hidden.device)

    def save_pretrained(self, folder: Path, state_dict: dict | None = None, is_main_process: bool = True) -> None:
        """Write nothing."""

    def load_pretrained(self, folder: Path) -> None:
        """Read nothing."""


class ActorCritic(nn.Module):
    """The policy and the critic as one module, so that one optimizer, one engine and one checkpoint hold both.

    The critic is a separate model or a `ValueHead`.
    """

    def __init__(
        self, policy: PreTrainedModel, critic: PreTrainedModel | ValueHead, timed: rollout.Timed = rollout.untimed
    ) -> None:
        super().__init__()
        self.policy, self.critic = policy, critic
        self.timed = timed  # measures the parts `policy` and `critic`
        self.config = policy.config  # engines size their buffers by it
        self._checkpointing: tuple[tuple[Any, ...], dict[str, Any]] = (), {}

    def forward(self, temperature: float, **batch: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return log-probability, entropy (nats, no gradient) and value of each response token, [N] each in float32."""
        with self.timed("policy"), self._hidden_states() as hidden:
            logits = response_logits(self.policy, batch, temperature)
            logprobs = token_logprobs(logits, batch["targets"])
            with torch.no_grad():
                entropy = pg.entropy(logits)
        with self.timed("critic"):
            if isinstance(self.critic, ValueHead):
                return logprobs, entropy, self.critic(hidden[0].reshape(len(batch["targets"]), -1))
            values = self.critic(**model_inputs(batch), use_cache=False).logits
        return logprobs, entropy, values[..., 0][batch["keep"]].float()

    @contextmanager
    def _hidden_states(self) -> Iterator[list[torch.Tensor]]:
        """Yield a list to which the policy's forward pass appends the input of its language-model head."""
        found: list[torch.Tensor] = []
        if not isinstance(self.critic, ValueHead):
            yield found
            return
        head = self.policy.get_output_embeddings()
        hook = head.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0]))
        try:
            yield found
        finally:
            hook.remove()

    @property
    def models(self) -> list[PreTrainedModel]:
        """The policy, and the critic if it is a separate model."""
        return [self.policy] if isinstance(self.critic, ValueHead) else [self.policy, self.critic]

    # The names that the Trainer and TRL use for activation checkpointing.

    @property
    def is_activation_checkpointing(self) -> bool:
        return self.policy.is_activation_checkpointing

    def activation_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        self._checkpointing = args, kwargs
        for model in self.models:
            model.activation_checkpointing_enable(*args, **kwargs)

    def activation_checkpointing_disable(self) -> None:
        for model in self.models:
            model.activation_checkpointing_disable()
            model.disable_input_require_grads()  # else each rollout would add another hook

    def gradient_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """Restore the Trainer's activation checkpointing after sampling; TRL, which calls this, has other settings."""
        args, kwargs = self._checkpointing
        self.activation_checkpointing_enable(*args, **kwargs)

    is_gradient_checkpointing = is_activation_checkpointing
    gradient_checkpointing_disable = activation_checkpointing_disable


def apply_liger_kernels(models: Iterable[PreTrainedModel], config: dict[str, Any] | None) -> None:
    """Apply Liger's kernels (`use_liger_kernel`) to each model; the Trainer only does so for a single PreTrainedModel.

    The fused loss is left out, since it replaces the forward pass that must return logits.

    Raises:
        ImportError: liger-kernel is not installed.
    """
    from transformers.integrations.liger import apply_liger_kernel

    for model in models:
        apply_liger_kernel(model, {**(config or {}), "fused_linear_cross_entropy": False})


def freeze_reference(reference: PreTrainedModel, autocast: bool) -> PreTrainedModel:
    """Freeze `reference` and put it in evaluation mode.

    Args:
        autocast: whether it computes under bfloat16 autocast, which casts the weights of linear layers in every forward
            pass. Storing them in bfloat16 gives the same numbers in half the memory. All else keeps its precision.
    """
    reference.requires_grad_(False).eval()
    if autocast:
        shared = {id(module.weight) for module in reference.modules() if isinstance(module, nn.Embedding)}
        for module in reference.modules():
            if type(module) is nn.Linear and id(module.weight) not in shared:
                module.to(torch.bfloat16)
    return reference


def model_inputs(batch: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a batch that a model's forward pass takes."""
    return {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids") if name in batch}


def response_logits(model: nn.Module, batch: dict[str, Any], temperature: float) -> torch.Tensor:
    """Return logits / temperature, [N, V] in float32, at the positions that predict response tokens.

    Logits of tokens that may not come next (`update_batches.allowed_tokens`) are so small that their probability is 0.
    """
    logits = model(**model_inputs(batch), logits_to_keep=batch["keep"], use_cache=False).logits
    logits = logits.float() / temperature
    if "allowed" not in batch or not len(batch["allowed"]):
        return logits
    bits = (batch["allowed"][:, :, None] >> torch.arange(8, device=logits.device, dtype=torch.uint8)) & 1
    bits = bits.flatten(1)[:, : logits.shape[1]].bool()
    forbidden = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
    forbidden[batch["allowed_at"]] = nn.functional.pad(~bits, (0, logits.shape[1] - bits.shape[1]), value=True)
    return logits.masked_fill(forbidden, torch.finfo(logits.dtype).min)  # not -inf: p * log p stays a number


def token_logprobs(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the log-probability of each target, [N], from logits [N, V] and targets [N]."""
    return -nn.functional.cross_entropy(logits, targets, reduction="none")


def new_critic(path: str, init: CriticInit | str, **kwargs: Any) -> PreTrainedModel:
    """Create a critic: a model that predicts a scalar value at each token.

    Args:
        path: a trained critic, or a causal language model, whose body is reused with a new head of zeros, so that all
            values start at 0.
        init: `random` uses only the model's configuration and initializes all weights at random, as the released code
            does in effect.
        kwargs: arguments of `from_pretrained`.

    Raises:
        TltrainError: the model cannot be read as a critic, or its head gives more than one number per token.
    """
    if (Path(path) / "adapter_config.json").is_file():
        raise TltrainError(
            f"{path} is an adapter and cannot become a critic: set model.lora.merge=true or stage.critic.path"
        )
    init = CriticInit(init)
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=kwargs.get("trust_remote_code", False))
        is_critic = any("TokenClassification" in name for name in config.architectures or ())
        if is_critic and config.num_labels != 1:
            raise TltrainError(f"the critic {path} gives {config.num_labels} numbers per token instead of one")
        config.num_labels = 1
        config.classifier_dropout = 0.0
        if init == "random":
            model = AutoModelForTokenClassification.from_config(
                config, dtype=kwargs["dtype"], attn_implementation=kwargs["attn_implementation"]
            )
        else:
            with _without_warnings():  # the warning that the head is new
                model = AutoModelForTokenClassification.from_pretrained(
                    path, config=config, use_safetensors=True, **kwargs
                )
    except Exception as error:  # safetensors raises its own error type
        if isinstance(error, TltrainError) or out_of_space.of_memory(error):
            raise
        raise TltrainError(f"{path} cannot be read as a critic: {' '.join(str(error).split())[:300]}") from error
    if init == "sft" and not is_critic:
        for parameter in _head(model).parameters():
            with engines.gathered_parameter(parameter):
                nn.init.zeros_(parameter)
    return model


def set_initial_value(critic: PreTrainedModel | ValueHead, reward: float) -> None:
    """Set the bias of a critic's zero head, if it has one, to `reward`, the initial value of every token."""
    bias = _head(critic).bias
    if bias is not None:
        with engines.gathered_parameter(bias):
            nn.init.constant_(bias, reward)


@contextmanager
def _without_warnings() -> Iterator[None]:
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)


def _head(model: PreTrainedModel | ValueHead) -> nn.Module:
    return next(module for name, module in model.named_children() if isinstance(module, nn.Linear))


def check_shapes(policy: PreTrainedModel, critic: PreTrainedModel) -> None:
    """Check that the critic covers the policy's vocabulary and context length.

    Raises:
        TltrainError: the critic's vocabulary or context is smaller.
    """
    for name in ("vocab_size", "max_position_embeddings"):
        own, wanted = (getattr(model.config.get_text_config(), name, None) for model in (critic, policy))
        if own is not None and wanted is not None and own < wanted:
            raise TltrainError(
                f"stage.critic.path: the critic has {name} {own}, the policy {wanted}: "
                "a critic reads the policy's tokens, so take it from the same base model"
            )


def mean_reward(
    policy: PreTrainedModel,
    trees: Sequence[PromptTree],
    sampling: Sampling,
    grade: Callable[[Sample, Sequence[int], list[int]], float],
    *,
    bf16: bool,
    seed: int,
    prompts: int = 16,
) -> float:
    """Return the mean reward of the policy's responses to some of the prompts, as the critic's initial value.

    With mostly negative rewards, a critic that starts at 0 gives every sampled token a negative advantage until it has
    learned the mean, and the policy moves away from everything it generates.

    Args:
        grade: (sample, tokens of its prompt, response) -> reward.
        prompts: approximate number of prompts to sample, spread over the trees.
    """
    per_tree = sum(len(tree.ends) for tree in trees) / len(trees)
    stride = max(int(len(trees) * per_tree / prompts), 1)
    asked = trees[::stride]
    with (
        torch.random.fork_rng(devices=[policy.device] if policy.device.type == "cuda" else []),
        torch.autocast(policy.device.type, torch.bfloat16, enabled=bf16),
    ):
        torch.manual_seed(seed)
        responses = rollout.sample(policy.eval(), asked, sampling)
    rewards = [
        grade(sample, tree.ids[:end], tokens)
        for tree, own in zip(asked, responses, strict=True)
        for sample, end, tokens in zip(tree.samples, tree.ends, own, strict=True)
    ]
    return sum(rewards) / len(rewards)
