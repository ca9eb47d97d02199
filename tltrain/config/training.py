"""The keys of the stages that train, sft, pkt and irm: `stage.KEY`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from omegaconf import MISSING

from tltrain.config.choices import (
    Algorithm,
    CriticInit,
    KeyTokens,
    LossMean,
    MaeRule,
    Mask,
    Matching,
    Names,
    OnKlLimit,
    Packing,
    PromptTruncation,
    Rollout,
    SupervisedPacking,
    TooLongAnswer,
    Truncation,
)
from tltrain.config.keys import key
from tltrain.config.limits import GENERATED, ROWS, TOKENS
from tltrain.config.meanings import KEY_TOKENS, MASK, NAME, NAMES, RULE

# `Optional[...]` because OmegaConf reads the annotations at run time.
# ruff: noqa: UP045

RESUME = "continue from the last complete checkpoint in hydra.run.dir"
KEEP_CHECKPOINTS = "keep the checkpoints after the run has succeeded"
PPO = {"algorithm": ("ppo",)}
CALL = {"rollout": ("call",)}
CONVERSATION = {"rollout": ("conversation",)}
OWN_LOOP = PPO | CONVERSATION


@dataclass
class SupervisedStage:
    name: str = key(MISSING, NAME)
    mae: bool = key(MISSING, "leave out calls that the tool answered with an error (MAE)")
    rule: MaeRule = key(MaeRule.paper, RULE)
    mask: Mask = key(Mask.call, MASK)
    w_max: Optional[float] = key(
        MISSING, "largest weight of a key token (PKT); null: every token has weight 1", least=1, most=1_000_000
    )
    key_tokens: KeyTokens = key(KeyTokens.paper, KEY_TOKENS)
    packing: SupervisedPacking = key(
        SupervisedPacking.trajectory,
        "what one sample contains; trajectory: all turns of a trajectory; turn: one turn, as in the released code; "
        "prefix_tree: all trajectories with a common prefix, which is computed once; auto: prefix_tree if that saves "
        "tokens, otherwise trajectory",
    )
    tree_size: int = key(
        16,
        "maximum number of trajectories in a sample of packing=prefix_tree; a sample is one row of a batch",
        least=1,
        most=ROWS,
        only={"packing": ("prefix_tree", "auto")},
    )
    truncation: Truncation = key(
        Truncation.drop_oldest_turns,
        "what to do with a sample of more than args.max_length tokens; drop_oldest_turns keeps tools and query; error "
        "stops; skip leaves the sample out",
    )
    resume: bool = key(False, RESUME)
    keep_checkpoints: bool = key(False, KEEP_CHECKPOINTS)
    args: Any = key({}, "training arguments, which override hardware.args and model.args", library="trl.SFTConfig")


@dataclass
class Critic:
    init: CriticInit = key(
        CriticInit.sft, "initial weights of the critic; sft: the policy's, with a zero head; random: random weights"
    )
    path: Optional[str] = key(None, "folder of a critic saved by an earlier run, used instead of init")
    learning_rate: float = key(MISSING, "learning rate of the critic, or of the value head with share=true", least=0)
    save: bool = key(False, "save the critic beside the model, as critic/")
    share: bool = key(
        False,
        "predict values with a head on the policy's own hidden states instead of a second model: less time and memory, "
        "but a different method, since the value loss also changes the policy",
    )
    coefficient: float = key(
        0.1, "weight of the value loss relative to the policy loss", least=0, most=1000, only={"share": ("true",)}
    )


@dataclass
class AlgorithmArguments:
    ppo: Any = key({}, "arguments for algorithm=ppo", library="transformers.TrainingArguments")
    rejection: Any = key({}, "arguments for algorithm=rejection", library="trl.SFTConfig")
    rloo: Any = key({}, "arguments for algorithm=rloo", library="trl.RLOOConfig")
    grpo: Any = key({}, "arguments for algorithm=grpo", library="trl.GRPOConfig")


@dataclass
class IrmStage:
    name: str = key("irm", NAME)
    algorithm: Algorithm = key(
        Algorithm.ppo,
        "reinforcement learning algorithm; rloo and grpo are TRL's trainers, without a critic; rejection samples calls "
        "once, keeps the correct ones, and trains on them like stage=sft",
    )
    rollout: Rollout = key(
        Rollout.call,
        "what the policy samples; call: one call after each history of the data; conversation: whole conversations in "
        "environment, whose tools run, with a reward of conversations (reward=conversation)",
    )
    environment: dict[str, Any] = key(
        {},
        "where conversations are held: a choice of conf/benchmark with multi=true as `name` and other keys of it, such "
        "as {name: bfcl_multi, path: FOLDER}, or a class of your own as `_target_` with its keys; without a name "
        "toolworld_multi; toolworld's split is train unless it is given",
        only=CONVERSATION,
    )
    group_size: Optional[int] = key(
        None,
        "conversations about each task of a step, in one row; null: 1 (ppo), or 4 (rloo, grpo), which compare them",
        least=1,
        most=ROWS,
        only=CONVERSATION,
    )
    mae: bool = key(True, "do not ask for calls that the tool answered with an error (MAE)")
    rule: MaeRule = key(MaeRule.paper, RULE)
    packing: Packing = key(
        Packing.trajectory,
        "what one row contains; trajectory: all calls of a trajectory, or all conversations about a task, whose common "
        "history is computed once; turn: one call",
    )
    truncation: PromptTruncation = key(
        PromptTruncation.drop_oldest_turns,
        "what to do with a prompt that is too long; drop_oldest_turns keeps tools and query; left cuts off its "
        "beginning, as in the released code; error stops; skip leaves the prompt out",
        only=CALL,
    )
    max_prompt_length: Optional[int] = key(
        None, "maximum length of a prompt in tokens; null: the context minus max_new_tokens", least=1, most=TOKENS
    )
    max_new_tokens: Optional[int] = key(
        None,
        "maximum length of a sampled call in tokens, end token included; null: the data's longest golden call plus a "
        "quarter, limited to the context minus max_prompt_length, or to half of the context",
        least=1,
        most=TOKENS,
    )
    too_long_answer: TooLongAnswer = key(
        TooLongAnswer.skip,
        "what to do with a prompt that cannot be answered because its golden call exceeds max_new_tokens; skip leaves "
        "the prompt out; error stops; keep asks it anyway, as in the released code",
        only=CALL,
    )
    do_sample: bool = key(True, "sample the calls; false: greedy decoding")
    temperature: float = key(0.7, "sampling temperature", above=0, most=100, hint="greedy sampling is do_sample=false")
    learn_thoughts: bool = key(
        True,
        "treat the thought of a sampled answer as response tokens, which are learned and incur the KL penalty; false: "
        "as context, like the prompt; thoughts are never graded; false needs a native format, and does not work with "
        "rloo",
    )
    names: Names = key(
        Names.free, f"{NAMES}, in rollouts, updates and held-out questions; needs algorithm=ppo or rollout=conversation"
    )
    kl: float = key(0.3, "coefficient of the KL penalty per token, against the reference model", least=0)
    kl_limit: Optional[float] = key(
        None,
        "upper limit of the KL divergence in nats, summed over a response and averaged over responses; null: no limit",
        least=0,
    )
    on_kl_limit: OnKlLimit = key(
        OnKlLimit.stop, "what to do above kl_limit; stop: end the training; adapt: raise kl until it is below"
    )
    gamma: float = key(1.0, "discount factor", least=0, most=1, only=PPO)
    lam: float = key(0.95, "GAE lambda", least=0, most=1, only=PPO)
    clip: float = key(0.2, "PPO ratio clip range", least=0, only=OWN_LOOP)
    value_clip: float = key(0.2, "clip range of the value update", least=0, only=PPO)
    reward_clip: Optional[float] = key(
        None,
        "clip range of the reward of a call, or in conversations of a turn, before the KL penalty; null: 5 for calls, "
        "as in the released code, and none for turns, whose prices are sums",
        least=0,
        only=OWN_LOOP,
    )
    ppo_epochs: int = key(1, "optimizer steps on each rollout", least=1, most=1000, only=OWN_LOOP)
    loss_mean: LossMean = key(
        LossMean.tokens,
        "how the loss of a step is averaged; tokens: over all response tokens (for grpo TRL's default loss_type, "
        "dapo); responses: over the responses, each by the mean of its tokens, as in the released code (grpo's "
        "loss_type grpo); args.loss_type chooses another loss of grpo; rloo always averages over responses",
        only={"algorithm": ("ppo", "grpo"), **CONVERSATION},
    )
    critic: Critic = key(Critic, "the critic of PPO", only=PPO)
    sampled_calls: Optional[int] = key(
        None,
        "number of calls to sample, in the order of algorithm=ppo, repeating the same order in further passes over the "
        "prompts; null: one for each prompt",
        least=1,
        most=GENERATED,
        only={"algorithm": ("rejection",)},
    )
    generation_batch_size: Optional[int] = key(
        None,
        "number of calls sampled at the same time; null: all of an optimizer step (ppo), or 32 (rejection)",
        least=1,
        most=ROWS,
        only={"algorithm": ("ppo", "rejection"), **CONVERSATION},
    )
    matching: Matching = key(
        Matching.strict, 'comparison of argument values; strict: equal as JSON; lenient: 1, 1.0 and "1" are equal'
    )
    eval_size: Optional[int] = key(
        100, "number of held-out questions asked before and after the training; null: all; 0: none", least=0
    )
    eval_batch_size: int = key(8, "number of held-out questions asked at the same time", least=1, most=ROWS)
    samples_every: int = key(10, "optimizer steps between two entries of samples.jsonl", least=1)
    samples: int = key(8, "number of calls in an entry of samples.jsonl", least=0)
    resume: bool = key(False, RESUME)
    keep_checkpoints: bool = key(False, KEEP_CHECKPOINTS)
    algorithm_args: dict[str, Any] = key(
        {}, "training arguments for each algorithm, which args overrides", schema=AlgorithmArguments
    )
    args: Any = key(
        {}, "arguments of the algorithm's trainer, which override hardware.args and model.irm.args", library="algorithm"
    )
