"""The keys of the stages that do not train, or only by running those that do: `stage.KEY`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from omegaconf import MISSING

from tltrain.config.choices import (
    IsolationLevel,
    KeyTokens,
    Level,
    MaeRule,
    Mask,
    Matching,
    Names,
    Planned,
    Prune,
    Rule,
    Strategy,
    WordsBeforeCall,
    Write,
)
from tltrain.config.keys import key
from tltrain.config.limits import GENERATED, ROWS, TOKENS
from tltrain.config.meanings import KEY_TOKENS, MASK, NAME, NAMES, RULE
from tltrain.config.training import IrmStage, SupervisedStage

# `Optional[...]` because OmegaConf reads the annotations at run time.
# ruff: noqa: UP045

CERTIFIED = 20
"""Number of prompts that a served model is asked if `certify` is not set."""

COUNTED = "rule that says which tool answers are errors"
WORDS_BEFORE_CALL = (
    "a thought, a sentence or a code fence before a call; error: the call counts as unreadable; ignore: the call is "
    "read without it"
)
SUPERVISED = "settings of the supervised stage, as `stage.KEY` of stage=pkt"
RL = "settings of the reinforcement learning stage, as `stage.KEY` of stage=irm"
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
