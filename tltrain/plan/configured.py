"""Make a plan from our configuration: setup, batches of the data, and the memory and time that they need."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from omegaconf import DictConfig

from tltrain.plan import compute, memory
from tltrain.plan.compute import Speed, Tokens
from tltrain.plan.memory import GiB, Moment
from tltrain.plan.setup import Batch, Setup
from tltrain.plan.shapes import Shape, shape_of
from tltrain.runtime import distributed, terminal
from tltrain.runtime import memory as machine_memory
from tltrain.runtime.durations import duration
from tltrain.training.arguments import library_class, lost_updates, trainer_arguments

log = logging.getLogger(__name__)

USABLE_SHARE = 0.95
"""Usable share of a device's memory; the rest is lost to the allocator's fragmentation."""
LENGTH = 1024
"""Assumed tokens per sample if nothing else is known: trl.SFTConfig's `max_length`."""
DEFAULTS: dict[str, Any] = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "num_train_epochs": 3,
    "max_steps": -1,
    "optim": "adamw_torch_fused",
    "learning_rate": 5e-5,
}
"""Defaults of transformers.TrainingArguments; importing the class would take seconds."""
_GROUP: dict[str, Any] = {
    "generation_batch_size": None,
    "steps_per_generation": None,
    "num_iterations": 1,
    "learning_rate": 1e-6,
}
OWN_DEFAULTS: dict[str, dict[str, Any]] = {
    "trl.SFTConfig": {"max_length": LENGTH, "learning_rate": 2e-5},
    "trl.RLOOConfig": {**_GROUP, "num_generations": 2},
    "trl.GRPOConfig": {**_GROUP, "num_generations": 8},
}
"""Defaults that TRL's argument classes add or change."""


@dataclass(frozen=True)
class SampleSizes:
    """Token count and target count of each training sample (for irm the targets are the number of calls to sample)."""

    lengths: Sequence[int]
    targets: Sequence[int]

    def longest(self, count: int) -> tuple[int, int]:
        """Return the longest sample's length and the total targets of the `count` longest samples."""
        order = sorted(zip(self.lengths, self.targets, strict=True), reverse=True)[:count]
        return order[0][0], sum(targets for _, targets in order) * count // len(order)


@dataclass(frozen=True)
class Plan:
    """The estimated needs of a stage.

    Attributes:
        moments: bytes of each part at each moment. trained: number of trained weights by model.
        host: bytes of host memory per process that offloading takes.
        seconds: by part; empty if the number of tokens is unknown. available: bytes available to a process.
        refused: why the training would refuse to start, regardless of memory.
    """

    shape: Shape
    setup: Setup
    batch: Batch
    moments: dict[str, Moment]
    trained: dict[str, int]
    host: float = 0
    seconds: dict[str, float] = field(default_factory=dict)
    tokens: Tokens | None = None
    available: float | None = None
    refused: str | None = None

    @property
    def peak(self) -> tuple[str, float]:
        return memory.peak(self.moments)

    @property
    def fits(self) -> bool | None:
        if self.refused is not None:
            return False
        return None if self.available is None else self.peak[1] <= self.available * USABLE_SHARE


def make_plan(cfg: DictConfig, shape: Shape, setup: Setup, batch: Batch, tokens: Tokens | None, speed: Speed) -> Plan:
    """Return the plan of `cfg.stage`."""
    kind = kind_of(cfg)
    moments = getattr(memory, kind)(shape, setup, batch)
    seconds = compute.seconds(kind, shape, setup, batch, tokens, speed) if tokens else {}
    host = 0.0 if kind == "answering" else memory.host_bytes(shape.parameters, setup)
    if kind == "actor_critic":
        host += memory.host_bytes(*memory.critic(shape, setup))
    return Plan(
        shape=shape,
        setup=setup,
        batch=batch,
        moments=moments,
        trained=memory.trained(kind, shape, setup),
        host=host,
        seconds=seconds,
        tokens=tokens,
        refused=refused(cfg, setup),
    )


def refused(cfg: DictConfig, setup: Setup) -> str | None:
    """Return why `cfg.stage` would refuse to train, or None."""
    if cfg.stage.name == "eval" or cfg.model.allow_lost_updates:
        return None
    return lost_updates(cfg, arguments(cfg)["learning_rate"], float32_copy=setup.strategy != "none")


def conversing(cfg: DictConfig) -> bool:
    """Return whether `cfg.stage` samples whole conversations."""
    return cfg.stage.name == "irm" and cfg.stage.rollout.name == "conversation"


def kind_of(cfg: DictConfig) -> str:
    """Return the name of the function in `memory` that plans `cfg.stage`."""
    if conversing(cfg):
        return "actor_critic"
    if cfg.stage.name == "irm":
        return {"ppo": "actor_critic", "rejection": "supervised"}.get(cfg.stage.algorithm.name, "group")
    return "answering" if cfg.stage.name == "eval" else "supervised"


# --- setup ------------------------------------------------------------------------------------------------------------


def arguments(cfg: DictConfig) -> dict[str, Any]:
    """Return the trainer's arguments: the stage's over the library's defaults; for stage=eval only the defaults."""
    if cfg.stage.name == "eval":
        return DEFAULTS | {"activation_checkpointing": False}
    return DEFAULTS | OWN_DEFAULTS.get(library_class(cfg.stage), {}) | trainer_arguments(cfg)


def setup_of(cfg: DictConfig, shape: Shape, processes: int | None = None, strategy: str | None = None) -> Setup:
    """Return how `cfg.stage` runs on `cfg.hardware`; `processes` and `strategy` override the hardware's own."""
    hardware, given = cfg.hardware, arguments(cfg)
    device, bf16 = device_of(hardware)
    lora = cfg.model.lora
    strategy = strategy or strategy_of(hardware)
    return Setup(
        processes=processes or distributed.local_processes(hardware) * hardware.nodes,
        strategy=strategy,
        device=device,
        bf16=bf16,
        weight_bytes=4 if cfg.model.dtype == "float32" else 2,
        optimizer=given["optim"],
        checkpointing=bool(
            given["activation_checkpointing"]
            or (strategy == "fsdp" and (hardware.fsdp or {}).get("activation_checkpointing"))
        ),
        attention=cfg.model.attn_implementation,
        accumulation=given["gradient_accumulation_steps"],
        adapter=adapter(shape, lora.r, lora.target_modules) if lora.r else None,
        # bitsandbytes quantizes linear layers, which experts are not, and they are most of the weights.
        frozen_bytes={"4bit": 0.5, "8bit": 1.0}.get(lora.quantize) if lora.r and not shape.experts else None,
        fused_head=(device == "cuda" and cfg.stage.name != "irm") or kind_of(cfg) == "group",
        process=memory.PROCESS[device],
        reference=cfg.stage.name != "irm" or cfg.stage.kl > 0 or cfg.stage.kl_limit is not None,
        # Conversations that are compared with one another need no critic: at most what a head takes.
        shared_critic=cfg.stage.name == "irm"
        and (cfg.stage.critic.share or (conversing(cfg) and cfg.stage.algorithm.name != "ppo")),
    )


def strategy_of(hardware: DictConfig) -> str:
    """Return the `Setup.strategy` that `hardware.deepspeed` or `hardware.fsdp` configures."""
    if hardware.fsdp:
        return "fsdp"
    zero = (hardware.deepspeed or {}).get("zero_optimization", {})
    if zero.get("stage") == 3:
        return "zero3_offload" if zero.get("offload_optimizer") or zero.get("offload_param") else "zero3"
    return "zero2" if zero.get("stage") in (1, 2) else "none"


def adapter(shape: Shape, rank: int, modules: Sequence[str] | str) -> int:
    """Count the weights of LoRA adapters of `rank` on the named linear layers of all blocks (`all-linear`: on all)."""
    h, q, k, f = shape.hidden, shape.queries, shape.keys, shape.intermediate
    sides = {"q_proj": h + q, "k_proj": h + k, "v_proj": h + k, "o_proj": q + h, "up_proj": h + f, "down_proj": h + f}
    if shape.gated:
        sides["gate_proj"] = h + f
    if shape.experts:  # peft adapts linear layers, which experts are not
        sides = {name: size for name, size in sides.items() if name not in ("up_proj", "down_proj", "gate_proj")}
    chosen = sides.values() if modules == "all-linear" else [sides.get(name, 0) for name in modules]
    return rank * shape.layers * sum(chosen)


def device_of(hardware: DictConfig) -> tuple[str, bool]:
    """Return `cpu` or `cuda` (which this machine need not have), and whether it computes in bfloat16."""
    import torch

    wanted = getattr(hardware.device, "name", hardware.device)
    device = "cuda" if wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available()) else "cpu"
    if hardware.bf16 is not None:
        return device, hardware.bf16
    if device == "cpu":
        from tltrain.models import devices

        return device, devices.cpu_computes_bf16()
    return device, not torch.cuda.is_available() or torch.cuda.is_bf16_supported()


def memory_here(device: str, processes: int) -> float | None:
    """Return the bytes available to a process here; on a CPU, its share of the machine's or the container's memory."""
    import torch

    if device == "cuda":
        return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None
    return machine_memory.of_machine() / processes


def device_name() -> str | None:
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


# --- batches ----------------------------------------------------------------------------------------------------------


def batch_of(cfg: DictConfig, rows: SampleSizes, setup: Setup) -> Batch:
    """Return the largest micro-batch of the rows, and the sizes of what is sampled at once."""
    stage, kind, given = cfg.stage, kind_of(cfg), arguments(cfg)
    count = stage.batch_size if kind == "answering" else given["per_device_train_batch_size"]
    length, targets = rows.longest(count)
    if kind == "supervised":
        return Batch(rows=count, length=length, targets=targets, masked=count > 1 and setup.device == "cpu")
    new = longest_answer(cfg)
    if kind == "answering":
        return Batch(rows=count, length=length, samples=count, prompt=length, new=new, prefill=count * length)
    if kind == "group":
        samples = (given["generation_batch_size"] or 0) // setup.processes
        samples = samples or count * (given["steps_per_generation"] or setup.accumulation)
        sampled: dict[str, Any] = {"samples": samples, "prompt": length, "new": new, "prefill": samples * length}
        return Batch(rows=count, length=length + new, targets=count * new, masked=True, **sampled)
    calls = max(rows.targets)  # a row is a tree: its longest prompt, with a call sampled after each prompt in it
    step = rows.longest(count * setup.accumulation)[1]
    samples = min(step, max(stage.generation_batch_size or step, calls))
    trunks = -(-samples // calls) if calls > 1 else samples
    return Batch(
        rows=count,
        length=length + calls * (new - 1),
        targets=targets * new,
        masked=count > 1,
        tree=calls > 1,
        samples=samples,
        prompt=length,
        new=new,
        prefill=trunks * length,
    )


def longest_answer(cfg: DictConfig) -> int:
    """Return the largest number of tokens of an answer; for irm an assumption if the configuration sets no limit."""
    from tltrain.tokens.prompts import answer_limit  # the plans of other stages need no prompts

    return answer_limit([], cfg.stage.max_new_tokens, None)


def tokens_of(cfg: DictConfig, rows: SampleSizes, setup: Setup, response: int | None = None) -> Tokens:
    """Return the tokens that the whole stage computes; `response` is an answer's mean length (None: the maximum)."""
    given, kind, n = arguments(cfg), kind_of(cfg), len(rows.lengths)
    read, targets = sum(rows.lengths), sum(rows.targets)
    if kind == "answering":
        new = response or longest_answer(cfg)
        return Tokens(0, 0, read / n, sampled=n * new, prefill=read)
    # Optimizer steps per rollout, and how often each row is sampled (answers per group).
    passes, group = 1, 1
    if kind == "actor_critic":
        passes = cfg.stage.ppo_epochs
    elif kind == "group":
        passes, group = given["num_iterations"], given["num_generations"]
    times = given["num_train_epochs"]
    if given["max_steps"] > 0:
        step = given["per_device_train_batch_size"] * setup.accumulation * setup.processes
        times = given["max_steps"] * step / (n * group * passes)
    if kind == "supervised":
        return Tokens(times * read, times * targets, read / n)
    new = response or longest_answer(cfg)
    rollouts = times * group
    sampled = targets * new
    whole = passes * rollouts * (read + sampled)
    return Tokens(whole, passes * rollouts * sampled, (read + sampled) / n, rollouts * sampled, rollouts * read)


def rows_of(stage: str, items: Any) -> SampleSizes:
    """Return the sizes of a stage's training data: a dataset of `training.sft.dataset`, or prompt trees.

    Args:
        stage: name of the stage or algorithm; rloo and grpo sample each prompt separately.
    """
    if stage in ("sft", "pkt"):
        import pyarrow.compute as pc

        table = items.data  # Arrow computes the lengths of its lists without making Python lists of them
        return SampleSizes(*(pc.list_value_length(table.column(name)).to_pylist() for name in ("input_ids", "targets")))
    if stage in ("ppo", "rejection"):
        return SampleSizes([len(tree.ids) for tree in items], [len(tree.ends) for tree in items])
    ends = [end for tree in items for end in tree.ends]
    return SampleSizes(ends, [1] * len(ends))


# --- the line of a training run ---------------------------------------------------------------------------------------


def announce(cfg: DictConfig, config: Any, items: Any) -> None:
    """Log in one line what the training needs, as a warning if it will not fit. Never raises.

    Args:
        config: the model's transformers configuration. items: the training data (see `rows_of`).
    """
    try:
        if os.environ.get("RANK", "0") != "0":
            return
        shape = shape_of(config)
        setup = setup_of(cfg, shape)
        if "WORLD_SIZE" in os.environ:
            setup = replace(setup, processes=int(os.environ["WORLD_SIZE"]))
        algorithm = cfg.stage.algorithm.name if cfg.stage.name == "irm" else cfg.stage.name
        rows = rows_of(algorithm, items)
        name = device_name() if setup.device == "cuda" else None
        speed = compute.speed_of(setup.device, name)
        plan = make_plan(cfg, shape, setup, batch_of(cfg, rows, setup), tokens_of(cfg, rows, setup), speed)
        here = int(os.environ.get("LOCAL_WORLD_SIZE", setup.processes))
        plan = replace(plan, available=memory_here(setup.device, here))
        (log.info if plan.fits is not False else log.warning)("%s", summary(plan, with_time=name is not None))
    except Exception as error:  # the plan is only a help: no error in it may stop the training
        log.debug("no plan: %s", error)


def summary(plan: Plan, with_time: bool = True) -> str:
    """Format the plan as one line."""
    moment, peak = plan.peak
    room = "" if plan.available is None else f" of {plan.available / GiB:.1f}"
    each = f" for each of {plan.setup.processes} processes ({plan.setup.strategy})" if plan.setup.processes > 1 else ""
    size = format_count(plan.shape.parameters)
    said = f"plan: {size} parameters; memory peaks at about {peak / GiB:.1f}{room} GiB{each}"
    if with_time and plan.seconds:
        said += f"; about {duration(sum(plan.seconds.values()))}"
    if plan.fits is False:
        parts = plan.moments[moment]
        part = max(parts, key=lambda name: parts[name])
        said += f": it will not fit ({moment}: most goes to {part}); `stage=plan` shows the parts"
    return said


def format_count(number: float) -> str:
    """Format a number of parameters or tokens for humans: 134.5 M."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.{2 if unit == 'B' else 1}f} {unit}"
    return f"{number:.0f}"


def print_table(plan: Plan) -> None:
    """Print a table in GiB with a column for each moment and a row for each part."""
    parts = list(dict.fromkeys(part for moment in plan.moments.values() for part in moment))
    rows = [
        [part, *(f"{moment[part] / GiB:.2f}" if moment.get(part) else "" for moment in plan.moments.values())]
        for part in parts
        if any(moment.get(part) for moment in plan.moments.values())
    ]
    rows.append(["together", *(f"{sum(moment.values()) / GiB:.2f}" for moment in plan.moments.values())])
    terminal.table("GiB of one process", ["", *plan.moments], rows)
