"""PPO with trl 1.12.0's PPOTrainer: the contender `trl` of `irm.py`, which starts this in a separate environment.

    python experiments/bench/trl_ppo_worker.py WORK.json RESULT.json

The trainer is unchanged except that

- its reward model is a rule: `RuleReward` decodes the responses and grades them instead of a forward pass;
- its rollouts (sampling, reference, values) run under bfloat16 autocast whenever the update does. By default only the
  update is under accelerate's autocast, and the rest would be computed in the weights' float32;
- its batches contain the prompts in the given order, the same in each step;
- the padding token differs from the end token, as the trainer expects.

A step is one rollout of all prompts and one PPO epoch over it in micro-batches.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import torch
from datasets import Dataset
from torch import nn
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    TrainerCallback,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

from tltrain.grading import grade
from tltrain.trajectory import Call, Tool


class RuleReward(nn.Module):
    """Returns the reward of each response, looked up by its prompt; counts the tokens of the responses."""

    def __init__(self, prompts: list[dict], tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.asked = {
            tuple(prompt["ids"]): (Call(**prompt["golden"]), [Tool(**tool) for tool in prompt["tools"]])
            for prompt in prompts
        }
        if len(self.asked) < len(prompts):
            raise SystemExit("two prompts are the same: their golden calls could not be told apart")
        self.response_tokens = 0

    def forward(self, query_responses: torch.Tensor, context_length: int) -> torch.Tensor:
        """Map [B, T] token ids, padded on both sides, with responses from column `context_length`, to [B] rewards."""
        pad_id, rewards = self.tokenizer.pad_token_id, []
        for row in query_responses.tolist():
            query, response = (
                [token for token in part if token != pad_id] for part in (row[:context_length], row[context_length:])
            )
            self.response_tokens += len(response)
            text = self.tokenizer.decode(response, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            rewards.append(grade(text, *self.asked[tuple(query)]).reward())
        return torch.tensor(rewards)


class Clock(TrainerCallback):
    """Records the seconds of each step and of its parts, and the trainer's logs."""

    def __init__(self, reward: RuleReward) -> None:
        self.reward, self.steps, self.logs = reward, [], []
        self.parts: dict[str, float] = defaultdict(float)

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self.start = time.perf_counter()

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        self.logs.append(logs)

    def on_step_end(self, args, state, control, **kwargs) -> None:
        now = time.perf_counter()
        self.steps.append({"seconds": now - self.start, "response_tokens": self.reward.response_tokens, **self.parts})
        self.start, self.reward.response_tokens = now, 0
        self.parts.clear()

    def timed(self, part: str, function):
        """Wrap `function` so that its time without gradients is added to `part` of the step."""

        def run(*args, **kwargs):
            start = time.perf_counter()
            result = function(*args, **kwargs)
            if not torch.is_grad_enabled():
                self.parts[part] += time.perf_counter() - start
            return result

        return run


def adapt(clock: Clock, bf16: bool) -> None:
    """Patch rule, autocast and clock into the functions that the trainer calls for its rollouts."""
    model_reward = ppo_trainer.get_reward

    def get_reward(model, query_responses, pad_token_id, context_length):
        if isinstance(model, RuleReward):
            return None, model(query_responses, context_length), None
        return model_reward(model, query_responses, pad_token_id, context_length)

    for name, part, function in (
        ("batch_generation", "seconds_generation", ppo_trainer.batch_generation),
        ("forward", "seconds_scoring", ppo_trainer.forward),  # of the reference
        ("get_reward", "seconds_scoring", get_reward),
    ):
        # One context per call, because it keeps casts of the weights, which must not outlive their update. Around the
        # update's `forward`, which is already under accelerate's, another context changes nothing.
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=bf16)
        setattr(ppo_trainer, name, clock.timed(part, autocast(function)))


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    if tokenizer.pad_token_id == tokenizer.eos_token_id:  # the trainer treats every padding token as padding
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.bos_token
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        raise SystemExit(f"{path}: the tokenizer has no token for padding besides its end token")
    return tokenizer


def configuration(work: dict, folder: str) -> PPOConfig:
    """Return the trainer's arguments; one warm-up step and `steps` measured ones."""
    samples = len(work["prompts"])
    return PPOConfig(
        output_dir=folder,
        per_device_train_batch_size=work["micro_batch"],
        gradient_accumulation_steps=samples // work["micro_batch"],
        local_rollout_forward_batch_size=work["rollout_batch"],
        total_episodes=samples * (1 + work["steps"]),
        num_ppo_epochs=1,
        num_mini_batches=1,
        response_length=work["max_new_tokens"],
        stop_token="eos",
        temperature=work["temperature"],
        kl_coef=work["kl"],
        gamma=work["gamma"],
        lam=work["lam"],
        cliprange=work["clip"],
        cliprange_value=work["clip"],
        learning_rate=work["learning_rate"],
        lr_scheduler_type="constant",
        bf16=work["bf16"],
        use_cpu=True,
        gradient_checkpointing=False,
        num_sample_generations=0,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=work["seed"],
    )


def trainer_of(work: dict, folder: str) -> tuple[PPOTrainer, Clock]:
    """Make the trainer on the work's prompts, and the clock that watches it."""
    tokenizer = load_tokenizer(work["model"])
    reward = RuleReward(work["prompts"], tokenizer)
    clock = Clock(reward)
    adapt(clock, work["bf16"])
    policy, reference = (AutoModelForCausalLM.from_pretrained(work["model"], dtype=torch.float32) for _ in range(2))
    critic = AutoModelForSequenceClassification.from_pretrained(work["model"], dtype=torch.float32, num_labels=1)
    # One step longer than will be read: accelerate takes the last batch of a pass over the data for the end of gradient
    # accumulation and would step the optimizer after each of its micro-batches.
    rows = Dataset.from_list([{"input_ids": prompt["ids"]} for prompt in work["prompts"]] * (2 + work["steps"]))
    trainer = PPOTrainer(
        configuration(work, folder), tokenizer, policy, reference, reward, rows, critic, callbacks=[clock]
    )
    in_order = DataLoader(rows, batch_size=len(work["prompts"]), collate_fn=trainer.data_collator)
    trainer.dataloader = trainer.accelerator.prepare(in_order)
    return trainer, clock


def main() -> None:
    work = json.loads(Path(sys.argv[1]).read_text())
    with tempfile.TemporaryDirectory() as folder:
        trainer, clock = trainer_of(work, folder)
        trainer.train()
    steps, logs = clock.steps[1:], clock.logs[1:]  # the first step is the warm-up
    total = {name: sum(step[name] for step in steps) for name in steps[0]}
    result = {
        "samples": len(work["prompts"]) * len(steps),
        **total,
        "reward": sum(log["objective/scores"] for log in logs) / len(logs),
        "kl": sum(log["objective/kl"] for log in logs) / len(logs),
        "ratio": sum(log["val/ratio"] for log in logs) / len(logs),
        "approximate_kl": sum(log["policy/approxkl_avg"] for log in logs) / len(logs),
        "precision_of_update": trainer.accelerator.mixed_precision,
    }
    Path(sys.argv[2]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
