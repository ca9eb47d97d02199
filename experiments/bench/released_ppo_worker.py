"""PPO in the order of the authors' released code: the contender `released` of `irm.py`, which starts this script.

    python experiments/bench/released_ppo_worker.py WORK.json RESULT.json

For one prompt after another, the script samples a response; computes logits at every position from actor and reference
and values from the critic, without gradients; grades the response; then makes a forward pass, backward pass and
optimizer step with the actor, and the same with the critic. It uses plain torch and transformers. As in the released
code, log-probabilities are at temperature 1, advantages are not
whitened, rewards are clipped to ±5 and gradients to a norm of 1, and AdamW has betas 0.9 and 0.95. Its DeepSpeed
engines, ZeRO and gradient checkpointing are left out: on one process they would only add cost.

Shapes: P prompt tokens, R response tokens, T = P + R.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from tltrain.grading import grade
from tltrain.trajectory import Call, Tool

REWARD_CLIP = 5.0
MAX_GRAD_NORM = 1.0


class Critic(nn.Module):
    """A value for each token: a causal language model's body and a scalar head."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.body = AutoModel.from_pretrained(path, dtype=torch.float32)
        self.head = nn.Linear(self.body.config.hidden_size, 1, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Map [T] token ids to [T - 1] values of the states before tokens 1 to T - 1."""
        hidden = self.body(ids[None], use_cache=False).last_hidden_state
        return self.head(hidden)[0, :-1, 0].float()


def log_probabilities(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """Map [T] token ids to [T - 1] log-probabilities of tokens 1 to T - 1, from float32 logits of every position."""
    logits = model(ids[None], use_cache=False).logits[0, :-1].float()
    return logits.log_softmax(-1).gather(-1, ids[1:, None])[:, 0]


def advantages_and_returns(
    rewards: torch.Tensor, values: torch.Tensor, gamma: float, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute generalized advantage estimation over one response, all [R]; the value after its end is 0."""
    advantages = torch.zeros_like(rewards)
    last = following = 0.0
    for t in reversed(range(len(rewards))):
        last = rewards[t] + gamma * following - values[t] + gamma * lam * last
        advantages[t], following = last, values[t]
    return advantages, advantages + values


def policy_loss(new: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor, clip: float) -> torch.Tensor:
    """Compute PPO's clipped objective; log-probabilities and advantages [R] -> scalar."""
    ratio = (new - old).exp()
    return torch.max(-advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)).mean()


def value_loss(new: torch.Tensor, old: torch.Tensor, returns: torch.Tensor, clip: float) -> torch.Tensor:
    """Compute half the squared error with the value's change clipped; values and returns [R] -> scalar."""
    clipped = new.clamp(old - clip, old + clip)
    return 0.5 * torch.max((new - returns).square(), (clipped - returns).square()).mean()


class Worker:
    """The three models, the two optimizers, and the measurements.

    `laps` are seconds: `generation`; `actor_forward`, `reference_forward`, `critic_forward`, `reward`;
    `actor_update`, `critic_update` (forward and backward); `actor_step`, `critic_step` (clipping and AdamW).
    """

    def __init__(self, work: dict) -> None:
        self.work = work
        self.tokenizer = AutoTokenizer.from_pretrained(work["model"])
        self.actor, self.reference = (
            AutoModelForCausalLM.from_pretrained(work["model"], dtype=torch.float32) for _ in range(2)
        )
        self.reference.requires_grad_(False)
        self.critic = Critic(work["model"])
        self.optimizers = {
            name: torch.optim.AdamW(
                model.parameters(), lr=work["learning_rate"], betas=(0.9, 0.95), weight_decay=0.0, fused=True
            )
            for name, model in (("actor", self.actor), ("critic", self.critic))
        }
        self.generation = GenerationConfig(
            max_new_tokens=work["max_new_tokens"],
            do_sample=True,
            temperature=work["temperature"],
            top_k=0,
            top_p=1.0,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        self.reset()

    def reset(self) -> None:
        self.laps: dict[str, float] = defaultdict(float)
        self.lengths: list[int] = []
        self.rewards: list[float] = []
        self.kls: list[float] = []
        self.ratio_error = 0.0

    @contextmanager
    def lap(self, name: str, grad: bool = False):
        """Time a block, in bfloat16 if configured; casts of weights are kept only to the end of the block."""
        start = time.perf_counter()
        with torch.set_grad_enabled(grad), torch.autocast("cpu", torch.bfloat16, enabled=self.work["bf16"]):
            yield
        self.laps[name] += time.perf_counter() - start

    def learn_from(self, prompt: dict) -> None:
        """Learn from one sample: rollout, actor's step, critic's step."""
        work, start = self.work, len(prompt["ids"]) - 1  # token `start + 1` is the first of the response
        with self.lap("generation"):
            ids = torch.tensor([prompt["ids"]])
            mask = torch.ones_like(ids)
            ids = self.actor.generate(ids, attention_mask=mask, generation_config=self.generation)[0]
        with self.lap("actor_forward"):
            old = log_probabilities(self.actor, ids)[start:]
        with self.lap("reference_forward"):
            reference = log_probabilities(self.reference, ids)[start:]
        with self.lap("critic_forward"):
            old_values = self.critic(ids)[start:]
        with self.lap("reward"):
            text = self.tokenizer.decode(ids[start + 1 :], skip_special_tokens=True, clean_up_tokenization_spaces=False)
            golden, tools = Call(**prompt["golden"]), [Tool(**tool) for tool in prompt["tools"]]
            reward = grade(text, golden, tools).reward()
            rewards = -work["kl"] * (old - reference)
            rewards[-1] += max(-REWARD_CLIP, min(reward, REWARD_CLIP))
            advantages, returns = advantages_and_returns(rewards, old_values, work["gamma"], work["lam"])
        with self.lap("actor_update", grad=True):
            new = log_probabilities(self.actor, ids)[start:]
            policy_loss(new, old, advantages, work["clip"]).backward()
        self.step("actor", self.actor)
        with self.lap("critic_update", grad=True):
            value_loss(self.critic(ids)[start:], old_values, returns, work["clip"]).backward()
        self.step("critic", self.critic)
        self.lengths.append(len(old))
        self.rewards.append(reward)
        self.kls.append((old - reference).sum().item())
        self.ratio_error = max(self.ratio_error, math.expm1((new.detach() - old).abs().max().item()))

    def step(self, name: str, model: nn.Module) -> None:
        with self.lap(f"{name}_step"):
            nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
            self.optimizers[name].step()
            self.optimizers[name].zero_grad()


def main() -> None:
    work = json.loads(Path(sys.argv[1]).read_text())
    torch.manual_seed(work["seed"])
    worker = Worker(work)
    worker.learn_from(work["prompts"][0])  # warm-up
    worker.reset()
    for _ in range(work["steps"]):
        for prompt in work["prompts"]:
            worker.learn_from(prompt)
    samples = len(worker.lengths)
    scoring = ("actor_forward", "reference_forward", "critic_forward", "reward")
    result = {
        "samples": samples,
        "response_tokens": sum(worker.lengths),
        "seconds": sum(worker.laps.values()),
        "seconds_generation": worker.laps["generation"],
        "seconds_scoring": sum(worker.laps[name] for name in scoring),
        "reward": sum(worker.rewards) / samples,
        "kl": sum(worker.kls) / samples,
        "ratio_error": worker.ratio_error,
        "longest_response": max(worker.lengths),
        "laps": dict(worker.laps),
    }
    Path(sys.argv[2]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
