"""The keys of each stage: `stage.KEY`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from omegaconf import MISSING

from tltrain.config.choices import (
    Algorithm,
    CriticInit,
    IsolationLevel,
    KeyTokens,
    Level,
    LossMean,
    MaeRule,
    Mask,
    Matching,
    Names,
    OnKlLimit,
    Packing,
    Planned,
    PromptTruncation,
    Prune,
    Rollout,
    Rule,
    Strategy,
    SupervisedPacking,
    TooLongAnswer,
    Truncation,
    WordsBeforeCall,
    Write,
)
from tltrain.config.keys import key

# `Optional[...]` because OmegaConf reads the annotations at run time.
# ruff: noqa: UP045

GENERATED = 10_000_000
"""Maximum number of generated trajectories or questions."""
TOKENS = 100_000_000
"""Maximum number of tokens of a prompt, an answer or a sample."""
ROWS = 1_000_000
"""Maximum number of rows of a batch."""

CERTIFIED = 20
"""Number of prompts that a served model is asked if `certify` is not set."""

NAME = "name of the stage, which `stage=` chooses"
RULE = (
    "which calls MAE leaves out; paper, strict: those whose answer is an error by this rule; controls: failed, errors: "
    "those that toolworld knows to have failed, or to be wrong; random: as many right calls as paper, drawn with seed"
)
COUNTED = "rule that says which tool answers are errors"
WORDS_BEFORE_CALL = (
    "a thought, a sentence or a code fence before a call; error: the call counts as unreadable; ignore: the call is "
    "read without it"
)
KEY_TOKENS = (
    "tokens that get the weight of a key token, if w_max is set; paper: the key tokens; name: also the rest of the "
    "called tool's name; shuffled: as many random tokens of the turn, as a control"
)
NAMES = (
    "tool names that can be generated; free: any; offered: only those of the tools on offer, as in servers' guided "
    "decoding"
)
RESUME = "continue from the last complete checkpoint in hydra.run.dir"
MASK = "what MAE leaves out if a message makes several calls; call: the failed calls; message: the whole message"
KEEP_CHECKPOINTS = "keep the checkpoints after the run has succeeded"
SUPERVISED = "settings of the supervised stage, as `stage.KEY` of stage=pkt"
RL = "settings of the reinforcement learning stage, as `stage.KEY` of stage=irm"
PPO = {"algorithm": ("ppo",)}
CALL = {"rollout": ("call",)}
CONVERSATION = {"rollout": ("conversation",)}
OWN_LOOP = PPO | CONVERSATION
EVAL = "settings of the evaluation, as `stage.KEY` of stage=eval"


@dataclass
class DemoSizes:
    train_size: int = key(MISSING, "number of toolworld trajectories to train on", least=1, most=GENERATED)
    test_size: int = key(
        MISSING, "number of toolworld questions, about tools that are not in the training data", least=1, most=GENERATED
    )
    max_new_tokens: int = key(MISSING, "maximum length of a generated call in tokens", least=1, most=TOKENS)
    batch_size: int = key(MISSING, "number of prompts answered at the same time", least=1, most=ROWS)
    irm_steps: int = key(MISSING, "number of IRM rollouts, with an optimizer step on each", least=1)
    parallel: int = key(
        MISSING,
        "maximum number of stages that run at the same time, each with its share of the cores and with a model of its "
        "own in memory",
        least=1,
        most=1000,
    )


@dataclass
class DemoStage(DemoSizes):
    name: str = key("demo", NAME)
    args: Any = key({}, "arguments of both supervised training runs", library="trl.SFTConfig")


@dataclass
class MaeStage:
    name: str = key("mae", NAME)
    rule: MaeRule = key(MaeRule.paper, RULE)
    mae: bool = key(True, "do not learn calls with errors; false: drop only turns without an answer")
    write: Write = key(
        Write.trajectories,
        "file to write; trajectories: train.jsonl; turns: the released mae_data.json; raw: the paper's raw_data.json; "
        "trl, ms_swift, axolotl, llama_factory, verl, openai: that trainer's format, marked with what to learn",
    )


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


@dataclass
class EvalStage:
    name: str = key("eval", NAME)
    predictions: Optional[str] = key(
        None,
        "file of answers to score instead of generating them, lines with `prediction` (TL-format text) or `raw` (a "
        "model's text in the format of format=)",
    )
    compare: list[str] = key([], "two result folders to compare instead of generating and scoring answers")
    matching: Matching = key(
        Matching.strict, 'comparison of argument values; strict: equal as JSON; lenient: 1, 1.0 and "1" are equal'
    )
    words_before_call: WordsBeforeCall = key(WordsBeforeCall.error, WORDS_BEFORE_CALL)
    rule: Rule = key(
        Rule.strict,
        "rule that says which tool answers in conversations are errors (CE); toolworld needs no rule",
    )
    max_new_tokens: int = key(256, "maximum length of a generated answer in tokens", least=1, most=TOKENS)
    batch_size: int = key(16, "number of prompts answered at the same time", least=1, most=ROWS)
    names: Names = key(Names.free, NAMES)
    temperature: float = key(
        0.0,
        "sampling temperature; 0: greedy decoding; a repeated run with the same seed gives the same answers",
        least=0,
        most=100,
    )


@dataclass
class PredictStage:
    name: str = key("predict", NAME)
    max_new_tokens: int = key(512, "maximum length of a generated call in tokens", least=1, most=TOKENS)
    names: Names = key(Names.free, NAMES)
    words_before_call: WordsBeforeCall = key(WordsBeforeCall.error, WORDS_BEFORE_CALL)


@dataclass
class ChatStage:
    name: str = key("chat", NAME)
    tools: Optional[str] = key(
        None,
        "tools on offer; a Python file: its documented functions, which run in the sandbox; a JSON file with a list of "
        "tools, or with an object that has `tools`: you are asked for their answers; null: those of stage.history",
    )
    instructions: str = key("", "what the model is told before the conversation, besides the tools")
    history: Optional[str] = key(None, "file of a conversation to continue, such as chat.jsonl of an earlier run")
    max_turns: int = key(10, "maximum number of calls for one message of yours", least=1, most=10_000)
    max_output: int = key(4000, "maximum number of characters of a tool's answer in the history", least=1)
    max_new_tokens: int = key(512, "maximum length of a generated answer in tokens", least=1, most=TOKENS)
    names: Names = key(Names.free, NAMES)
    words_before_call: WordsBeforeCall = key(WordsBeforeCall.error, WORDS_BEFORE_CALL)
    temperature: float = key(0.0, "sampling temperature; 0: greedy decoding", least=0, most=100)
    rule: Rule = key(Rule.strict, COUNTED)
    isolation: IsolationLevel = key(
        IsolationLevel.auto,
        "minimum isolation of the functions of a Python file; auto: landlock; process: none",
    )
    network: bool = key(False, "let the functions of a Python file reach the network")
    time_limit: float = key(10.0, "time limit of a function in seconds", least=0.1, most=86_400)
    memory_limit: int = key(2048, "memory limit of the functions in MB", least=64, most=2**24)


@dataclass
class CertifyStage:
    name: str = key("certify", NAME)
    mae: bool = key(True, "do not ask for calls that the tool answered with an error (MAE)")
    rule: MaeRule = key(MaeRule.paper, RULE)


@dataclass
class InspectStage:
    name: str = key("inspect", NAME)
    mae: bool = key(True, "mark calls that the tool answered with an error (MAE)")
    rule: MaeRule = key(MaeRule.paper, RULE)
    mask: Mask = key(Mask.call, MASK)
    w_max: Optional[float] = key(
        9.0, "largest weight of a key token (PKT); null: every token has weight 1", least=1, most=1_000_000
    )
    key_tokens: KeyTokens = key(KeyTokens.paper, KEY_TOKENS)
    limit: int = key(3, "number of trajectories to show", least=1)


@dataclass
class CheckStage:
    name: str = key("check", NAME)
    examples: int = key(10, "number of examples of each finding", least=0, most=1000)


@dataclass
class PipelineStage:
    name: str = key("pipeline", NAME)
    mae: bool = key(
        True, "leave out calls that the tool answered with an error (MAE), in training and in the prompts of IRM"
    )
    pkt: bool = key(True, "give key tokens more weight (PKT)")
    irm: bool = key(True, "continue with reinforcement learning (IRM)")
    continued: Any = key(
        {},
        "arguments of a further supervised training run of the same kind, such as {max_steps: 80}, with which IRM is "
        "compared; only if irm=false; empty: none",
        library="trl.SFTConfig",
    )
    rule: MaeRule = key(MaeRule.paper, RULE)
    w_max: float = key(9.0, "largest weight of a key token, if pkt=true", least=1, most=1_000_000)
    key_tokens: KeyTokens = key(KeyTokens.paper, KEY_TOKENS.replace("w_max is set", "pkt=true"))
    benchmarks: list[Any] = key(
        ["toolworld"],
        "benchmarks to evaluate on: choices of conf/benchmark, or mappings with a choice as `name` and some of its "
        "keys, such as {name: rotbench, path: FOLDER, levels: [clean, union]}",
    )
    metric: Optional[str] = key(
        None, "metric that a sweeper optimizes; null: the mean of TS, PI and CF over all benchmarks"
    )
    supervised: Any = key(MISSING, SUPERVISED, schema=SupervisedStage)
    rl: Any = key(MISSING, RL, schema=IrmStage)
    eval: Any = key(MISSING, EVAL, schema=EvalStage)


@dataclass
class GateStage:
    name: str = key("gate", NAME)
    rule: MaeRule = key(MaeRule.strict, f"{COUNTED}: what MAE leaves out, and which logged calls are not golden")
    holdout: float = key(
        0.25, "share of the conversations that are held out: asked about and not trained on", above=0, below=1
    )
    customer: Optional[str] = key(
        None,
        "field of the records that names the customer, whose conversations all stay on one side; a.b: a nested field",
    )
    time: Optional[str] = key(
        None, "field of the records with the time of a conversation; the latest are held out; null: drawn by seed"
    )
    current: Optional[str] = key(
        None,
        "model in service, which the new one has to beat: a model folder or hub id, or endpoint, the server that "
        "source= describes; null: the base model",
    )
    new: Optional[str] = key(None, "folder of an existing model to judge; null: train the new model")
    sft: bool = key(True, "also train a model with standard SFT on all logged calls, and compare with it")
    irm: bool = key(False, "continue the new model's training with reinforcement learning (IRM)")
    w_max: float = key(9.0, "largest weight of a key token of the new model", least=1, most=1_000_000)
    key_tokens: KeyTokens = key(KeyTokens.paper, KEY_TOKENS.replace(", if w_max is set", ""))
    metric: Level = key(
        Level.cf, "metric that decides; ts: the right tool; pi: also the right parameters; cf: also the right values"
    )
    threshold: float = key(
        0.0,
        "percentage points by which the new model has to be better; below 0: by which it may be worse",
        least=-100,
        most=100,
    )
    certain: bool = key(
        True,
        "pass only if the difference exceeds the threshold beyond chance; false: if the measured difference does",
    )
    flips: int = key(
        20,
        "maximum number of questions shown that only one of the two models answers correctly, for each of the two",
        least=0,
    )
    max_new_tokens: Optional[int] = key(
        None,
        "maximum length of an answer in tokens; null: the longest golden call plus a quarter",
        least=1,
        most=TOKENS,
    )
    supervised: Any = key(MISSING, SUPERVISED, schema=SupervisedStage)
    rl: Any = key(MISSING, RL, schema=IrmStage)
    eval: Any = key(MISSING, EVAL, schema=EvalStage)


@dataclass
class PlanStage:
    name: str = key("plan", NAME)
    of: Planned = key(Planned.pkt, "stage to plan, whose settings are in supervised (sft, pkt), rl (irm) or eval")
    memory_gb: Optional[float] = key(
        None, "memory of a device in GiB; null: that of this machine", above=0, most=1_000_000
    )
    processes: Optional[int] = key(None, "number of processes; null: as hardware says", least=1, most=100_000)
    strategy: Optional[Strategy] = key(
        None,
        "how the processes divide the model; none: a whole copy on each; zero2, zero3, zero3_offload: DeepSpeed's "
        "ZeRO; fsdp: torch's FSDP; null: as hardware says",
    )
    length: Optional[int] = key(
        None, "tokens of a sample; null: those of the data, or the maximum allowed", least=1, most=TOKENS
    )
    tokens: Optional[float] = key(
        None, "tokens of the data, if it is not on this machine; the time is estimated from them", least=1
    )
    target_share: float = key(
        0.25, "share of the tokens that is predicted, if the data is not on this machine", least=0, most=1
    )
    calls: int = key(4, "calls of a trajectory (irm), if the data is not on this machine", least=1, most=ROWS)
    response: Optional[int] = key(
        None, "mean tokens of a sampled answer, to estimate the time; null: max_new_tokens", least=1, most=TOKENS
    )
    flops: Optional[float] = key(
        None, "sustained operations per second of a process; null: 40 % of the device's peak", least=1
    )
    bandwidth: Optional[float] = key(
        None,
        "sustained memory bandwidth of a process in bytes per second, which bounds sampling; null: the device's",
        least=1,
    )
    supervised: Any = key(MISSING, SUPERVISED, schema=SupervisedStage)
    rl: Any = key(MISSING, RL, schema=IrmStage)
    eval: Any = key(MISSING, EVAL, schema=EvalStage)


@dataclass
class CacheStage:
    name: str = key("cache", NAME)
    prune: Prune = key(
        Prune.none,
        "stage results to remove; none: only list them; unfinished: those that never finished; old: those that no job "
        "has used for older_than_days; all: every one",
    )
    older_than_days: float = key(
        30.0, "age in days from which prune=old removes a result", least=0, only={"prune": ("old",)}
    )
    folder: str = key("cache_runs", "folder below outputs/ for runs of this stage; outputs/cache is the cache itself")


@dataclass
class ReportStage:
    name: str = key("report", NAME)


@dataclass
class AnalyzeStage:
    name: str = key("analyze", NAME)
    rule: Rule = key(Rule.paper, COUNTED)
    mae: bool = key(True, "do not ask the models for calls that the tool answered with an error (MAE)")
    models: list[str] = key([], "model folders or hub ids to compare; base: the model that model= chooses")
    unseen: bool = key(False, "leave out trajectories whose query any of the models was trained on")
    results: list[str] = key([], "result folders of stage=eval whose errors to analyze")
