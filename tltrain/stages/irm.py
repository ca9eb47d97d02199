"""stage=irm: reinforcement learning of tool calls with a reward that depends on the kind of error.

    python -m tltrain stage=irm model.path=outputs/pkt/TIME/model data=rotbench data.path=FOLDER
    python -m tltrain stage=irm stage.algorithm=grpo model.path=...            TRL's GRPO, same prompts, same reward
    python -m tltrain stage=irm stage.algorithm=rejection model.path=...       SFT on sampled calls that are correct
    python -m tltrain stage=irm hydra.run.dir=FOLDER stage.resume=true ...     resume after a stop

Every learnable call is a prompt (its history) with a golden call; the policy samples a call, and `grading` judges it.
Writes `model/` (as stage=sft), `history.jsonl` and `rewards.png` (reward and shares of grades over steps),
`samples.jsonl` (sampled next to golden calls), and `metrics.json` with reward and TS, PI, CF on held-out trajectories
before and after training.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from tltrain import config, plan, tracking
from tltrain.errors import TltrainError
from tltrain.models import loading
from tltrain.runtime import distributed, terminal
from tltrain.runtime.shares import share
from tltrain.stages import held_out_evaluation, rejection_sampling, supervised, training_runs
from tltrain.stages.training_runs import TrainingRun
from tltrain.tokens.prompts import (
    AnswerLimit,
    PromptReport,
    PromptTree,
    answer_lengths,
    answer_limit,
    prompt_trees,
    questions,
)
from tltrain.tracking import names
from tltrain.trajectory import Trajectory

if TYPE_CHECKING:
    from tltrain.tokens.encoder import Encoder
    from tltrain.training.actor_critic import Models
    from tltrain.training.reward_function import Judge, RewardSignal
    from tltrain.training.rollout import Prompts

log = logging.getLogger(__name__)


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the stage in `folder` and return what it wrote to `metrics.json`."""
    with terminal.status("loading torch, transformers and trl"):
        from tltrain.inference import generation
        from tltrain.models import devices
        from tltrain.training import engines, pricing, reward_function
        from tltrain.training.checkpoints import step_of
        from tltrain.training.kl import KlControl
        from tltrain.training.progress import Progress

    prepared = training_runs.prepare(
        cfg, folder, training_arguments, leftovers=("samples.jsonl", "before.json", rejection_sampling.SAMPLED)
    )
    model, bf16 = prepared.model, prepared.bf16
    judge = reward_function.RewardFunction(pricing.configured(cfg.reward, cfg.stage.matching), cfg.stage.matching.name)
    trees, report = prompts(cfg, prepared.train, prepared.held_out, prepared.encoder, generation.context(model))
    cfg = with_answer_limit(cfg, report.max_new_tokens)
    log.info(
        "irm: %d prompts in %d trees, %d tokens; a sampled call has at most %d tokens",
        *(report.prompts, len(trees), report.tokens, report.max_new_tokens),
    )
    log.info("%s", of_calls(cfg, prepared.arguments, trees, report))
    if cfg.stage.names == config.Names.offered:
        warn_of_names_not_on_offer(trees)
    plan.announce(cfg, model.config, trees)
    asked = [sample for item in prepared.held_out for _, sample in questions(item)][: cfg.stage.eval_size]
    evaluate = held_out_evaluation.HeldOutEvaluation(cfg, prepared.encoder, asked, judge)
    before = evaluate.cached(folder / "before.json", model, bf16, "answering held-out questions beforehand")

    with tracking.job(cfg, folder) as tracker:
        tracker.metrics(names.of_held_out_evaluation("before", before))
        samples = reward_function.SampleLog(
            folder / "samples.jsonl", cfg.stage.samples_every, cfg.stage.samples, tracker.table
        )
        if samples.path.is_file() and prepared.resume_from:  # else there is no log, or no checkpoint to resume from
            samples.forget_after(step_of(Path(prepared.resume_from)))
        kl = KlControl(cfg.stage.kl, cfg.stage.kl_limit, cfg.stage.on_kl_limit.name)
        callbacks = [
            Progress(f"training (irm, {cfg.stage.algorithm.name})", {"reward": "reward", "kl": "kl", "loss": "loss"}),
            *tracker.callbacks(),
        ]
        signal = reward_function.RewardSignal(
            judge, kl, reward_function.call_each(samples, reward_function.FirstRollout())
        )
        with training_runs.library_errors():
            start = time.process_time()
            trainer, sampled = make_trainer(replace(prepared, cfg=cfg), trees, signal, callbacks)
            if sampled:  # the calls that a PPO run samples in its training
                trainer.counts["processor_seconds"] += time.process_time() - start
                for name in ("sampled_calls", "sampled_tokens"):
                    trainer.counts[name] += sampled[name]
        outcome = training_runs.train(prepared, trainer)
        training_runs.check_loss(outcome.training_loss)
        with engines.gathered_for_generation(trainer) as unwrapped:
            after = evaluate(getattr(unwrapped, "policy", unwrapped), bf16, "answering held-out questions afterwards")

        unwrapped = trainer.accelerator.unwrap_model(trainer.model)
        training_runs.save_model(prepared, getattr(unwrapped, "policy", unwrapped), trainer)
        if cfg.stage.critic.save and hasattr(unwrapped, "critic"):
            engines.save(unwrapped.critic, trainer, folder / "critic", devices.weights_dtype(cfg.model))
        tracker.metrics(names.of_held_out_evaluation("after", after))
        tracker.artifact("model", folder / "model")
    logs = trainer.state.log_history
    training_runs.write_history(logs, folder)
    results = {
        "train": training_runs.finite(outcome.metrics) | asdict(report) | sampled | last_step(logs),
        "costs": trainer.costs(),
        "steps": trainer.state.global_step,
        "stopped": trainer.stopped,
        "before": before,
        "after": after,
    }
    return training_runs.finish(prepared, results)


def prompts(
    cfg: DictConfig,
    train: Sequence[Trajectory],
    held_out: Sequence[Trajectory],
    encoder: Encoder,
    context: int | None,
) -> tuple[list[PromptTree], PromptReport]:
    """Return the training prompts, and a report that also holds the answer limit (`max_new_tokens`).

    Args:
        held_out: their golden calls count for that limit too, since it applies to held-out questions.

    Raises:
        TltrainError: a prompt or its golden call does not fit, or there are no prompts.
    """
    stage = cfg.stage
    lengths = []
    if stage.max_new_tokens is None:
        asked = (sample for item in (*train, *held_out) for _, sample in questions(item))
        lengths = answer_lengths(asked, encoder)
    limit = answer_limit(lengths, stage.max_new_tokens, context, stage.max_prompt_length)
    room = (context or sys.maxsize) - limit
    if room < 1:
        raise TltrainError(
            f"stage.max_new_tokens={limit} leaves no room for a prompt: the model's context is {context} tokens"
        )
    max_length = min(room, stage.max_prompt_length or room)
    report = PromptReport(max_new_tokens=limit)
    trees = list(
        prompt_trees(
            terminal.track(train, "tokenizing"),
            encoder,
            packing=stage.packing.name,
            max_length=max_length,
            truncation=stage.truncation.name,
            report=report,
            answers=AnswerLimit(limit, stage.too_long_answer),
        )
    )
    if not trees:
        unanswerable = (
            f", {report.too_long_answer} because their golden call does not fit stage.max_new_tokens={limit}"
            if report.too_long_answer
            else ""
        )
        raise TltrainError(
            f"there are no prompts: {report.trajectories} trajectories, {report.nothing_to_ask} of them without a "
            f"learnable call, {report.too_long} prompts left out as too long{unanswerable}"
        )
    for line in report.losses(max_length):
        log.warning("%s", line)
    if report.too_long_answer:
        warn_of_too_long_answers(report, stage.too_long_answer.name)
    return trees, report


def of_calls(cfg: DictConfig, arguments: Any, trees: Sequence[PromptTree], report: PromptReport) -> str:
    """Describe how many answerable calls the data has, and about how many the training asks for."""
    answerable = report.prompts - (report.too_long_answer if cfg.stage.too_long_answer == "keep" else 0)
    found = f"irm: the data has {answerable:,} answerable calls"
    if cfg.stage.algorithm.name == "rejection":
        asked = cfg.stage.sampled_calls or report.prompts
        return f"{found}; {asked:,} are sampled (stage.sampled_calls), {asked / report.prompts:.2f} times each"
    if cfg.stage.algorithm.name != "ppo":
        return found
    rows = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    epochs, steps = arguments.num_train_epochs, arguments.max_steps
    if steps > 0:
        epochs = math.ceil(steps / cfg.stage.ppo_epochs) * rows / len(trees)
    else:
        steps = math.ceil(epochs * math.ceil(len(trees) / rows)) * cfg.stage.ppo_epochs
    return (
        f"{found}; {steps:,} steps ask about {epochs * report.prompts:,.0f}, {epochs:.2f} times each "
        "(stage.args.max_steps, num_train_epochs)"
    )


def warn_of_too_long_answers(report: PromptReport, too_long_answer: str) -> None:
    """Warn how many golden calls do not fit the answer limit, and how their prompts are treated."""
    skipped = too_long_answer == "skip"
    whole = report.prompts + report.too_long + (report.too_long_answer if skipped else 0)
    log.warning(
        "the golden call of %s prompts does not fit stage.max_new_tokens=%d, the longest has %d tokens: %s "
        "(stage.too_long_answer=%s); stage.max_new_tokens=%d makes room for all",
        share(report.too_long_answer, whole),
        *(report.max_new_tokens, report.longest_answer),
        "they are left out" if skipped else "they are kept, and no answer to them can be right",
        *(too_long_answer, report.longest_answer),
    )


def warn_of_names_not_on_offer(trees: Sequence[PromptTree]) -> None:
    """Warn how many golden calls name a tool that is not on offer, which `stage.names=offered` cannot sample."""
    samples = [sample for tree in trees for sample in tree.samples]
    missing = sum(sample.goldens[0].name not in {tool.name for tool in sample.tools} for sample in samples)
    if missing:
        log.warning(
            "the golden call of %s prompts names a tool that is not on offer: with stage.names=offered no answer to "
            "them can be right; stage.names=free samples any name",
            share(missing, len(samples)),
        )


def with_answer_limit(cfg: DictConfig, max_new_tokens: int) -> DictConfig:
    """Return the configuration with the answer limit that `prompts` determined."""
    own = cfg.copy()
    own.stage.max_new_tokens = max_new_tokens
    return own


def training_arguments(cfg: DictConfig, folder: Path, device: str, bf16: bool) -> Any:
    """Return the arguments of the algorithm's trainer as configured."""
    import transformers
    import trl

    algorithm = cfg.stage.algorithm.name
    if algorithm == "rejection":
        return supervised.training_arguments(cfg, folder, device, bf16)
    if cfg.hardware.fsdp and distributed.size() > 1:
        raise TltrainError("hardware.fsdp trains stage=sft and stage=pkt; for stage=irm: hardware=zero2 or zero3")
    if (critic := cfg.stage.critic).share and (critic.path or critic.save or critic.init.name != "sft"):
        raise TltrainError(
            "stage.critic.share=true: a value head is no model of its own; leave out stage.critic.path, init and save"
        )
    trees = algorithm == "ppo" and cfg.stage.packing.name == "trajectory"
    if trees and cfg.model.attn_implementation.startswith("flash"):
        raise TltrainError(
            f"model.attn_implementation={cfg.model.attn_implementation} takes no custom attention masks, which "
            "stage.packing=trajectory needs: sdpa, or stage.packing=turn"
        )
    kind = {"ppo": transformers.TrainingArguments, "rloo": trl.RLOOConfig, "grpo": trl.GRPOConfig}[algorithm]
    ours: dict[str, Any] = {"remove_unused_columns": False}
    if algorithm != "ppo":
        if cfg.stage.names == config.Names.offered:
            raise TltrainError(f"stage.names=offered: {algorithm} samples by TRL's own means; stage.algorithm=ppo can")
        ours |= {"beta": cfg.stage.kl, "temperature": cfg.stage.temperature}
        if not cfg.stage.do_sample:
            raise TltrainError(f"stage.do_sample=false: {algorithm} compares sampled calls; stage.algorithm=ppo can")
    if algorithm == "grpo":  # TRL's names for these means; rloo has only one
        ours["loss_type"] = {"tokens": "dapo", "responses": "grpo"}[cfg.stage.loss_mean.name]
    return training_runs.library_arguments(cfg, kind, folder, device, bf16, **ours)


def make_trainer(
    prepared: TrainingRun, trees: list[PromptTree], reward: RewardSignal, callbacks: Sequence[Any]
) -> tuple[Any, dict[str, int]]:
    """Make the algorithm's trainer; return also counts of what was sampled before the training."""
    stage, encoder, arguments = prepared.cfg.stage, prepared.encoder, prepared.arguments
    if stage.algorithm.name in ("rloo", "grpo"):
        from tltrain.training.group import TRAINERS

        arguments.max_completion_length = stage.max_new_tokens  # known only after tokenizing the data
        trainer = TRAINERS[stage.algorithm.name]
        return trainer(
            prepared.model, arguments, trees, tokenizer=encoder.tokenizer, reward=reward, callbacks=callbacks
        ), {}
    from tltrain.training.ppo import PPOTrainer, Settings
    from tltrain.training.rollout import Prompts, Sampling

    sampling = Sampling(
        max_new_tokens=stage.max_new_tokens,
        temperature=stage.temperature if stage.do_sample else None,
        eos_id=encoder.eos_id,
        pad_id=encoder.tokenizer.pad_token_id,
        offered=held_out_evaluation.offered_names(prepared.cfg, encoder),
    )
    asked = Prompts(trees, sampling, encoder)
    if stage.algorithm.name == "rejection":
        return rejection_sampling.trainer(prepared, asked, reward.judge, callbacks)
    settings = Settings(
        gamma=stage.gamma,
        lam=stage.lam,
        clip=stage.clip,
        value_clip=stage.value_clip,
        reward_clip=stage.reward_clip,
        ppo_epochs=stage.ppo_epochs,
        loss_mean=stage.loss_mean,
        critic_learning_rate=stage.critic.learning_rate,
        value_coefficient=stage.critic.coefficient if stage.critic.share else 1.0,
        generation_batch_size=stage.generation_batch_size,
    )
    models = load_models(
        prepared.cfg, prepared.base, prepared.model, lambda: initial_value(prepared, asked, reward.judge)
    )
    return PPOTrainer(models, arguments, asked, reward=reward, settings=settings, callbacks=callbacks), {}


def load_models(cfg: DictConfig, path: str, policy: Any, first_reward: Callable[[], float]) -> Models:
    """Load the models of PPO.

    Args:
        path: of the policy, from which critic and reference are also loaded.
        first_reward: returns the policy's mean reward before training, for a critic whose head starts at 0.
    """
    from tltrain.models import adapters, devices
    from tltrain.training.actor_critic import Models, ValueHead, new_critic

    own, dtype = cfg.stage.critic, devices.weights_dtype(cfg.model)
    # With an adapter, the policy is its own reference: the adapter is switched off.
    unused = cfg.stage.kl == 0 and cfg.stage.kl_limit is None
    reference = None if cfg.model.lora.r or unused else loading.load_model(path, cfg.model, dtype, policy.device)
    if own.share:
        head = ValueHead(policy.config.get_text_config().hidden_size).to(policy.device)
        return Models(policy, _with_initial_value(head, first_reward), reference)
    with terminal.status("loading the critic"):
        critic = new_critic(
            own.path or path,
            "sft" if own.path else own.init.name,
            dtype=dtype,
            attn_implementation=cfg.model.attn_implementation,
            trust_remote_code=cfg.model.trust_remote_code,
        ).to(policy.device)
    if own.init.name == "sft" and not own.path:
        critic = _with_initial_value(critic, first_reward)
    critic = adapters.add_adapter(critic, cfg.model, "TOKEN_CLS")
    return Models(policy, critic, reference)


def _with_initial_value(critic: Any, first_reward: Callable[[], float]) -> Any:
    from tltrain.training.actor_critic import set_initial_value

    mean = first_reward()
    if math.isfinite(mean):  # otherwise the training reports which reward is not finite
        set_initial_value(critic, mean)
    return critic


def initial_value(prepared: TrainingRun, asked: Prompts, judge: Judge) -> float:
    """Return the policy's mean reward before training; with several processes the first samples for all."""
    from tltrain.training import engines
    from tltrain.training.actor_critic import mean_reward

    with terminal.status("sampling to initialize the critic with the mean reward"), engines.gathered(prepared.model):
        mean = 0.0
        if distributed.leads():
            mean = mean_reward(
                prepared.model,
                asked.trees,
                asked.sampling,
                lambda sample, tokens: (
                    judge(sample, asked.encoder.decode(tokens), tokens[-1] == asked.sampling.eos_id).reward
                ),
                bf16=prepared.arguments.bf16,
                seed=prepared.cfg.seed,
            )
        return distributed.share(mean)


def last_step(logs: list[dict[str, float]]) -> dict[str, float]:
    """Return reward, KL and entropy of the last logged step, as `last_*`."""
    steps = [entry for entry in logs if "reward" in entry]
    last = steps[-1] if steps else {}
    return training_runs.finite({f"last_{name}": last[name] for name in ("reward", "kl", "entropy") if name in last})
