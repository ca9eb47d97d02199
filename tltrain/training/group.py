"""RLOO and GRPO for tool calls: TRL's trainers with our prompts, our reward and the metric names of PPO.

Each row of the dataset is one prompt. TRL samples `num_generations` calls for it and compares them with one another,
so no critic is needed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PrinterCallback, TrainerState
from trl import GRPOTrainer, RLOOTrainer

from tltrain.errors import TltrainError
from tltrain.tokens.encoder import Encoder
from tltrain.tokens.prompts import PromptTree
from tltrain.training.checkpoints import ResumableCheckpoints
from tltrain.training.kl import KlControl
from tltrain.training.reward_function import RewardSignal, graded, response_counts
from tltrain.training.rollout import learned_tokens

NAMES = {
    "completions/mean_length": "response_length",
    "clip_ratio/region_mean": "policy_clip_fraction",
}
"""Map TRL's metric names to those of PPO."""


class _ToolCalls(ResumableCheckpoints):
    """Mix-in for both of TRL's trainers: tokenized prompts, the reward and the metrics."""

    kl: KlControl

    def __init__(
        self,
        model: PreTrainedModel,
        args: Any,
        trees: Sequence[PromptTree],
        *,
        encoder: Encoder,
        reward: RewardSignal,
        learn_thoughts: bool = True,
        callbacks: Sequence[Any] = (),
    ) -> None:
        prompts = [
            (list(tree.ids[:end]), own) for tree in trees for end, own in zip(tree.ends, tree.samples, strict=True)
        ]
        self.samples = [own for _, own in prompts]
        # TRL passes a prompt on as text and tokenizes it again; ours are already tokenized as in training.
        self.prompt_ids = {str(number): ids for number, (ids, _) in enumerate(prompts)}
        self.judge, self.kl, self.on_samples = reward.judge, reward.kl, reward.on_samples
        self.encoder, self.learn_thoughts = encoder, learn_thoughts
        self.stopped: str | None = None
        self._seconds = {"seconds_generation": 0.0, "seconds_scoring": 0.0}
        self._tokens, self._last_log = 0, time.perf_counter()
        if args.use_vllm:
            args.generation_kwargs = vllm_stop_tokens(args.generation_kwargs, encoder.ends)
        with _ending_with(model, encoder.ends):
            super().__init__(
                model,
                self._reward,
                args,
                Dataset.from_list([{"prompt": number} for number in self.prompt_ids]),
                processing_class=encoder.tokenizer,
                callbacks=list(callbacks),
            )
        self.remove_callback(PrinterCallback)

    def _reward(
        self,
        prompts: list[str],
        completions: list[str],
        completion_ids: list[list[int]],
        trainer_state: TrainerState,
        log_metric: Callable[[str, float], None],
        **_: Any,
    ) -> list[float]:
        """Grade the responses; TRL calls this as its reward function."""
        judged = [
            graded(self.judge, self.encoder, self.samples[int(n)], self.prompt_ids[n], ids, self._ended(ids))
            for n, ids in zip(prompts, completion_ids, strict=True)
        ]
        self.counts["sampled_calls"] += len(completion_ids)
        self.counts["sampled_tokens"] += sum(map(len, completion_ids))
        self.counts["target_tokens"] += self._learned_tokens * self.num_iterations
        step = trainer_state.global_step + 1
        for one in judged:
            if not math.isfinite(one.reward):
                raise self._not_finite(f"the reward of {one.sample.id} is {one.reward}", step, TltrainError)
        for name, count in response_counts(judged).items():
            log_metric(name, count / len(judged))
        if trainer_state.is_world_process_zero:
            self.on_samples(step, judged)
        return [one.reward for one in judged]

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [list(self.prompt_ids[number]) for number in prompts], None, {}

    def _ended(self, ids: Sequence[int]) -> bool:
        return bool(ids) and ids[-1] in self.encoder.ends

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        prompt_ids, ids, *others = self._timed("seconds_generation", super()._generate, *args, **kwargs)
        self._learned_tokens = sum(map(len, ids))
        if not self.learn_thoughts:  # masked like tokens that the model did not generate (only GRPO, see `stages.irm`)
            learned = [learned_tokens(self.encoder, *pair) for pair in zip(prompt_ids, ids, strict=True)]
            others[0] = [list(map(int, own)) for own in learned]
            self._learned_tokens = sum(map(sum, learned))
        return prompt_ids, ids, *others

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
        return self._timed("seconds_scoring", super()._calculate_rewards, *args, **kwargs)

    def _timed(self, name: str, do: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return do(*args, **kwargs)
        finally:
            self._seconds[name] += time.perf_counter() - start

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log TRL's metrics under our names, with the time since the last log."""
        if "loss" in logs:
            now, tokens = time.perf_counter(), self.state.num_input_tokens_seen
            whole = now - self._last_log
            self._metrics["train"] = _renamed(self._metrics["train"])
            logs |= self._seconds | {
                "seconds": whole,
                "seconds_update": whole - sum(self._seconds.values()),
                "tokens_per_second": (tokens - self._tokens) / whole,
                "kl_coefficient": self.kl.coefficient,
            }
            self._check_limits(logs["loss"])
            self._seconds = dict.fromkeys(self._seconds, 0.0)
            self._tokens, self._last_log = tokens, now
        super().log(logs, start_time)

    def _check_limits(self, loss: float) -> None:
        """Raise if the loss is not finite; stop or adapt if the policy is too far from the reference."""
        if not math.isfinite(loss):
            raise self._not_finite(f"the loss is {loss}", self.state.global_step)
        found = self._metrics["train"]
        if found.get("kl") and found.get("response_length"):
            # TRL's KL is a mean over tokens; ours is a sum over a response.
            kl = found["kl"][-1] * found["response_length"][-1]
            if reason := self.kl.update(kl, self.state.global_step):
                self.stopped, self.control.should_training_stop = reason, True
            self.beta = self.kl.coefficient

    def _load_extra(self, folder: Path) -> None:
        self.beta = self.kl.coefficient


def vllm_stop_tokens(given: dict[str, Any] | None, ends: Collection[int]) -> dict[str, Any]:
    """Return vLLM's sampling parameters with the tokens that end an answer: vLLM knows only those of its own model."""
    return {"stop_token_ids": sorted(ends), **(given or {})}


@contextmanager
def _ending_with(model: PreTrainedModel, ends: Collection[int]) -> Iterator[None]:
    """Let the model's generation configuration name the tokens that end an answer, from which TRL takes them."""
    before = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = sorted(ends)
    try:
        yield
    finally:
        model.generation_config.eos_token_id = before


def _renamed(metrics: dict[str, list[float]]) -> Any:
    """Rename metrics in place by `NAMES` and add `ended`, the complement of TRL's share of cut responses."""
    for theirs, ours in NAMES.items():
        if theirs in metrics:
            metrics[ours] = metrics.pop(theirs)
    if "completions/clipped_ratio" in metrics:
        metrics["ended"] = [1 - share for share in metrics["completions/clipped_ratio"]]
    return metrics


class RLOO(_ToolCalls, RLOOTrainer):
    """REINFORCE leave-one-out (Ahmadian et al. 2024), as implemented in TRL."""


class GRPO(_ToolCalls, GRPOTrainer):
    """Group relative policy optimization (Shao et al. 2024), as implemented in TRL."""


TRAINERS = {"rloo": RLOO, "grpo": GRPO}
