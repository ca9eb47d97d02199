"""The configuration's shape: one dataclass a node, so that a misspelt key or a wrong type fails before anything loads.

The values stand in `conf/`; what the shape cannot say is in `tltrain.entry.checks`. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Optional

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

CONF_DIR = next(
    folder for folder in (Path(__file__).parent / "conf", Path(__file__).parents[1] / "conf") if folder.is_dir()
)
"""`conf/` inside an installed wheel, else beside the package in a checkout."""

# The groups' keys are stated once, here; `Optional[...]` because OmegaConf reads the annotations at run time.
# ruff: noqa: UP045


class OnError(Enum):
    stop = "stop"
    skip = "skip"


class Rule(Enum):
    paper = "paper"
    strict = "strict"


class Write(Enum):
    trajectories = "trajectories"
    turns = "turns"
    raw = "raw"


class Packing(Enum):
    trajectory = "trajectory"
    turn = "turn"


class SupervisedPacking(Enum):
    trajectory = "trajectory"
    turn = "turn"
    prefix_tree = "prefix_tree"
    auto = "auto"


class Truncation(Enum):
    drop_oldest_turns = "drop_oldest_turns"
    error = "error"
    skip = "skip"


class Matching(Enum):
    strict = "strict"
    lenient = "lenient"


class Scoring(Enum):
    official = "official"
    fixed = "fixed"


class Algorithm(Enum):
    ppo = "ppo"
    rloo = "rloo"
    grpo = "grpo"


class CriticInit(Enum):
    sft = "sft"
    random = "random"


class OnKlLimit(Enum):
    stop = "stop"
    adapt = "adapt"


class PromptTruncation(Enum):
    drop_oldest_turns = "drop_oldest_turns"
    left = "left"
    error = "error"
    skip = "skip"


class Planned(Enum):
    sft = "sft"
    pkt = "pkt"
    irm = "irm"
    eval = "eval"


class Strategy(Enum):
    none = "none"  # a whole copy on every process
    zero2 = "zero2"
    zero3 = "zero3"
    zero3_offload = "zero3_offload"
    fsdp = "fsdp"


class Prune(Enum):
    none = "none"
    unfinished = "unfinished"
    old = "old"
    all = "all"


class Mode(Enum):
    text = "text"
    chat = "chat"


class Device(Enum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class TrackingMode(Enum):
    offline = "offline"
    online = "online"
    disabled = "disabled"


@dataclass
class DemoStage:
    name: str = "demo"
    train_size: int = MISSING  # toolworld trajectories
    test_size: int = MISSING  # toolworld questions over unseen tools
    max_new_tokens: int = MISSING
    batch_size: int = MISSING
    irm_steps: int = MISSING  # rollouts, and optimizer steps on them
    args: Any = field(default_factory=dict)  # of trl.SFTConfig, for both supervised trainings


@dataclass
class MaeStage:
    name: str = "mae"
    rule: Rule = Rule.paper
    mae: bool = True  # false keeps the calls with errors: only turns without an answer are dropped
    write: Write = Write.trajectories  # train.jsonl; turns: the released mae_data.json; raw: the paper's raw_data.json


@dataclass
class SupervisedStage:
    name: str = MISSING
    mae: bool = MISSING  # leave out calls that the tool answered with an error
    rule: Rule = Rule.paper  # which answers are errors
    w_max: Optional[float] = MISSING  # largest weight of a key token; null: every token weighs 1
    packing: SupervisedPacking = SupervisedPacking.trajectory  # one sample a trajectory; a turn, as released; or all
    # trajectories that begin alike (prefix_tree), what they share computed once. auto: prefix_tree where that pays
    tree_size: int = 16  # trajectories in a sample of prefix_tree: it is one row of a batch, however many turns it has
    truncation: Truncation = Truncation.drop_oldest_turns  # of samples over args.max_length tokens
    resume: bool = False  # go on from the last whole checkpoint in hydra.run.dir
    keep_checkpoints: bool = False  # after the run has ended well
    args: Any = field(default_factory=dict)  # of trl.SFTConfig; above model.args


@dataclass
class Critic:
    init: CriticInit = CriticInit.sft  # the policy's checkpoint with a head that is 0, or random weights
    path: Optional[str] = None  # a critic that an earlier run saved; above init
    learning_rate: float = MISSING
    save: bool = False  # leave it beside the model, as critic/


@dataclass
class IrmStage:
    name: str = "irm"
    algorithm: Algorithm = Algorithm.ppo  # rloo and grpo are TRL's trainers, without a critic
    mae: bool = True  # do not ask for calls that the tool answered with an error
    rule: Rule = Rule.paper  # which answers are errors
    packing: Packing = Packing.trajectory  # a row is a trajectory's calls, what they share computed once; or one call
    truncation: PromptTruncation = PromptTruncation.drop_oldest_turns  # of prompts that are too long
    max_prompt_length: Optional[int] = None  # tokens; null: what the model's context leaves
    max_new_tokens: int = 128  # of a sampled call
    do_sample: bool = True  # false: greedy
    temperature: float = 0.7
    kl: float = 0.3  # reward lost for each nat by which a token departs from the reference
    kl_limit: Optional[float] = None  # of the mean over responses of the KL summed over tokens
    on_kl_limit: OnKlLimit = OnKlLimit.stop  # end the training there, or raise kl until it is below
    gamma: float = 1.0
    lam: float = 0.95  # of generalized advantage estimation
    clip: float = 0.2  # of the ratio of probabilities
    value_clip: float = 0.2
    reward_clip: float = 5.0
    ppo_epochs: int = 1  # optimizer steps on each rollout
    critic: Critic = field(default_factory=Critic)
    generation_batch_size: Optional[int] = None  # calls sampled at once; null: all of a step
    matching: Matching = Matching.strict  # of values
    eval_size: Optional[int] = 100  # held-out questions asked before and after; null: all, 0: none
    eval_batch_size: int = 8
    samples_every: int = 10  # steps between two entries of samples.jsonl
    samples: int = 8  # calls an entry
    resume: bool = False  # go on from the last whole checkpoint in hydra.run.dir
    keep_checkpoints: bool = False  # after the run has ended well
    algorithm_args: dict[str, Any] = field(default_factory=dict)  # arguments that suit one algorithm; stage.args above
    args: Any = field(default_factory=dict)  # of the algorithm's trainer; above model.irm.args


@dataclass
class EvalStage:
    name: str = "eval"
    predictions: Optional[str] = None  # score this file instead of generating
    compare: list[str] = field(default_factory=list)  # two result folders to set side by side, instead of both
    matching: Matching = Matching.strict  # of values; lenient: 1, 1.0 and "1" are equal
    rule: Rule = Rule.strict  # conversations: which answers of tools are errors (CE)
    max_new_tokens: int = 256
    batch_size: int = 16  # prompts answered at the same time


@dataclass
class PredictStage:
    name: str = "predict"
    max_new_tokens: int = 512


@dataclass
class InspectStage:
    name: str = "inspect"
    mae: bool = True
    rule: Rule = Rule.paper
    w_max: Optional[float] = 9.0
    limit: int = 3  # how many trajectories


@dataclass
class PipelineStage:
    name: str = "pipeline"
    mae: bool = True  # leave out calls that the tool answered with an error, in training and in IRM's prompts
    pkt: bool = True  # weigh key tokens
    irm: bool = True  # go on with reinforcement learning
    rule: Rule = Rule.paper  # which answers are errors
    w_max: float = 9.0  # largest weight of a key token
    benchmarks: list[Any] = field(default_factory=lambda: ["toolworld"])  # choices of conf/benchmark, or mappings with
    # a choice as `name` and other keys of it: {name: rotbench, path: FOLDER, levels: [clean, union]}
    metric: Optional[str] = None  # what a sweeper optimizes; null: the mean of TS, PI and CF over all benchmarks
    supervised: Any = MISSING  # a SupervisedStage
    rl: Any = MISSING  # an IrmStage
    eval: Any = MISSING  # an EvalStage


@dataclass
class PlanStage:
    name: str = "plan"
    of: Planned = Planned.pkt  # which stage is planned; its own settings are in supervised, rl or eval below
    memory_gb: Optional[float] = None  # GiB of a device; null: what there is here
    processes: Optional[int] = None  # null: what hardware says
    strategy: Optional[Strategy] = None  # how they divide the work; null: what hardware says
    length: Optional[int] = None  # tokens of a sample; null: the data's, else the longest allowed
    tokens: Optional[float] = None  # of the data, where it is not on this machine; time is estimated from them
    target_share: float = 0.25  # of them to be predicted, where the data is not on this machine
    calls: int = 4  # irm: calls of a trajectory, likewise
    response: Optional[int] = None  # tokens of a sampled answer on average, for the time; null: max_new_tokens
    flops: Optional[float] = None  # operations a second that one process sustains; null: 40 % of what the device can
    bandwidth: Optional[float] = None  # bytes of memory a second, likewise; sampling is bound by it
    supervised: Any = MISSING  # a SupervisedStage
    rl: Any = MISSING  # an IrmStage
    eval: Any = MISSING  # an EvalStage


@dataclass
class CacheStage:
    name: str = "cache"
    prune: Prune = Prune.none
    older_than_days: float = 30.0  # stage.prune=old: entries that no job has asked for since


@dataclass
class ReportStage:
    name: str = "report"


@dataclass
class AnalyzeStage:
    name: str = "analyze"
    rule: Rule = Rule.paper  # which answers are errors
    mae: bool = True  # models are not given the calls that the tool answered with an error
    models: list[str] = field(default_factory=list)  # folders or hub ids, side by side; base: the one of model=
    unseen: bool = False  # leave out trajectories whose query any of the models was trained on
    results: list[str] = field(default_factory=list)  # result folders of stage=eval


@dataclass
class Lora:
    r: Optional[int] = None  # rank; null: no LoRA, all weights are trained; released: 8
    alpha: float = 16
    dropout: float = 0.05
    target_modules: Any = field(default_factory=lambda: ["q_proj", "v_proj"])  # names of modules, or all-linear
    merge: bool = True  # leave the whole model, the adapter added to its weights; false: the adapter alone
    quantize: Optional[str] = None  # 4bit (QLoRA) or 8bit: how the frozen weights are kept; needs bitsandbytes


@dataclass
class Model:
    name: str = MISSING
    path: Optional[str] = None  # a local folder or a hub id; above the two below
    hub: Optional[str] = None
    package: Optional[str] = None  # a Python package that ships the model as GGUF
    random: Optional[dict[str, int]] = None  # LlamaConfig of a model with random weights
    sizes: dict[str, Any] = field(default_factory=dict)  # what its config.json says, so that stage=plan needs no hub
    dtype: str = "float32"  # of the weights while training
    attn_implementation: str = "sdpa"
    trust_remote_code: bool = False
    lora: Lora = field(default_factory=Lora)  # model.lora.r=8 trains an adapter
    args: Any = field(default_factory=dict)  # of trl.SFTConfig: what suits this model
    irm: Any = field(default_factory=dict)  # what suits this model in stage=irm: critic_learning_rate, args
    demo: dict[str, int] = field(default_factory=dict)  # numbers of stage=demo that suit this model
    sweep: dict[str, int] = field(default_factory=dict)  # and of the experiments on toolworld: see conf/experiment/


@dataclass
class Data:
    name: str = MISSING
    path: Optional[str] = None
    on_error: OnError = OnError.stop  # skip: count unreadable records and go on
    limit: Optional[int] = None  # read at most so many trajectories
    holdout: float = 0.1  # share of the trajectories kept from training, to watch the loss on
    levels: list[str] = field(default_factory=list)  # rotbench
    size: int = 0  # toolworld: trajectories
    error_rate: float = 0.17  # toolworld: share of wrong calls


@dataclass
class Benchmark:
    name: str = MISSING
    path: Optional[str] = None
    levels: list[str] = field(default_factory=list)  # rotbench: clean slight medium heavy union
    turns: list[str] = field(default_factory=list)  # rotbench: first third
    categories: list[str] = field(default_factory=list)  # bfcl: exec, the paper's 240; simple_python, live_simple, ...
    scoring: Scoring = Scoring.fixed  # which of rotbench's two scorings is the headline; both are written
    size: int = 0  # toolworld: questions, or conversations
    limit: Optional[int] = None  # ask at most so many questions
    multi: bool = False  # whole conversations, whose tools run
    max_turns: int = 10  # multi: most calls for one turn of the user
    parallel: int = 16  # multi: conversations at a time, answered together; stage.batch_size of them in one batch
    max_output: int = 4000  # multi: characters of a tool's answer that enter the history
    network: bool = False  # tooleyes: let the tools reach the network
    user: str = "rule"  # tooleyes: who answers ask_to_user: rule, terminal, or a file of answers
    time_limit: float = 10.0  # tooleyes: seconds that a tool may take
    memory_limit: int = 2048  # tooleyes: MB that a tool's process may take
    tasks: list[str] = field(default_factory=list)  # general: lm-eval's names of tasks, groups and tags
    include_path: Optional[str] = None  # general: a folder of task definitions of one's own, above lm-eval's
    fewshot: Optional[int] = None  # general: examples before each question; null: what each task says
    unsafe_code: bool = False  # general: run tasks that execute code the model wrote


@dataclass
class Source:
    name: str = MISSING
    url: Optional[str] = None  # endpoint: where its API begins, such as http://localhost:8000/v1
    model: Optional[str] = None  # endpoint: the model's name there
    mode: Mode = Mode.text  # endpoint: the TL prompt to /completions, or messages and native tools to /chat/completions
    tokenizer: Optional[str] = None  # endpoint, text: a folder or hub id, to send the prompt as token ids
    api_key_env: str = "OPENAI_API_KEY"  # endpoint: the environment variable that holds the key; a server may need none
    concurrency: int = 8  # endpoint: requests under way at once
    timeout: float = 300.0  # endpoint: seconds in which nothing arrives, after which a request is made anew
    retries: int = 6  # endpoint: of a request, at growing intervals or when the server says
    temperature: Optional[float] = 0.0  # endpoint: null leaves it to the server
    extra: dict[str, Any] = field(default_factory=dict)  # endpoint: fields for the body of a request; null removes one
    cache: bool = True  # endpoint: keep answers under cache.dir/endpoint, and do not ask again for one that is there


@dataclass
class Hardware:
    device: Device = Device.auto
    bf16: Optional[bool] = None  # null: where the device computes in it
    threads: Optional[int] = None  # CPU threads of each process; null: as many as there are cores for it
    processes: Optional[int] = None  # on this machine; null: one for each GPU, one on a CPU
    nodes: int = 1  # machines; on each the same command is started
    node_rank: Optional[int] = None  # nodes > 1: which of them this is, from 0; null: as SLURM says
    rendezvous: Optional[str] = None  # nodes > 1: ADDRESS:PORT of node 0, where they find one another
    deepspeed: Any = field(
        default_factory=dict
    )  # DeepSpeed's configuration; "auto" is taken from the trainer's arguments
    fsdp: Any = field(default_factory=dict)  # fsdp_config of transformers.TrainingArguments; empty: no FSDP
    args: Any = field(default_factory=dict)  # of transformers.TrainingArguments, between model.args and stage.args


@dataclass
class Tracking:
    name: str = MISSING
    entity: Optional[str] = None  # the user or team; null: wandb's default
    project: str = "tltrain"
    mode: TrackingMode = TrackingMode.offline
    group: Optional[str] = None  # null: the sweep, or the job whose stage this is
    tags: list[str] = field(default_factory=list)  # besides the names of model and data
    rows: int = 200  # of a table of samples, at most
    upload: bool = False  # artifacts' content; false: where they are, and their digests
    timeout: float = 15.0  # seconds to wait for the server before going on offline
    finish_timeout: float = 120.0  # seconds to upload what is left when a job ends; 0, and with upload: no limit
    dashboard: bool = False  # make or update the project's workspace and report when an online job ends
    panels: Optional[str] = None  # a file of its panels; null: conf/tracking/dashboard/panels.yaml


@dataclass
class Cache:
    dir: str = MISSING
    enabled: bool = True  # false: stage=pipeline makes every stage anew, in its own run's folder


@dataclass
class Paths:
    """Where data that is not generated lies; `data.path` and `benchmark.path` default to it."""

    rotbench: Optional[str] = None  # first_turn/ and third_turn/
    toolalpaca: Optional[str] = None
    tooleyes: Optional[str] = None
    bfcl: Optional[str] = None  # null: the package bfcl-eval


@dataclass
class Report:
    path: Any = None  # stage=report: a sweep's folder, or several folders of jobs
    baseline: Optional[str] = None  # the row others are compared with; null: standard SFT
    texts: bool = True  # false: no questions, answers and golden calls in it, which may not be yours to publish


@dataclass
class Config:
    stage: Any = MISSING
    model: Any = MISSING
    data: Any = MISSING
    benchmark: Any = MISSING
    source: Any = MISSING
    hardware: Any = MISSING
    tracking: Any = MISSING
    mae: Any = field(default_factory=dict)
    reward: Any = field(default_factory=dict)
    cache: Cache = field(default_factory=Cache)
    paths: Paths = field(default_factory=Paths)
    report: Report = field(default_factory=Report)
    seed: int = 0


SCHEMAS: dict[str, type] = {
    "schema/stage/demo": DemoStage,
    "schema/stage/mae": MaeStage,
    "schema/stage/supervised": SupervisedStage,
    "schema/stage/irm": IrmStage,
    "schema/stage/eval": EvalStage,
    "schema/stage/predict": PredictStage,
    "schema/stage/inspect": InspectStage,
    "schema/stage/analyze": AnalyzeStage,
    "schema/stage/pipeline": PipelineStage,
    "schema/stage/plan": PlanStage,
    "schema/stage/cache": CacheStage,
    "schema/stage/report": ReportStage,
    "schema/model": Model,
    "schema/data": Data,
    "schema/benchmark": Benchmark,
    "schema/source": Source,
    "schema/hardware": Hardware,
    "schema/tracking": Tracking,
    "schema/config": Config,
}
OPEN = ("args", "irm", "algorithm_args", "extra", "mae", "reward", "deepspeed", "fsdp")
"""Nodes whose keys are a library's, or data."""


def register() -> None:
    """Put the schemas where the files in `conf/` name them in their defaults lists."""
    store = ConfigStore.instance()
    for place, schema in SCHEMAS.items():
        node = OmegaConf.structured(schema)
        for key in OPEN:
            if key in node and isinstance(node[key], DictConfig) and not OmegaConf.is_missing(node, key):
                OmegaConf.set_struct(node[key], False)
        group, _, name = place.rpartition("/")
        store.store(group=group, name=name, node=node, provider="tltrain")


STAGES = {
    "demo": "demo",
    "mae": "mae",
    "sft": "supervised",
    "pkt": "supervised",
    "eval": "eval",
    "predict": "predict",
    "irm": "irm",
    "inspect": "inspect",
    "analyze": "analyze",
    "pipeline": "pipeline",
    "plan": "plan",
    "cache": "cache",
    "report": "report",
}
"""Stage -> the module of `tltrain.stages` that runs it."""


def stage_module(stage: str) -> str:
    """The dotted name of the module whose `run(cfg, folder)` is the stage."""
    return f"tltrain.stages.{STAGES[stage]}"
