"""Held-out questions, which stage=irm asks before and after training."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from tltrain import config
from tltrain.evaluation import scoring
from tltrain.runtime import distributed, json_files, runs
from tltrain.tokens.prompts import questions
from tltrain.training import pricing
from tltrain.trajectory import Trajectory

if TYPE_CHECKING:
    from tltrain.inference.offered_names import Offered
    from tltrain.tokens.encoder import Encoder
    from tltrain.training.reward_function import RewardFunction

log = logging.getLogger(__name__)


class HeldOutEvaluation:
    """Answers held-out questions greedily and grades them: reward, and TS, PI, CF with intervals.

    If the reward prices abstention, questions to which no call is right are asked as well; they count in `abstention`
    (percent of `abstention_n`), not in TS, PI and CF.

    Args:
        held_out: trajectories, whose first `stage.eval_size` calls are asked for.
    """

    def __init__(
        self, cfg: DictConfig, encoder: Encoder, held_out: Sequence[Trajectory], judge: RewardFunction
    ) -> None:
        self.cfg, self.encoder, self.judge = cfg, encoder, judge
        abstaining = pricing.prices_abstention(judge.price)
        samples = [sample for item in held_out for _, sample in questions(item, encoder.several_calls, abstaining)]
        self.samples = samples[: cfg.stage.eval_size]
        self.offered = offered_names(cfg, encoder)
        lengths = encoder.answer_lengths(held_out, abstaining)[: len(self.samples)] if self.samples else []
        too_long = sum(length > cfg.stage.max_new_tokens for length in lengths)
        if too_long:
            log.warning(
                "the golden call of %d of %d held-out questions does not fit stage.max_new_tokens=%d: no answer to "
                "them can be right",
                *(too_long, len(self.samples), cfg.stage.max_new_tokens),
            )

    def __call__(self, model: Any, bf16: bool, description: str) -> dict[str, Any]:
        """Return `reward`, `ts`, `pi`, `cf` (percent), `n`, the metrics' intervals, outcomes, and rewards in order."""
        import torch

        from tltrain.inference import generation
        from tltrain.inference.token_choice import TokenChoice

        if not self.samples:
            return {"n": 0}
        prompts = [self.encoder.prompt(sample) for sample in self.samples]
        with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
            answers = generation.answers(
                model,
                self.encoder,
                prompts,
                generation.GenerationSettings(
                    self.cfg.stage.max_new_tokens, self.cfg.stage.eval_batch_size, description, together=True
                ),
                choose=TokenChoice(self.samples, self.offered) if self.offered else None,
            )
        texts = [
            self.encoder.answer(answer.ids, prompt, sample.tools) if self.encoder.reads_tokens else answer.text
            for answer, prompt, sample in zip(answers, prompts, self.samples, strict=True)
        ]
        judged = [self.judge(sample, text) for sample, text in zip(self.samples, texts, strict=True)]
        grades, rewards = [one.grade for one in judged], [one.reward for one in judged]
        others = [one.grade for one in judged if one.sample.abstain]
        calls = [one.grade for one in judged if not one.sample.abstain]
        levels = scoring.score(calls, self.cfg.seed) if calls else {}
        abstained = scoring.abstention_rate(others, self.cfg.seed)
        return {
            "reward": sum(rewards) / len(rewards),
            **{level: metric.value for level, metric in levels.items()},
            "n": len(rewards),
            **({"abstention": abstained.value, "abstention_n": abstained.n} if others else {}),
            "intervals": {level: [metric.low, metric.high] for level, metric in levels.items()},
            "outcomes": scoring.count_outcomes(grades),
            "rewards": rewards,
        }

    def cached(self, path: Path, model: Any, bf16: bool, description: str) -> dict[str, Any]:
        """Return the same, cached in `path` for a resumed run."""
        from tltrain.training import engines

        found = distributed.share(_kept(path))
        if found is None:
            with engines.gathered(model):
                found = self(model, bf16, description)
            runs.write_json(path, found)
        return found


def _kept(path: Path) -> dict[str, Any] | None:
    """Return the numbers that a stopped run left in `path`; None if there are none that can be read."""
    if not path.is_file():
        return None
    try:
        found = json_files.read_object(path)
        if not isinstance(found.get("n"), int):
            raise ValueError("it does not say how many questions were asked")
    except (OSError, ValueError) as error:
        log.warning("%s is not used, the questions are asked again: %s", path, " ".join(str(error).split())[:200])
        return None
    return found


def offered_names(cfg: DictConfig, encoder: Encoder) -> Offered | None:
    """Return what `stage.names=offered` allows; None for `free`."""
    from tltrain.inference.offered_names import offered_in

    return offered_in(encoder) if cfg.stage.names == config.Names.offered else None
