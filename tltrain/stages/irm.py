"""stage=irm: reinforcement learning of tool calls with a reward by kind of mistake.

    python -m tltrain stage=irm model.path=outputs/pkt/TIME/model data=rotbench data.path=FOLDER
    python -m tltrain stage=irm stage.algorithm=grpo model.path=...            TRL's GRPO, same prompts, same reward
    python -m tltrain stage=irm hydra.run.dir=FOLDER stage.resume=true ...     go on after a stop

Every call that may be learned is a prompt (its history) with a golden call; the policy samples a call, `grading` judges
it. Writes `model/` (as stage=sft), `history.jsonl` and `rewards.png` (reward and shares of grades over steps),
`samples.jsonl` (sampled beside golden calls), `metrics.json` with reward and TS, PI, CF on held-out trajectories,
before and after.
"""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from tltrain import config, plan, tracking
from tltrain.errors import TltrainError
from tltrain.evaluation import scoring
from tltrain.grading import RewardTable
from tltrain.models import loading
from tltrain.runtime import distributed, runs, terminal
from tltrain.stages import training_runs
from tltrain.stages.training_runs import TrainingRun
from tltrain.tokens.prompts import PromptReport, PromptTree, prompt_trees, questions
from tltrain.tracking import names
from tltrain.trajectory import Sample, Trajectory

if TYPE_CHECKING:
    from tltrain.tokens.encoder import Encoder
    from tltrain.training.actor_critic import Models
    from tltrain.training.reward_function import GradedResponse, RewardFunction, RewardSignal
    from tltrain.training.rollout import Prompts

log = logging.getLogger(__name__)


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the stage into `folder`; returns what it wrote to `metrics.json`."""
    with terminal.status("loading torch, transformers and trl"):
        from tltrain.inference import generation
        from tltrain.models import devices
        from tltrain.training import engines, reward_function
        from tltrain.training.checkpoints import step_of
        from tltrain.training.kl import KlControl
        from tltrain.training.progress import Progress

    prepared = training_runs.prepare(cfg, folder, training_arguments, left=("samples.jsonl", "before.json"))
    model, bf16 = prepared.model, prepared.bf16
    trees, report = prompts(cfg, prepared.train, prepared.encoder, generation.context(model))
    log.info("irm: %d prompts in %d trees, %d tokens", report.prompts, len(trees), report.tokens)
    plan.announce(cfg, model.config, trees)
    asked = [sample for item in prepared.held_out for _, sample in questions(item)][: cfg.stage.eval_size]
    judge = reward_function.RewardFunction(RewardTable.from_config(config.plain(cfg.reward)), cfg.stage.matching.name)
    examine = HeldOutEvaluation(cfg, prepared.encoder, asked, judge)
    before = examine.once(folder / "before.json", model, bf16, "asking held-out questions before")

    with tracking.job(cfg, folder) as tracker:
        tracker.metrics(names.of_held_out_evaluation("before", before))
        samples = reward_function.SampleLog(
            folder / "samples.jsonl", cfg.stage.samples_every, cfg.stage.samples, tracker.table
        )
        if samples.path.is_file() and prepared.resume_from:  # else there is none, or nothing to go on from
            samples.forget_after(step_of(Path(prepared.resume_from)))
        kl = KlControl(cfg.stage.kl, cfg.stage.kl_limit, cfg.stage.on_kl_limit.name)
        callbacks = [
            Progress(f"training (irm, {cfg.stage.algorithm.name})", {"reward": "reward", "kl": "kl"}),
            *tracker.callbacks(),
        ]
        with training_runs.refused_arguments():
            trainer = make_trainer(prepared, trees, reward_function.RewardSignal(judge, kl, samples), callbacks)
        outcome = training_runs.train(prepared, trainer)
        training_runs.check_loss(outcome.training_loss)
        with engines.whole_for_generation(trainer) as unwrapped:
            after = examine(getattr(unwrapped, "policy", unwrapped), bf16, "asking held-out questions after")

        unwrapped = trainer.accelerator.unwrap_model(trainer.model)
        training_runs.save_model(prepared, getattr(unwrapped, "policy", unwrapped), trainer)
        if cfg.stage.critic.save and hasattr(unwrapped, "critic"):
            engines.save(unwrapped.critic, trainer, folder / "critic", devices.weights_dtype(cfg.model))
        tracker.metrics(names.of_held_out_evaluation("after", after))
        tracker.artifact("model", folder / "model")
    logs = trainer.state.log_history
    training_runs.write_history(logs, folder)
    results = {
        "train": training_runs.known(outcome.metrics) | asdict(report) | last_step(logs),
        "steps": trainer.state.global_step,
        "stopped": trainer.stopped,
        "before": before,
        "after": after,
    }
    return training_runs.finish(prepared, results)


def prompts(
    cfg: DictConfig, train: list[Trajectory], encoder: Encoder, context: int | None
) -> tuple[list[PromptTree], PromptReport]:
    """What is asked in training.

    Raises:
        TltrainError: a prompt does not fit, or there is none.
    """
    room = (context or sys.maxsize) - cfg.stage.max_new_tokens
    if room < 1:
        raise TltrainError(
            f"stage.max_new_tokens={cfg.stage.max_new_tokens} leaves no room for a prompt: the model's context is "
            f"{context} tokens"
        )
    report = PromptReport()
    trees = list(
        prompt_trees(
            terminal.track(train, "tokenizing"),
            encoder,
            packing=cfg.stage.packing.name,
            max_length=min(room, cfg.stage.max_prompt_length or room),
            truncation=cfg.stage.truncation.name,
            report=report,
        )
    )
    if not trees:
        raise TltrainError(
            f"there is nothing to ask: {report.trajectories} trajectories, {report.nothing_to_ask} of them without a "
            f"call that may be learned, {report.too_long} prompts left out as too long"
        )
    return trees, report


def training_arguments(cfg: DictConfig, folder: Path, device: str, bf16: bool) -> Any:
    """Arguments of the algorithm's trainer as the configuration sets them."""
    import transformers
    import trl

    algorithm = cfg.stage.algorithm.name
    if cfg.hardware.fsdp and distributed.size() > 1:
        raise TltrainError("hardware.fsdp trains stage=sft and stage=pkt; for stage=irm: hardware=zero2 or zero3")
    trees = algorithm == "ppo" and cfg.stage.packing.name == "trajectory"
    if trees and cfg.model.attn_implementation.startswith("flash"):
        raise TltrainError(
            f"model.attn_implementation={cfg.model.attn_implementation} has no masks of one's own, which "
            "stage.packing=trajectory needs: sdpa, or stage.packing=turn"
        )
    kind = {"ppo": transformers.TrainingArguments, "rloo": trl.RLOOConfig, "grpo": trl.GRPOConfig}[algorithm]
    ours: dict[str, Any] = {"remove_unused_columns": False}
    if algorithm != "ppo":
        ours |= {
            "beta": cfg.stage.kl,
            "temperature": cfg.stage.temperature,
            "max_completion_length": cfg.stage.max_new_tokens,
        }
        if not cfg.stage.do_sample:
            raise TltrainError(f"stage.do_sample=false: {algorithm} compares sampled calls; stage.algorithm=ppo can")
    return training_runs.library_arguments(cfg, kind, folder, device, bf16, **ours)


def make_trainer(prepared: TrainingRun, trees: list[PromptTree], reward: RewardSignal, callbacks: Sequence[Any]) -> Any:
    """The algorithm's trainer."""
    stage, encoder, arguments = prepared.cfg.stage, prepared.encoder, prepared.arguments
    if stage.algorithm.name != "ppo":
        from tltrain.training.group import TRAINERS

        trainer = TRAINERS[stage.algorithm.name]
        return trainer(
            prepared.model, arguments, trees, tokenizer=encoder.tokenizer, reward=reward, callbacks=callbacks
        )
    from tltrain.training.ppo import PPOTrainer, Settings
    from tltrain.training.rollout import Prompts, Sampling

    settings = Settings(
        gamma=stage.gamma,
        lam=stage.lam,
        clip=stage.clip,
        value_clip=stage.value_clip,
        reward_clip=stage.reward_clip,
        ppo_epochs=stage.ppo_epochs,
        critic_learning_rate=stage.critic.learning_rate,
        generation_batch_size=stage.generation_batch_size,
    )
    sampling = Sampling(
        max_new_tokens=stage.max_new_tokens,
        temperature=stage.temperature if stage.do_sample else None,
        eos_id=encoder.eos_id,
        pad_id=encoder.tokenizer.pad_token_id,
    )
    asked = Prompts(trees, sampling, encoder)
    models = load_models(
        prepared.cfg, prepared.base, prepared.model, lambda: first_value(prepared, asked, reward.judge)
    )
    return PPOTrainer(models, arguments, asked, reward=reward, settings=settings, callbacks=callbacks)


def load_models(cfg: DictConfig, path: str, policy: Any, first_reward: Callable[[], float]) -> Models:
    """The models of PPO.

    Args:
        path: of the policy, from which critic and reference are loaded anew.
        first_reward: gives what the policy earns before it learns, for a critic whose head begins at 0.
    """
    from tltrain.models import adapters, devices
    from tltrain.training.actor_critic import Models, expect, new_critic

    own, dtype = cfg.stage.critic, devices.weights_dtype(cfg.model)
    with terminal.status("loading the critic"):
        critic = new_critic(
            own.path or path,
            "sft" if own.path else own.init.name,
            dtype=dtype,
            attn_implementation=cfg.model.attn_implementation,
            trust_remote_code=cfg.model.trust_remote_code,
        ).to(policy.device)
    if own.init.name == "sft" and not own.path:
        mean = first_reward()
        if math.isfinite(mean):  # else the training says which reward is not
            expect(critic, mean)
    critic = adapters.adapted(critic, cfg.model, "TOKEN_CLS")
    # An adapter can be switched off: then the policy is its own reference.
    reference = None if cfg.model.lora.r else loading.load_model(path, cfg.model, dtype, policy.device)
    return Models(policy, critic, reference)


def first_value(prepared: TrainingRun, asked: Prompts, judge: Callable[[Sample, str], GradedResponse]) -> float:
    """What the policy earns before it learns; of several processes the first samples for all."""
    from tltrain.training import engines
    from tltrain.training.actor_critic import mean_reward

    with terminal.status("sampling, for the critic to begin with the mean reward"), engines.whole(prepared.model):
        mean = 0.0
        if distributed.leads():
            mean = mean_reward(
                prepared.model,
                asked.trees,
                asked.sampling,
                lambda sample, tokens: judge(sample, asked.encoder.decode(tokens)).reward,
                bf16=prepared.arguments.bf16,
                seed=prepared.cfg.seed,
            )
        return distributed.share(mean)


class HeldOutEvaluation:
    """Held-out questions, answered greedily and graded: reward, and TS, PI, CF with intervals."""

    def __init__(self, cfg: DictConfig, encoder: Encoder, samples: list[Sample], judge: RewardFunction) -> None:
        self.cfg, self.encoder, self.samples, self.judge = cfg, encoder, samples, judge

    def __call__(self, model: Any, bf16: bool, description: str) -> dict[str, Any]:
        """`reward`, `ts`, `pi`, `cf` (percent), `n`, each metric's interval, outcomes, and every reward in order."""
        import torch

        from tltrain.inference import generation

        if not self.samples:
            return {"n": 0}
        with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
            texts = generation.generate(
                model,
                self.encoder,
                [self.encoder.prompt(sample) for sample in self.samples],
                generation.GenerationSettings(
                    self.cfg.stage.max_new_tokens, self.cfg.stage.eval_batch_size, description, together=True
                ),
            )
        judged = [self.judge(sample, text) for sample, text in zip(self.samples, texts, strict=True)]
        grades, rewards = [one.grade for one in judged], [one.reward for one in judged]
        levels = scoring.score(grades, self.cfg.seed)
        return {
            "reward": sum(rewards) / len(rewards),
            **{level: metric.value for level, metric in levels.items()},
            "n": len(rewards),
            "intervals": {level: [metric.low, metric.high] for level, metric in levels.items()},
            "outcomes": scoring.count_outcomes(grades),
            "rewards": rewards,
        }

    def once(self, path: Path, model: Any, bf16: bool, description: str) -> dict[str, Any]:
        """The same, kept in `path` for a run that is resumed."""
        from tltrain.training import engines

        found = distributed.share(json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None)
        if found is None:
            with engines.whole(model):
                found = self(model, bf16, description)
            runs.write_json(path, found)
        return found


def last_step(logs: list[dict[str, float]]) -> dict[str, float]:
    """What the last step logged, without what it shares with the whole run."""
    steps = [entry for entry in logs if "reward" in entry]
    return training_runs.known({f"last_{name}": steps[-1][name] for name in ("reward", "kl", "entropy") if steps})
