"""The keys of each stage: `stage.KEY`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from omegaconf import MISSING

from tltrain.config.choices import (
    Algorithm,
    CriticInit,
    ExportDtype,
    Gguf,
    KeyTokens,
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
"""Most trajectories or questions that are generated."""
TOKENS = 100_000_000
"""Most tokens of a prompt, an answer or a sample."""
ROWS = 1_000_000
"""Most rows of a batch."""

CERTIFIED = 20
"""Prompts that a served model is asked where `certify` says nothing."""

NAME = "name of the stage, which `stage=` chooses"
RULE = (
    "which calls MAE leaves out; paper, strict: those whose answer is an error by this rule; controls: failed, errors: "
    "those that toolworld knows to have failed, or to be wrong; random: as many right ones as paper, drawn by seed"
)
COUNTED = "rule that says which tool answers are errors"
WORDS_BEFORE_CALL = (
    "a thought, a sentence or a code fence before a call; error: the call counts as unreadable; ignore: it is read as "
    "if it stood alone"
)
KEY_TOKENS = (
    "tokens that get the weight of a key token, where w_max is given; paper: the key tokens; name: also the rest of "
    "the called tool's name; shuffled: as many random tokens of the turn, a control"
)
NAMES = (
    "names of tools that can be generated; free: any; offered: those of the tools on offer, as the guided decoding of "
    "servers does"
)
RESUME = "continue from the last complete checkpoint in hydra.run.dir"
MASK = (
    "what MAE leaves out where a message makes several calls; call: the calls that failed; message: all of the message"
)
KEEP_CHECKPOINTS = "keep the checkpoints after the run has ended well"
SUPERVISED = "settings of the supervised stage, as `stage.KEY` of stage=pkt"
RL = "settings of the reinforcement learning stage, as `stage.KEY` of stage=irm"
PPO = ("algorithm", ("ppo",))
EVAL = "settings of the evaluation, as `stage.KEY` of stage=eval"


@dataclass
class DemoSizes:
    train_size: int = key(MISSING, "number of toolworld trajectories to train on", least=1, most=GENERATED)
    test_size: int = key(
        MISSING, "number of toolworld questions, over tools that are not in the training data", least=1, most=GENERATED
    )
    max_new_tokens: int = key(MISSING, "longest generated call in tokens", least=1, most=TOKENS)
    batch_size: int = key(MISSING, "number of prompts answered at the same time", least=1, most=ROWS)
    irm_steps: int = key(MISSING, "number of IRM rollouts, with an optimizer step on each", least=1)


@dataclass
class DemoStage(DemoSizes):
    name: str = key("demo", NAME)
    args: Any = key({}, "arguments of both supervised trainings", library="trl.SFTConfig")


@dataclass
class MaeStage:
    name: str = key("mae", NAME)
    rule: MaeRule = key(MaeRule.paper, RULE)
    mae: bool = key(True, "mark calls with errors as not to be learned; false: drop only turns without an answer")
    write: Write = key(
        Write.trajectories,
        "file to write; trajectories: train.jsonl; turns: the released mae_data.json; raw: the paper's raw_data.json; "
        "trl, ms_swift, axolotl, llama_factory, verl, openai: what that trainer reads, with what it may learn",
    )


@dataclass
class SupervisedStage:
    name: str = key(MISSING, NAME)
    mae: bool = key(MISSING, "leave out calls that the tool answered with an error (MAE)")
    rule: MaeRule = key(MaeRule.paper, RULE)
    mask: Mask = key(Mask.call, MASK)
    w_max: Optional[float] = key(
        MISSING, "largest weight of a key token (PKT); null: every token weighs 1", least=1, most=1_000_000
    )
    key_tokens: KeyTokens = key(KeyTokens.paper, KEY_TOKENS)
    packing: SupervisedPacking = key(
        SupervisedPacking.trajectory,
        "what one sample holds; trajectory: all turns of a trajectory; turn: one turn, as released; prefix_tree: all "
        "trajectories with a common beginning, which is computed once; auto: prefix_tree where that saves tokens, "
        "else trajectory",
    )
    tree_size: int = key(
        16,
        "most trajectories in one sample of packing=prefix_tree; a sample is one row of a batch",
        least=1,
        most=ROWS,
        only=("packing", ("prefix_tree", "auto")),
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
    path: Optional[str] = key(None, "folder of a critic that an earlier run saved, used instead of init")
    learning_rate: float = key(MISSING, "learning rate of the critic, or of the value head with share=true", least=0)
    save: bool = key(False, "save the critic beside the model, as critic/")
    share: bool = key(
        False,
        "predict values by a head on the policy's own hidden states instead of a second model: less time and memory, "
        "but another method, as the value loss also changes the policy",
    )
    coefficient: float = key(
        0.1, "weight of the value loss beside the policy loss", least=0, most=1000, only=("share", ("true",))
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
        "once, keeps the correct ones, and trains on them as stage=sft does",
    )
    mae: bool = key(True, "do not ask for calls that the tool answered with an error (MAE)")
    rule: MaeRule = key(MaeRule.paper, RULE)
    packing: Packing = key(
        Packing.trajectory,
        "what one row holds; trajectory: all calls of a trajectory, whose common history is computed once; turn: one "
        "call",
    )
    truncation: PromptTruncation = key(
        PromptTruncation.drop_oldest_turns,
        "what to do with a prompt that is too long; drop_oldest_turns keeps tools and query; left cuts off its "
        "beginning, as released; error stops; skip leaves the prompt out",
    )
    max_prompt_length: Optional[int] = key(
        None, "longest prompt in tokens; null: the model's context minus max_new_tokens", least=1, most=TOKENS
    )
    max_new_tokens: Optional[int] = key(
        None,
        "longest sampled call in tokens, end token included; null: the data's longest golden call and a quarter more, "
        "at most what max_prompt_length leaves of the model's context, else half of it",
        least=1,
        most=TOKENS,
    )
    too_long_answer: TooLongAnswer = key(
        TooLongAnswer.skip,
        "what to do with a prompt whose golden call does not fit max_new_tokens and so cannot be answered; skip leaves "
        "the prompt out; error stops; keep asks it all the same, as released",
    )
    do_sample: bool = key(True, "sample the calls; false: greedy decoding")
    temperature: float = key(0.7, "sampling temperature", above=0, most=100, hint="greedy sampling is do_sample=false")
    learn_thoughts: bool = key(
        True,
        "treat the thought of a sampled answer as response tokens, which are learned and pay the KL penalty; false: as "
        "context, like the prompt; thoughts are not graded in either case; false needs a native format, and not rloo",
    )
    names: Names = key(Names.free, f"{NAMES}, in rollouts, updates and held-out questions; needs algorithm=ppo")
    kl: float = key(0.3, "coefficient of the KL penalty against the reference model, a token", least=0)
    kl_limit: Optional[float] = key(
        None,
        "upper limit of the KL divergence in nats, summed over a response and averaged over responses; null: no limit",
        least=0,
    )
    on_kl_limit: OnKlLimit = key(
        OnKlLimit.stop, "what happens beyond kl_limit; stop: end the training; adapt: raise kl until it is below"
    )
    gamma: float = key(1.0, "discount factor", least=0, most=1, only=PPO)
    lam: float = key(0.95, "GAE lambda", least=0, most=1, only=PPO)
    clip: float = key(0.2, "PPO ratio clip range", least=0, only=PPO)
    value_clip: float = key(0.2, "clip range of the value update", least=0, only=PPO)
    reward_clip: float = key(5.0, "clip range of the reward of a call, before the KL penalty", least=0, only=PPO)
    ppo_epochs: int = key(1, "optimizer steps on each rollout", least=1, most=1000, only=PPO)
    loss_mean: LossMean = key(
        LossMean.tokens,
        "what the loss of a step is a mean over; tokens: all response tokens (of grpo TRL's default loss_type, dapo); "
        "responses: the responses, each by the mean of its own tokens, as released (grpo's loss_type grpo); "
        "args.loss_type chooses another loss of grpo; rloo's loss is a mean over responses in any case",
        only=("algorithm", ("ppo", "grpo")),
    )
    critic: Critic = key(Critic, "the critic of PPO", only=PPO)
    sampled_calls: Optional[int] = key(
        None,
        "number of calls to sample, in the order of algorithm=ppo, from the first on in each further pass over the "
        "prompts; null: one for each prompt",
        least=1,
        most=GENERATED,
        only=("algorithm", ("rejection",)),
    )
    generation_batch_size: Optional[int] = key(
        None,
        "number of calls sampled at the same time; null: all of an optimizer step (ppo), or 32 (rejection)",
        least=1,
        most=ROWS,
        only=("algorithm", ("ppo", "rejection")),
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
        {}, "training arguments of one algorithm each, which args overrides", schema=AlgorithmArguments
    )
    args: Any = key(
        {}, "arguments of the algorithm's trainer, which override hardware.args and model.irm.args", library="algorithm"
    )


@dataclass
class EvalStage:
    name: str = key("eval", NAME)
    predictions: Optional[str] = key(
        None,
        "file of answers to score instead of generating them, lines of `prediction` (text of the TL format) or `raw` "
        "(what a model wrote in the format of format=)",
    )
    compare: list[str] = key([], "two result folders to compare instead of generating and scoring answers")
    matching: Matching = key(
        Matching.strict, 'comparison of argument values; strict: equal as JSON; lenient: 1, 1.0 and "1" are equal'
    )
    words_before_call: WordsBeforeCall = key(WordsBeforeCall.error, WORDS_BEFORE_CALL)
    rule: Rule = key(
        Rule.strict,
        "rule that says which tool answers in conversations are errors (CE); toolworld knows it without one",
    )
    max_new_tokens: int = key(256, "longest generated answer in tokens", least=1, most=TOKENS)
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
    max_new_tokens: int = key(512, "longest generated call in tokens", least=1, most=TOKENS)
    names: Names = key(Names.free, NAMES)
    words_before_call: WordsBeforeCall = key(WordsBeforeCall.error, WORDS_BEFORE_CALL)


@dataclass
class CertifyStage:
    name: str = key("certify", NAME)
    mae: bool = key(True, "do not ask for calls that the tool answered with an error (MAE)")
    rule: MaeRule = key(MaeRule.paper, RULE)


GGUF = ("f32", "f16", "bf16", "q8_0")


@dataclass
class ExportStage:
    name: str = key("export", NAME)
    dtype: Optional[ExportDtype] = key(
        None, "dtype of the exported weights; null: as the folder has them; an adapter's: as model.dtype says"
    )
    hub: Optional[str] = key(None, "OWNER/NAME of the hub's repository to push to; null: nothing leaves this machine")
    private: bool = key(True, "push to a private repository; a public one is refused; false: make it public")
    gguf: Optional[Gguf] = key(
        None,
        "precision of a GGUF file for llama.cpp and Ollama, beside the safetensors; q8_0: 8 bits in blocks; null: none",
    )
    converter: Optional[str] = key(
        None,
        "llama.cpp's convert_hf_to_gguf.py: the file, a folder that has it, or a command; null: the installed package "
        "convert-hf-to-gguf",
        only=("gguf", GGUF),
    )
    verify: int = key(
        20,
        "held-out prompts whose token ids and greedy answers are compared with llama.cpp's, if the package xllamacpp "
        "is installed; 0: none",
        least=0,
        most=10_000,
        only=("gguf", GGUF),
    )
    mae: bool = key(True, "do not ask for calls that the tool answered with an error (MAE)", only=("gguf", GGUF))
    rule: MaeRule = key(MaeRule.paper, RULE, only=("gguf", GGUF))


@dataclass
class InspectStage:
    name: str = key("inspect", NAME)
    mae: bool = key(True, "mark calls that the tool answered with an error (MAE)")
    rule: MaeRule = key(MaeRule.paper, RULE)
    mask: Mask = key(Mask.call, MASK)
    w_max: Optional[float] = key(
        9.0, "largest weight of a key token (PKT); null: every token weighs 1", least=1, most=1_000_000
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
    rule: MaeRule = key(MaeRule.paper, RULE)
    w_max: float = key(9.0, "largest weight of a key token, where pkt=true", least=1, most=1_000_000)
    key_tokens: KeyTokens = key(KeyTokens.paper, KEY_TOKENS.replace("w_max is given", "pkt=true"))
    benchmarks: list[Any] = key(
        ["toolworld"],
        "benchmarks to evaluate on: choices of conf/benchmark, or mappings with a choice as `name` and other keys of "
        "it, such as {name: rotbench, path: FOLDER, levels: [clean, union]}",
    )
    metric: Optional[str] = key(
        None, "metric that a sweeper optimizes; null: the mean of TS, PI and CF over all benchmarks"
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
        None, "tokens of a sample; null: the data's, else the longest allowed", least=1, most=TOKENS
    )
    tokens: Optional[float] = key(
        None, "tokens of the data, where it is not on this machine; the time is estimated from them", least=1
    )
    target_share: float = key(
        0.25, "share of the tokens that is predicted, where the data is not on this machine", least=0, most=1
    )
    calls: int = key(4, "calls of a trajectory (irm), where the data is not on this machine", least=1, most=ROWS)
    response: Optional[int] = key(
        None, "mean tokens of a sampled answer, for the time; null: as many as max_new_tokens", least=1, most=TOKENS
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
        "stage results to remove; none: list them only; unfinished: those that never ended; old: those that no job has "
        "used for older_than_days; all: every one",
    )
    older_than_days: float = key(
        30.0, "age in days from which prune=old removes a result", least=0, only=("prune", ("old",))
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
