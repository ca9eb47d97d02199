"""The keys of the other groups: `model.KEY`, `source.KEY`, ..., and those outside groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from omegaconf import MISSING

from tltrain.config.choices import (
    Device,
    LimitField,
    Mode,
    Quantization,
    TrackingMode,
)
from tltrain.config.keys import key
from tltrain.config.limits import DAY, GENERATED, ROWS, TOKENS
from tltrain.config.readers import Benchmark, Data
from tltrain.config.recipes import ModelRecipes
from tltrain.config.stages import DemoSizes

# `Optional[...]` because OmegaConf reads the annotations at run time.
# ruff: noqa: UP045


@dataclass
class Lora:
    r: Optional[int] = key(
        None, "rank of the adapter; null: no LoRA, all weights are trained; released: 8", least=1, most=65536
    )
    alpha: float = key(16, "LoRA alpha; the adapter is scaled by alpha / r", least=0)
    dropout: float = key(0.05, "dropout probability of the adapter's input", least=0, below=1)
    target_modules: Any = key(["q_proj", "v_proj"], "names of the modules to adapt, or all-linear", among=(list, str))
    merge: bool = key(True, "save the whole model with the adapter merged into its weights; false: only the adapter")
    quantize: Optional[Quantization] = key(
        None, "precision of the frozen weights; 4bit: QLoRA; null: not quantized; needs bitsandbytes"
    )


@dataclass
class ModelIrm:
    critic_learning_rate: float = key(MISSING, "learning rate of the critic", least=0)
    args: Any = key({}, "arguments of the trainer", library="transformers.TrainingArguments")


@dataclass
class SweepSizes:
    size: int = key(MISSING, "number of toolworld trajectories", least=1, most=GENERATED)
    test_size: int = key(MISSING, "number of toolworld questions", least=1, most=GENERATED)
    irm_steps: int = key(MISSING, "optimizer steps of IRM", least=1)
    max_new_tokens: int = key(MISSING, "maximum length of a generated answer in tokens", least=1, most=TOKENS)


@dataclass
class ConversationRlSizes:
    size: int = key(MISSING, "number of toolworld trajectories of the supervised training", least=1, most=GENERATED)
    num_train_epochs: int = key(MISSING, "its passes over them", least=1)
    irm_steps: int = key(MISSING, "optimizer steps of both IRMs and of the continued training", least=1)
    tasks: int = key(MISSING, "trajectories or tasks per step", least=1, most=ROWS)


@dataclass
class Model:
    name: str = key(MISSING, "name of the model, in tables and for its folder in the cache")
    path: Optional[str] = key(None, "local folder or hub id, used instead of hub and package")
    hub: Optional[str] = key(None, "hub id")
    package: Optional[str] = key(None, "Python package that contains the model as GGUF, used if it is installed")
    random: Optional[dict[str, int]] = key(None, "arguments of LlamaConfig, for a model with random weights")
    sizes: dict[str, Any] = key({}, "the values of the model's config.json, so that stage=plan needs no hub")
    dtype: str = key("float32", "dtype of the weights while training; float32, bfloat16 or float16")
    allow_lost_updates: bool = key(
        False, "train in 16 bits even if the learning rate is so small that most updates are rounded away"
    )
    bos: Any = key(
        "auto",
        "begin a conversation with the BOS token; auto: as the model was trained, otherwise as its tokenizer does",
        among=("auto", True, False),
    )
    attn_implementation: str = key("sdpa", "implementation of attention, by its name in transformers")
    trust_remote_code: bool = key(False, "run Python code from the model's folder or hub repository")
    lora: Lora = key(Lora, "LoRA adapter; model.lora.r=8 trains one")
    args: Any = key({}, "training arguments that suit the model", library="trl.SFTConfig")
    irm: Any = key({}, "settings of stage=irm that suit the model", schema=ModelIrm)
    recipes: Any = key(
        {},
        "smaller batches and samples of a model with which a recipe (+recipe=NAME) would not fit",
        schema=ModelRecipes,
    )
    demo: dict[str, int] = key({}, "settings of stage=demo that suit the model", schema=DemoSizes)
    sweep: dict[str, int] = key({}, "sizes that suit the model in the experiments on toolworld", schema=SweepSizes)
    conversation_rl: dict[str, int] = key(
        {}, "sizes that suit the model in +experiment=conversation_rl", schema=ConversationRlSizes
    )


@dataclass
class Format:
    name: str = key(
        MISSING,
        "format of conversations; tl: the paper's text; tl_full: the same with the tools' whole schemas; auto: as the "
        "model was trained, otherwise its own if its chat template supports tools; native: its own; the others are "
        "named families",
    )
    options: dict[str, Any] = key({}, "variables of the model's chat template, by their names, such as enable_thinking")
    date: str = key("2024-07-26", "the date that chat templates write as today, YYYY-MM-DD")


@dataclass
class Weighting:
    """The keys of every token weighting; further keys are those of its function."""

    name: str = key(MISSING, "name of the weighting")


@dataclass
class Source:
    name: str = key(MISSING, "who answers")


@dataclass
class Endpoint(Source):
    url: Optional[str] = key(None, "base URL of the API, such as http://localhost:8000/v1")
    model: Optional[str] = key(None, "name of the model on the server")
    mode: Mode = key(
        Mode.text,
        "how to ask; text: the TL prompt to /completions; chat: messages and native tools to /chat/completions",
    )
    tokenizer: Optional[str] = key(None, "tokenizer (a folder or hub id), to send token ids", only={"mode": ("text",)})
    api_key_env: str = key("OPENAI_API_KEY", "environment variable with the API key, if the server needs one")
    concurrency: int = key(8, "number of requests at the same time", least=1, most=10_000)
    timeout: float = key(300.0, "seconds without data after which a request is repeated", least=1, most=DAY)
    total_timeout: float = key(
        1800.0,
        "seconds, retries included, after which a question without a complete answer ends the run",
        least=1,
        most=7 * DAY,
    )
    max_response_size: float = key(8.0, "maximum size of a decompressed response in MB", least=0.001, most=1000)
    retries: int = key(6, "retries of a request, at growing intervals or as the server says", least=0, most=1000)
    limit_field: LimitField = key(
        LimitField.max_tokens,
        "name of the field that limits an answer to stage.max_new_tokens; OpenAI's reasoning models accept only "
        "max_completion_tokens",
    )
    temperature: Optional[float] = key(0.0, "sampling temperature; null: the server's default", least=0, most=100)
    extra: dict[str, Any] = key({}, "further fields of the request body; null removes a field")
    cache: bool = key(True, "keep answers under cache.dir/endpoint and use them instead of asking again")


@dataclass
class Hardware:
    device: Device = key(Device.auto, "device to compute on; auto: a GPU if there is one, otherwise the CPU")
    bf16: Optional[bool] = key(None, "compute in bfloat16; null: if the device supports it")
    threads: Optional[int] = key(
        None, "CPU threads of each process; null: the cores divided by the processes", least=1, most=4096
    )
    processes: Optional[int] = key(
        None, "number of processes on this machine; null: one for each GPU, one on a CPU", least=1, most=1024
    )
    nodes: int = key(1, "number of machines; the same command is started on each", least=1, most=100_000)
    node_rank: Optional[int] = key(
        None, "number of this machine from 0, if nodes is above 1; null: as SLURM says", least=0, most=99_999
    )
    rendezvous: Optional[str] = key(None, "ADDRESS:PORT of machine 0, if nodes is above 1")
    deepspeed: Any = key(
        {},
        'DeepSpeed configuration; "auto" is taken from the trainer; empty or null: no DeepSpeed',
        among=(dict, type(None)),
    )
    fsdp: Any = key(
        {}, "fsdp_config of transformers.TrainingArguments; empty or null: no FSDP", among=(dict, type(None))
    )
    args: Any = key(
        {},
        "training arguments that suit the hardware, which override model.args",
        library="transformers.TrainingArguments",
    )


@dataclass
class Tracking:
    name: str = key(MISSING, "tracker")


@dataclass
class WandbTracking(Tracking):
    entity: Optional[str] = key(None, "user or team; null: wandb's default")
    project: str = key("tltrain", "project")
    mode: TrackingMode = key(
        TrackingMode.offline,
        "where runs are recorded; offline: on this machine; online: uploaded; disabled: nowhere",
    )
    group: Optional[str] = key(None, "group of the run; null: the sweep, or the job to which this stage belongs")
    tags: list[str] = key([], "tags besides the names of model and data")
    rows: int = key(200, "maximum number of rows in a table of samples", least=0, most=1_000_000)
    upload: bool = key(False, "upload the content of artifacts; false: only their paths and digests")
    timeout: float = key(15.0, "seconds to wait for the server before the run continues offline", least=1, most=DAY)
    finish_timeout: float = key(
        120.0, "seconds to upload the rest when a job ends; no limit if 0 or with upload=true", least=0, most=7 * DAY
    )
    dashboard: bool = key(False, "create or update the project's workspace and report when an online job ends")
    panels: Optional[str] = key(None, "file of the dashboard's panels; null: conf/tracking/dashboard/panels.yaml")


@dataclass
class Cache:
    dir: str = key(MISSING, "folder of base models and stage results, which all runs share")
    enabled: bool = key(True, "reuse stage results in stage=pipeline; false: run every stage in the run's own folder")


@dataclass
class Paths:
    """Paths of data that is not generated; `data.path` and `benchmark.path` default to them."""

    rotbench: Optional[str] = key(None, "RoTBench: folder with first_turn/ and third_turn/")
    toolalpaca: Optional[str] = key(
        None, "ToolAlpaca: folder with eval_real.json, eval_simulated.json or both, or a file"
    )
    tooleyes: Optional[str] = key(None, "ToolEyes: checkout of its repository")
    bfcl: Optional[str] = key(None, "BFCL: its folder bfcl_eval; null: the package bfcl-eval")


@dataclass
class Report:
    path: Any = key(None, "stage=report: folder of a sweep, or several folders of jobs", among=(str, list, type(None)))
    baseline: Optional[str] = key(None, "row with which the others are compared; null: standard SFT")
    texts: bool = key(True, "include questions, answers and golden calls, which may not be yours to publish")


@dataclass
class Config:
    stage: Any = key(MISSING, "what to do", among=(dict,))
    model: Any = key(MISSING, "model to train or to ask", schema=Model)
    format: Any = key(MISSING, "how conversations are written and answers are read", schema=Format)
    data: Any = key(MISSING, "trajectories to train on", schema=Data)
    weighting: Any = key(MISSING, "how much each token counts in supervised training", schema=Weighting)
    benchmark: Any = key(MISSING, "questions to evaluate on", schema=Benchmark)
    source: Any = key(MISSING, "who answers in stage=eval, predict and chat", schema=Source)
    hardware: Any = key(MISSING, "device, precision and processes", schema=Hardware)
    tracking: Any = key(MISSING, "where metrics are recorded", schema=Tracking)
    mae: Any = key({}, "rules that say which tool answers are errors; stage.rule chooses", among=(dict,))
    reward: Any = key({}, "reward of each kind of mistake, for IRM", among=(dict,))
    cache: Cache = key(Cache, "base models and stage results, which are made only once")
    paths: Paths = key(Paths, "where data that is not generated is")
    report: Report = key(Report, "the page that stage=report and sweeps write")
    overwrite: bool = key(
        False, "write into the folder of a finished run even if it was of another stage, whose files stay"
    )
    certify: Optional[int] = key(
        None,
        "number of held-out prompts that the served model is asked at the end of stage=sft, pkt or irm and in "
        "stage=certify; 0: it is not served; null: 20, but 0 in sweeps",
        least=0,
        most=10_000,
    )
    certify_timeout: float = key(1800.0, "seconds that serving and asking the model may take", least=1, most=7 * DAY)
    seed: int = key(0, "seed of all random numbers", least=0, most=2**32 - 1)
