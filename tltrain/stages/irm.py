"""stage=irm: reinforcement learning of tool calls with a reward that depends on the kind of error.

    python -m tltrain stage=irm model.path=outputs/pkt/TIME/model data=rotbench data.path=FOLDER
    python -m tltrain stage=irm stage.algorithm=grpo model.path=...            TRL's GRPO, same prompts, same reward
    python -m tltrain stage=irm stage.algorithm=rejection model.path=...       SFT on sampled calls that are correct
    python -m tltrain stage=irm hydra.run.dir=FOLDER stage.resume=true ...     resume after a stop

Every learnable call is a prompt (its history) with a golden call; the policy samples a call, and `grading` judges it.
With `stage.rollout=conversation` it samples whole conversations in an environment (`irm_conversations`).
Writes `model/` (as stage=sft), `history.jsonl` and `rewards.png` (reward and shares of grades over steps),
`samples.jsonl` (sampled next to golden calls), and `metrics.json` with reward and TS, PI, CF on held-out trajectories
before and after training.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from tltrain import config, plan, tracking
from tltrain.entry import formats
from tltrain.errors import TltrainError
from tltrain.evaluation.transcripts import TRANSCRIPTS
from tltrain.models import loading
from tltrain.runtime import distributed, runs, terminal
from tltrain.stages import held_out_evaluation, irm_conversations, rejection_sampling, supervised, training_runs
from tltrain.stages.irm_prompts import of_calls, prompts, warn_of_names_not_on_offer, with_answer_limit
from tltrain.stages.training_runs import TrainingRun
from tltrain.tokens.native import NativeEncoder
from tltrain.tokens.prompts import PromptTree
from tltrain.tracking import names
from tltrain.training.arguments import configured_arguments

if TYPE_CHECKING:
    from tltrain.tokens.encoder import Encoder
    from tltrain.training.actor_critic import Models
    from tltrain.training.conversation_rollout import Conversations
    from tltrain.training.ppo import Settings
    from tltrain.training.reward_function import RewardSignal
    from tltrain.training.rollout import Sampling
    from tltrain.trajectory import Sample

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
        cfg,
        folder,
        training_arguments,
        leftovers=("samples.jsonl", TRANSCRIPTS, "before.json", rejection_sampling.SAMPLED),
        learns_data=not (conversing := irm_conversations.is_rollout(cfg)),
    )
    model, bf16 = prepared.model, prepared.bf16
    encoder, cfg = prepared.encoder, with_possible_packing(cfg, model)
    check_thoughts(cfg, encoder)
    judge = reward_function.RewardFunction(
        pricing.TableReward() if conversing else pricing.configured(cfg.reward, cfg.stage.matching),
        cfg.stage.matching.name,
        several_calls=encoder.reads_tokens,
    )
    asked: list[PromptTree] | Conversations
    if conversing:
        cfg, asked = irm_conversations.conversations(cfg, prepared, sampling)
        told = irm_conversations.report(cfg, asked)
    else:
        abstaining = pricing.prices_abstention(judge.price)
        asked, report = prompts(cfg, prepared.train, prepared.held_out, encoder, generation.context(model), abstaining)
        cfg = with_answer_limit(cfg, report.max_new_tokens)
        told = asdict(report)
        log.info(
            "irm: %d prompts in %d trees, %d tokens; a sampled call has at most %d tokens",
            *(report.prompts, len(asked), report.tokens, report.max_new_tokens),
        )
        log.info("%s", of_calls(cfg, prepared.arguments, asked, report))
        if cfg.stage.names == config.Names.offered:
            warn_of_names_not_on_offer(asked)
        plan.announce(cfg, model.config, asked)
    evaluate = held_out_evaluation.HeldOutEvaluation(cfg, encoder, prepared.held_out, judge)
    before = evaluate.cached(folder / "before.json", model, bf16, "answering held-out questions beforehand")

    with tracking.job(cfg, folder) as tracker:
        tracker.metrics(names.of_held_out_evaluation("before", before))
        samples = reward_function.SampleLog(
            folder / "samples.jsonl", cfg.stage.samples_every, cfg.stage.samples, tracker.table
        )
        listeners: list[Any] = [samples, reward_function.FirstRollout()]
        price: Any = judge
        if not isinstance(asked, list):
            price = irm_conversations.judge(cfg, asked.world.golden)
            shown = irm_conversations.ConversationLog(folder, samples, asked.world.golden)
            listeners = [shown, irm_conversations.FirstConversations(reward_function.UNREADABLE)]
        if samples.path.is_file() and prepared.resume_from:  # else there is no log, or no checkpoint to resume from
            listeners[0].forget_after(step_of(Path(prepared.resume_from)))
        kl = KlControl(cfg.stage.kl, cfg.stage.kl_limit, cfg.stage.on_kl_limit.name)
        callbacks = [
            Progress(f"training (irm, {cfg.stage.algorithm.name})", {"reward": "reward", "kl": "kl", "loss": "loss"}),
            *tracker.callbacks(),
        ]
        signal = reward_function.RewardSignal(price, kl, reward_function.call_each(*listeners))
        with training_runs.library_errors():
            start = time.process_time()
            trainer, sampled = make_trainer(replace(prepared, cfg=cfg), asked, signal, callbacks)
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
            if distributed.leads():
                runs.readable_by_umask(folder / "critic")
        tracker.metrics(names.of_held_out_evaluation("after", after))
        logs = trainer.state.log_history
        results = {
            "train": training_runs.finite(outcome.metrics) | told | sampled | last_step(logs),
            "costs": trainer.costs(),
            "steps": trainer.state.global_step,
            "stopped": trainer.stopped,
            "before": before,
            "after": after,
        }
        training_runs.write_card(prepared, results)
        tracker.artifact("model", folder / "model")
    training_runs.write_history(logs, folder)
    if conversing:
        irm_conversations.warn_of_failures(results["costs"])
        shown.page(f"stage=irm: conversations in {folder.name}")
    return training_runs.finish(prepared, results)


def with_possible_packing(cfg: DictConfig, model: Any) -> DictConfig:
    """Return the configuration, with one prompt per sample if the model cannot compute several responses of a tree.

    Only PPO computes them in the model that is trained; `rejection` checks for itself, and TRL's algorithms have no
    trees.
    """
    from tltrain.training import tree_mask

    if not has_trees(cfg) or not (why := tree_mask.obstacle(model)):
        return cfg
    log.info("stage.packing=turn instead of trajectory: %s", why)
    own = cfg.copy()
    own.stage.packing = config.Packing.turn
    return own


def has_trees(cfg: DictConfig) -> bool:
    """Return whether a row of the update may have several branches."""
    own_loop = cfg.stage.algorithm.name == "ppo" or irm_conversations.is_rollout(cfg)
    return own_loop and cfg.stage.packing.name == "trajectory"


def check_thoughts(cfg: DictConfig, encoder: Encoder) -> None:
    """Raise a TltrainError if `stage.learn_thoughts=false` has no effect: `format=auto` may choose the TL format."""
    if not cfg.stage.learn_thoughts and not isinstance(encoder, NativeEncoder):
        raise TltrainError(formats.NO_THOUGHTS)


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
    if has_trees(cfg) and cfg.model.attn_implementation.startswith("flash"):
        raise TltrainError(
            f"model.attn_implementation={cfg.model.attn_implementation} takes no custom attention masks, which "
            "stage.packing=trajectory needs: sdpa, or stage.packing=turn"
        )
    if irm_conversations.is_rollout(cfg):
        algorithm = "ppo"  # the same loop, whatever the conversations are compared with
    kind = {"ppo": transformers.TrainingArguments, "rloo": trl.RLOOConfig, "grpo": trl.GRPOConfig}[algorithm]
    if algorithm == "rloo" and not cfg.stage.learn_thoughts:
        raise TltrainError("stage.learn_thoughts=false: TRL's RLOO learns whole answers: stage.algorithm=ppo or grpo")
    ours: dict[str, Any] = {"remove_unused_columns": False}
    if algorithm != "ppo":
        if cfg.stage.names == config.Names.offered:
            raise TltrainError(f"stage.names=offered: {algorithm} samples by TRL's own means; stage.algorithm=ppo can")
        ours |= {"beta": cfg.stage.kl, "temperature": cfg.stage.temperature}
        if not cfg.stage.do_sample:
            raise TltrainError(f"stage.do_sample=false: {algorithm} compares sampled calls; stage.algorithm=ppo can")
    if algorithm == "grpo" and configured_arguments(cfg).get("loss_type") is None:
        ours["loss_type"] = {"tokens": "dapo", "responses": "grpo"}[cfg.stage.loss_mean.name]  # TRL's names
    return training_runs.library_arguments(cfg, kind, folder, device, bf16, **ours)


def make_trainer(
    prepared: TrainingRun,
    asked: list[PromptTree] | Conversations,
    reward: RewardSignal,
    callbacks: Sequence[Any],
) -> tuple[Any, dict[str, int]]:
    """Make the algorithm's trainer; return also counts of what was sampled before the training."""
    stage, encoder, arguments = prepared.cfg.stage, prepared.encoder, prepared.arguments
    if not isinstance(asked, list):
        from tltrain.training.conversation_ppo import ConversationPPO
        from tltrain.training.conversation_ppo import mean_return as mean_of

        own = settings(prepared.cfg)

        def mean_return() -> float:
            seed = prepared.cfg.seed
            return mean_of(prepared.model, asked, reward.judge, bf16=arguments.bf16, seed=seed, settings=own)

        models = load_models(prepared.cfg, prepared.base, prepared.model, lambda: initial_value(prepared, mean_return))
        return ConversationPPO(models, arguments, asked, reward=reward, settings=own, callbacks=callbacks), {}
    if stage.algorithm.name in ("rloo", "grpo"):
        from tltrain.training.group import TRAINERS

        arguments.max_completion_length = stage.max_new_tokens  # known only after tokenizing the data
        trainer = TRAINERS[stage.algorithm.name]
        return trainer(
            prepared.model,
            arguments,
            asked,
            encoder=encoder,
            reward=reward,
            learn_thoughts=stage.learn_thoughts,
            callbacks=callbacks,
        ), {}
    from tltrain.training.ppo import PPOTrainer
    from tltrain.training.rollout import Prompts

    given = Prompts(asked, sampling(prepared), encoder)
    if stage.algorithm.name == "rejection":
        return rejection_sampling.trainer(prepared, given, reward.judge, callbacks)

    own = settings(prepared.cfg)

    def clipped(sample: Sample, prompt: Sequence[int], tokens: list[int]) -> float:
        found = given.graded_response(reward.judge, sample, prompt, tokens).reward
        return min(max(found, -own.reward_clip), own.reward_clip)

    def mean() -> float:
        from tltrain.training.actor_critic import mean_reward

        return mean_reward(
            prepared.model,
            given.trees,
            given.sampling,
            clipped,
            bf16=arguments.bf16,
            seed=prepared.cfg.seed,
        )

    models = load_models(prepared.cfg, prepared.base, prepared.model, lambda: initial_value(prepared, mean))
    return PPOTrainer(models, arguments, given, reward=reward, settings=own, callbacks=callbacks), {}


def sampling(prepared: TrainingRun) -> Sampling:
    """Return the sampling settings of a training run."""
    from tltrain.training.rollout import Sampling

    stage, encoder = prepared.cfg.stage, prepared.encoder
    return Sampling(
        max_new_tokens=stage.max_new_tokens,
        temperature=stage.temperature if stage.do_sample else None,
        eos_id=encoder.eos_id,
        pad_id=encoder.tokenizer.pad_token_id,
        offered=held_out_evaluation.offered_names(prepared.cfg, encoder),
        other_ends=encoder.ends - {encoder.eos_id},
        learn_thoughts=stage.learn_thoughts,
    )


def settings(cfg: DictConfig) -> Settings:
    """Return the hyperparameters of PPO."""
    from tltrain.training.ppo import Settings

    stage = cfg.stage
    unclipped = math.inf if irm_conversations.is_rollout(cfg) else Settings.reward_clip
    return Settings(
        gamma=stage.gamma,
        lam=stage.lam,
        clip=stage.clip,
        value_clip=stage.value_clip,
        reward_clip=unclipped if stage.reward_clip is None else stage.reward_clip,
        ppo_epochs=stage.ppo_epochs,
        loss_mean=stage.loss_mean,
        critic_learning_rate=stage.critic.learning_rate,
        value_coefficient=stage.critic.coefficient if stage.critic.share else 1.0,
        generation_batch_size=stage.generation_batch_size,
    )


def load_models(cfg: DictConfig, path: str, policy: Any, first_reward: Callable[[], float]) -> Models:
    """Load the models of PPO.

    Args:
        path: of the policy, from which critic and reference are also loaded.
        first_reward: returns the policy's mean reward before training, for a critic whose head starts at 0.
    """
    from tltrain.models import adapters, devices
    from tltrain.training.actor_critic import Models, NoCritic, ValueHead, new_critic

    own, dtype = cfg.stage.critic, devices.weights_dtype(cfg.model)
    # With an adapter, the policy is its own reference: the adapter is switched off.
    unused = cfg.stage.kl == 0 and cfg.stage.kl_limit is None
    reference = None if cfg.model.lora.r or unused else loading.load_model(path, cfg.model, dtype, policy.device)
    if cfg.stage.algorithm.name != "ppo":  # conversations of a group are compared with one another
        return Models(policy, NoCritic(), reference)
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


def initial_value(prepared: TrainingRun, mean: Callable[[], float]) -> float:
    """Return the policy's mean reward before training, `mean()`; with several processes the first samples for all."""
    from tltrain.training import engines

    with terminal.status("sampling to initialize the critic with the mean reward"), engines.gathered(prepared.model):
        return distributed.share(mean() if distributed.leads() else 0.0)


def last_step(logs: list[dict[str, float]]) -> dict[str, float]:
    """Return reward, KL and entropy of the last logged step, as `last_*`."""
    steps = [entry for entry in logs if "reward" in entry]
    last = steps[-1] if steps else {}
    return training_runs.finite({f"last_{name}": last[name] for name in ("reward", "kl", "entropy") if name in last})
