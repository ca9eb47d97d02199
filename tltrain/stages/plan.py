"""stage=plan: estimate the memory of each process and the time of a stage before it runs, and whether it fits.

    python -m tltrain stage=plan stage.of=pkt model=codellama_7b hardware=gpu stage.memory_gb=80 stage.processes=4

Reads the model's configuration but not its weights. Lengths come from the data if it and the tokenizer are on this
machine, else from `stage.length` and `stage.tokens`. Writes `plan.json`, and the same as `metrics.json`.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tltrain.data.judged import JudgedSource
from tltrain.entry import checks, choices
from tltrain.entry.composed import part, resolved
from tltrain.runtime import runs, stage_names, terminal
from tltrain.runtime.durations import duration
from tltrain.stages import irm_conversations
from tltrain.tokens.prompts import answer_limit

NODES = {"sft": "supervised", "pkt": "supervised", "irm": "rl", "eval": "eval"}
"""The configuration node with the settings of the planned stage."""


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the stage in `folder` and return what it wrote to `metrics.json`."""
    with stage_names.named(stage_names.Node("plan", NODES[cfg.stage.of.name])):
        plan, metrics = make(cfg)
    runs.write_json(folder / "plan.json", metrics)
    runs.finish(folder, cfg, metrics)
    show(plan, metrics)
    return metrics


def make(cfg: DictConfig) -> tuple[Any, dict[str, Any]]:
    """Return the plan, and the same as plain values."""
    own = planned(cfg)
    with terminal.status("loading torch and transformers"):
        from tltrain.plan import configured, memory, shapes
        from tltrain.plan.compute import speed_of
    stage = cfg.stage
    described = shapes.read_config(cfg.model, cfg.cache.dir)
    shape = shapes.shape_of(described)
    strategy = stage.strategy and stage.strategy.name
    setup = configured.setup_of(own, shape, stage.processes, strategy)
    rows, origin = lengths(cfg, own, shape.context, described)
    if own.stage.name == "irm" and own.stage.max_new_tokens is None:  # there is no data here to derive it from
        own.stage.max_new_tokens = answer_limit([], None, shape.context, own.stage.max_prompt_length)
    known = stage.tokens is not None or origin.startswith("data")
    tokens = configured.tokens_of(own, rows, setup, stage.response) if known else None
    name = configured.device_name() if setup.device == "cuda" else None
    speed = speed_of(setup.device, name)
    if stage.flops is not None:
        speed = replace(speed, flops=stage.flops, why="stage.flops")
    if stage.bandwidth is not None:
        speed = replace(speed, bandwidth=stage.bandwidth, why=f"{speed.why}, stage.bandwidth")
    plan = configured.make_plan(own, shape, setup, configured.batch_of(own, rows, setup), tokens, speed)
    given = stage.memory_gb and stage.memory_gb * memory.GiB
    plan = replace(plan, available=given or configured.memory_here(setup.device, setup.processes))

    moment, peak = plan.peak
    metrics = {
        "of": own.stage.name,
        "model": cfg.model.path or cfg.model.name,
        "parameters": shape.parameters,
        "trained": plan.trained,
        "peak_bytes": round(peak),
        "peak_moment": moment,
        "available_bytes": plan.available and round(plan.available),
        "fits": plan.fits,
        "refused": plan.refused,
        "host_bytes": round(plan.host),
        "moments": {name: {key: round(size) for key, size in one.items()} for name, one in plan.moments.items()},
        "seconds": {key: round(value, 1) for key, value in plan.seconds.items()},
        "tokens": tokens and asdict(tokens),
        "lengths": origin,
        "speed": asdict(speed),
        "setup": asdict(setup),
        "batch": asdict(plan.batch),
        "shape": asdict(shape),
    }
    return plan, metrics


def planned(cfg: DictConfig) -> DictConfig:
    """Return the checked configuration with the planned stage's settings as its `stage`."""
    of = cfg.stage.of.name
    own = resolved(cfg.stage[NODES[of]]) | {"name": of}
    whole = part(cfg, own)
    if of == "irm" and whole.stage.rollout.name == "conversation":  # the plan needs no reward, and reads none
        whole.reward = choices.bound("reward", OmegaConf.create({"name": "conversation"}))
    checks.check(whole)
    return whole


def lengths(cfg: DictConfig, own: DictConfig, context: int | None, described: Any) -> tuple[Any, str]:
    """Return the stage's samples, and a description of where their lengths come from.

    Args:
        context: the model's, in tokens. described: its transformers configuration.
    """
    from tltrain.plan.configured import LENGTH, SampleSizes, arguments

    stage, irm = cfg.stage, own.stage.name == "irm"
    if (
        stage.length is None
        and own.stage.name != "eval"
        and not (irm and own.stage.rollout.name == "conversation")  # their length is not in the data
        and (found := of_data(cfg, own, context, described)) is not None
    ):
        return found, f"data={cfg.data.name}: {len(found.lengths)} samples, the longest of {max(found.lengths)} tokens"
    most = own.stage.max_prompt_length if irm else arguments(own).get("max_length", LENGTH)
    length = stage.length or min(filter(None, (most, context)), default=LENGTH)
    if irm and stage.length is None and context:
        limit = answer_limit([], own.stage.max_new_tokens, context, own.stage.max_prompt_length)
        length = min(length, context - limit)
    count = max(round(stage.tokens / length), 1) if stage.tokens else 1
    if irm and own.stage.rollout.name == "conversation":
        size = irm_conversations.group_size(own)
        why = "stage.length" if stage.length else "the longest allowed; set stage.length="
        told = (
            f"{size} conversations of at most {length} tokens a row ({why}), {stage.calls} answers each (stage.calls)"
        )
        return SampleSizes([length * size] * count, [stage.calls * size] * count), f"{told}, nothing of them shared"
    if own.stage.name == "eval":
        targets = 0
    elif irm:
        targets = stage.calls if own.stage.algorithm.name == "ppo" and own.stage.packing.name == "trajectory" else 1
    else:
        targets = max(round(stage.target_share * length), 1)
    why = "stage.length" if stage.length else "the longest allowed, as data or tokenizer is not here; set stage.length="
    return SampleSizes([length] * count, [targets] * count), f"{length} tokens per sample ({why})"


def of_data(cfg: DictConfig, own: DictConfig, context: int | None, described: Any) -> Any:
    """Return the data's samples if data and tokenizer are on this machine, else None."""
    if "path" in cfg.data and cfg.data.path is None:
        return None
    from tltrain.plan.configured import SampleSizes, arguments, rows_of
    from tltrain.tokens.packing import PackingReport, PackingSettings, pack
    from tltrain.tokens.prefix_tree import Limits

    encoder_for = local_encoder(cfg)
    if encoder_for is None:
        return None
    train, held_out = JudgedSource(own, "reading trajectories").split()
    encoder = encoder_for(train)
    if own.stage.name == "irm":
        from tltrain.stages.irm_prompts import prompts

        trees, report = prompts(own, train, held_out, encoder, context)
        own.stage.max_new_tokens = report.max_new_tokens
        return rows_of(own.stage.algorithm.name, trees)
    limit = min(filter(None, (arguments(own)["max_length"], context)), default=sys.maxsize)
    branches = encoder.reads_tokens and takes_trees(described, cfg.model.attn_implementation)
    settings = PackingSettings.from_config(own, limit, Limits(own.stage.tree_size, limit), branches)
    layouts = pack(terminal.track(train, "tokenizing"), encoder, settings, PackingReport())
    found = [(len(layout.input_ids), len(layout.targets)) for layout in layouts]
    return SampleSizes(*zip(*found, strict=True)) if found else None


def takes_trees(described: Any, attention: str) -> bool:
    """Return whether a model of this configuration can process trees; it is made without weights."""
    import torch
    from transformers import AutoModelForCausalLM

    from tltrain.training import tree_mask

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(described, attn_implementation=attention)
    except (ValueError, ImportError):  # code of its own, or a package that is not here
        return False
    return not tree_mask.obstacle(model)


def local_encoder(cfg: DictConfig) -> Any:
    """Return a function from the training data to the model's encoder, or None if the tokenizer is not here."""
    from tltrain.models import encoders, packages

    model = cfg.model
    if model.path is None and model.random is not None:
        return lambda items: encoders.random_encoder(items, model, cfg.format)
    weights = packages.weights(model.package)
    converted = None if weights is None else str(packages.converted(weights, model.name, cfg.cache.dir))
    for place in (model.path, converted):
        if place is not None and Path(place).is_dir():
            return lambda items: encoders.load_encoder(place, model, cfg.format)
    return None


def show(plan: Any, metrics: dict[str, Any]) -> None:
    """Print the table and a summary."""
    from tltrain.plan import configured, memory

    configured.print_table(plan)
    setup, say = plan.setup, lambda text: terminal.console.print(text, markup=False)
    how = [
        f"{setup.processes} process{'es' if setup.processes > 1 else ''} on {setup.device}",
        *([setup.strategy] if setup.sharded else []),
        "bfloat16" if setup.compute_bytes == 2 else "float32",
        setup.attention,
        *(["activation checkpointing"] if setup.checkpointing else []),
    ]
    say(f"{metrics['of']} of {configured.format_count(plan.shape.parameters)} parameters; {', '.join(how)}")
    if setup.adapter is not None and plan.trained:
        adapters = ", ".join(
            f"{configured.format_count(number)} of the {name}" for name, number in plan.trained.items()
        )
        say(f"with LoRA trains {adapters}")
    say(f"micro-batch {plan.batch.rows} x {plan.batch.length} tokens; {metrics['lengths']}")
    if plan.host:
        say(f"and {plan.host / memory.GiB:.1f} GiB of host memory per process (offloaded)")
    if plan.seconds:
        parts = ", ".join(f"{name} {duration(value)}" for name, value in plan.seconds.items())
        speed = metrics["speed"]
        say(
            f"about {duration(sum(plan.seconds.values()))} ({parts}), at {speed['flops']:.3g} operations/s "
            f"per process ({speed['why']})"
        )
    else:
        say("no time estimate without tokens: set stage.tokens=NUMBER, or have data and tokenizer on this machine")
    if plan.refused is not None:
        say(f"would refuse to train: {plan.refused}; hardware=zero2, model.dtype=float32 or model.lora.r=8 would train")
    moment, peak = plan.peak
    if plan.available is None:
        say(f"peak {peak / memory.GiB:.1f} GiB ({moment}); set stage.memory_gb= to the device's memory")
        return
    room = f"{peak / memory.GiB:.1f} of {plan.available / memory.GiB:.1f} GiB ({moment})"
    within = peak <= plan.available * configured.USABLE_SHARE
    say(f"fits: {room}" if within else f"does not fit: {room}")
