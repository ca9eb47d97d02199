"""Run jobs of `gpu.py`: train a model with random weights for a few steps, and time them.

    python experiments/bench/gpu_worker.py JOBS FILE       JOBS is a JSON list; a record of each is appended to FILE

The trainers are the ordinary ones, tltrain's `TurnTrainer` and `PPOTrainer` and TRL's SFTTrainer, with the arguments
from `conf/hardware/gpu.yaml`. The data consists of random tokens in the layout of real trajectories.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from gpu_data import CALLS, Job, layouts, plain_rows, tokens_of, trees
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, TrainerCallback, TrainingArguments
from trl import SFTConfig, SFTTrainer

from tltrain import config, toolworld
from tltrain.formats import joined
from tltrain.formats.tl import TL
from tltrain.models import loading
from tltrain.plan import compute, shapes
from tltrain.plan import memory as plan_memory
from tltrain.plan.compute import Tokens
from tltrain.plan.setup import Batch, Setup
from tltrain.runtime import memory
from tltrain.tokens.encoder import Encoder
from tltrain.tokens.layout import Layout
from tltrain.training import sft, tree_mask
from tltrain.training.actor_critic import Models, new_critic
from tltrain.training.kl import KlControl
from tltrain.training.ppo import PPOTrainer, Settings
from tltrain.training.pricing import TableReward
from tltrain.training.reward_function import RewardFunction, RewardSignal
from tltrain.training.rollout import Prompts, Sampling

# --- models and arguments --------------------------------------------------------------------------------------------


def new_model(job: Job) -> PreTrainedModel:
    """Make a model of the shape with random weights on the device."""
    torch.manual_seed(0)
    with torch.device(job.device):
        return AutoModelForCausalLM.from_config(
            LlamaConfig(**job.sizes, eos_token_id=0, pad_token_id=1, bos_token_id=None),
            dtype=getattr(torch, job.dtype),
            attn_implementation=job.attention,
        )


def tokenizer_of(job: Job) -> Any:
    """Return a tokenizer with at most the shape's vocabulary, which drops unknown text."""
    texts = [joined(TL.segments(item)) for item in toolworld.generate(50, seed=0)]
    return loading.byte_level_tokenizer(texts, job.sizes["vocab_size"])


def arguments(job: Job, kind: type, folder: str, **more: Any) -> Any:
    """Return the settings of `hardware=gpu` (or `cpu`) and the job as the library's arguments."""
    hardware = OmegaConf.load(config.CONF_DIR / "hardware" / ("gpu.yaml" if job.device == "cuda" else "cpu.yaml"))
    known = {field.name for field in fields(kind)}
    recompute = next(name for name in ("activation_checkpointing", "gradient_checkpointing") if name in known)
    return kind(
        **{
            **OmegaConf.to_container(hardware.get("args", OmegaConf.create({}))),
            "output_dir": folder,
            "per_device_train_batch_size": job.rows,
            "gradient_accumulation_steps": job.accumulation,
            "max_steps": job.total,
            "learning_rate": 1e-6,
            "lr_scheduler_type": "constant",
            "optim": job.optimizer,
            "bf16": True,
            "use_cpu": job.device == "cpu",
            recompute: job.checkpointing,
            "use_liger_kernel": job.kernels == "liger",
            "torch_compile": job.kernels == "compile",
            "dataloader_pin_memory": job.device == "cuda",
            "logging_steps": 1,
            "logging_nan_inf_filter": False,
            "report_to": [],
            "save_strategy": "no",
            "disable_tqdm": True,
            **more,
            **job.args,
        }
    )


class Clock(TrainerCallback):
    """Records when each optimizer step has ended, including its kernels."""

    def __init__(self, device: str) -> None:
        self.device, self.ends = device, []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())

    def seconds(self, warm: int) -> tuple[float, list[float]]:
        """Return the time since the end of the warm-up, in total and for each step."""
        each = [after - before for before, after in zip(self.ends[warm - 1 :], self.ends[warm:], strict=False)]
        return sum(each), each


# --- measurements ----------------------------------------------------------------------------------------------------


def supervised(job: Job) -> dict[str, Any]:
    """Run pkt and memory with TurnTrainer, trl with SFTTrainer."""
    model, tokenizer = new_model(job), tokenizer_of(job)
    ours = job.section != "trl"
    items = layouts(job if ours else replace(job, packing="trajectory"))
    clock = Clock(job.device)
    with tempfile.TemporaryDirectory() as folder:
        if ours:
            args = arguments(job, SFTConfig, folder, max_length=None, dataset_kwargs={"skip_prepare_dataset": True})
            collator = sft.Collator(tokenizer.pad_token_id, tree_mask.BLOCK if job.device == "cuda" else 1)
            trainer = sft.TurnTrainer(model, args, collator, sft.dataset(items), processing_class=tokenizer)
        else:
            args = trl_arguments(job, folder)
            trainer = SFTTrainer(model, args, train_dataset=plain_rows(items), processing_class=tokenizer)
        trainer.add_callback(clock)
        with memory.peak() as peak:
            trainer.train()
    seconds, each = clock.seconds(job.warm)
    read = {entry["step"]: entry["num_tokens"] for entry in trainer.state.log_history if "loss" in entry}
    if len(each) != job.steps:
        raise SystemExit(f"{len(clock.ends)} steps were made, expected {job.total}: there are too few rows")
    tokens = tokens_of(items, read[job.total] - read[job.warm])
    shape = shapes.shape_of(model.config)
    turns = sum(len(set(item.turns)) for item in items) / sum(len(item.input_ids) for item in items)
    return {
        "tokens_per_step": tokens.read / job.steps,
        "seconds": seconds,
        "seconds_of_steps": each,
        "tokens_per_second": tokens.read / seconds,
        "turns_per_second": tokens.read * turns / seconds,
        "flops_per_token": compute.training(shape, tokens, checkpointing=False) / tokens.read,
        "flops_per_second": compute.training(shape, tokens, checkpointing=False) / seconds,
        "peak_bytes": peak.bytes,
        "planned_bytes": planned(job, shape, items) if ours else None,
        "loss": trainer.state.log_history[0]["loss"],
    }


def trl_arguments(job: Job, folder: str) -> SFTConfig:
    """Return TRL's settings for packed rows of `length` tokens: `bfd`, one sequence without padding whose attention
    keeps trajectories separate; `wrapped`, whose attention does not; `padded`, without packing."""
    packed = {} if job.packing == "padded" else {"packing": True, "packing_strategy": job.packing}
    return arguments(job, SFTConfig, folder, max_length=job.length, **packed)


def planned(job: Job, shape: shapes.Shape, items: Sequence[Layout]) -> float:
    """Return the peak memory that `stage=plan` predicts, excluding the process's own."""
    longest = sorted(items, key=lambda item: -len(item.input_ids))[: job.rows]
    on_gpu = job.device == "cuda"
    setup = Setup(
        device=job.device,
        bf16=True,
        weight_bytes=4 if job.dtype == "float32" else 2,
        optimizer=job.optimizer,
        checkpointing=job.checkpointing,
        attention=job.attention,
        accumulation=job.accumulation,
        fused_head=on_gpu,
    )
    batch = Batch(
        rows=job.rows,
        length=len(longest[0].input_ids),
        targets=sum(len(item.targets) for item in longest),
        masked=job.rows > 1 and not on_gpu,
        tree=job.packing == "prefix_tree" and job.attention != "flex_attention",
    )
    return plan_memory.peak(plan_memory.supervised(shape, setup, batch))[1]


def irm(job: Job) -> dict[str, Any]:
    """Run PPO with PPOTrainer: policy, critic and reference of the shape; random weights, so no response ends early."""
    policy, encoder = new_model(job), Encoder(tokenizer_of(job))
    clock = Clock(job.device)
    with tempfile.TemporaryDirectory() as folder:
        policy.config.save_pretrained(folder)
        with torch.device(job.device):
            critic = new_critic(folder, "random", dtype=policy.dtype, attn_implementation=job.attention)
        trainer = PPOTrainer(
            Models(policy, critic, new_model(job)),
            arguments(job, TrainingArguments, folder, remove_unused_columns=False),
            Prompts(trees(job), Sampling(job.call, 0.7, encoder.eos_id, encoder.tokenizer.pad_token_id), encoder),
            reward=RewardSignal(RewardFunction(TableReward()), KlControl(0.3)),
            settings=Settings(),
            callbacks=[clock],
        )
        with memory.peak() as peak:
            trainer.train()
    logs = [entry for entry in trainer.state.log_history if "seconds_update" in entry and entry["step"] > job.warm]
    parts = {name: statistics.mean(entry[f"seconds_{name}"] for entry in logs) for name in PARTS}
    seconds = clock.seconds(job.warm)[0] / job.steps
    samples, responses = (statistics.mean(entry[name] for entry in logs) for name in ("samples", "response_tokens"))
    flops = ppo_flops(shapes.shape_of(policy.config), job, samples, responses)
    prompts = job.rows * job.accumulation * job.length
    return {
        "seconds_a_step": seconds,
        **{f"seconds_{name}": value for name, value in parts.items()},
        **{f"share_{name}": value / sum(parts.values()) for name, value in parts.items()},
        "samples_a_step": samples,
        "response_tokens_a_step": responses,
        "samples_per_second": samples / seconds,
        "tokens_per_second": (prompts + responses) / seconds,
        "sampled_tokens_per_second": responses / parts["generation"],
        "flops_per_second": sum(flops.values()) / seconds,
        "flops_per_second_generation": flops["generation"] / parts["generation"],
        "flops_per_second_update": flops["update"] / parts["update"],
        "peak_bytes": peak.bytes,
        "loss": logs[-1]["loss"],
        "reward": logs[-1]["reward"],
    }


PARTS = ("generation", "scoring", "update")


def ppo_flops(shape: shapes.Shape, job: Job, samples: float, responses: float) -> dict[str, float]:
    """Return the operations of a step: sampling, and the update with the reference's forward pass.

    Args:
        samples, responses: samples per step, and total tokens of their responses.
    """
    count, size = job.rows * job.accumulation, responses / samples
    trunk = count * job.length
    ends = [job.length - k * (job.length // (2 * CALLS)) for k in range(CALLS)]
    behind = statistics.mean(ends) + size / 2  # tokens that a response's token attends to
    read = trunk + responses - samples  # the last token of a response is not an input
    seen = (trunk * job.length / 2 + (responses - samples) * behind) / read
    whole, body = Tokens(read, responses, 2 * seen), Tokens(read, 0, 2 * seen)
    update = (
        compute.training(shape, whole, False) + compute.training(shape, body, False) + compute.forward(shape, whole)
    )
    sampled = compute.forward(shape, Tokens(trunk, 0, job.length))
    sampled += compute.forward(shape, Tokens(responses, responses, 2 * behind))
    return {"generation": sampled, "update": update}


# --- the process -----------------------------------------------------------------------------------------------------


def measure(job: Job) -> dict[str, Any]:
    """Run the job; return its numbers and the device on which they were measured."""
    found = irm(job) if job.section == "irm" else supervised(job)
    on_gpu = job.device == "cuda"
    return found | {
        "device": torch.cuda.get_device_name(0) if on_gpu else "cpu",
        "device_bytes": torch.cuda.get_device_properties(0).total_memory if on_gpu else None,
        "parameters": shapes.shape_of(LlamaConfig(**job.sizes)).parameters,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def main() -> None:
    transformers.logging.set_verbosity_error()
    for fields_of_job in json.loads(sys.argv[1]):
        start, record = time.perf_counter(), {"job": fields_of_job}
        print(f"\n{json.dumps(fields_of_job)}", flush=True)
        try:
            record["result"] = measure(Job(**fields_of_job))
        except Exception as error:  # whatever it is, the other jobs must still run
            traceback.print_exc()
            record["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        with Path(sys.argv[2]).open("a") as file:
            file.write(json.dumps(record | {"wall": time.perf_counter() - start}) + "\n")


if __name__ == "__main__":
    main()
