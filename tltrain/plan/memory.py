"""Compute by formula the bytes that one process holds at each moment of a training step.

A step is divided into a few moments that hold different things; the peak is the largest sum over a moment. The formulas
count what this package and its libraries do:

    weights      as `model.dtype` says; under DeepSpeed bfloat16, with a float32 master copy among the optimizer
                 states; under FSDP float32, to which accelerate converts them
    gradients    in the weights' dtype; none before the first backward pass of a step, all of them while
                 micro-batches are accumulated
    activations  what autograd keeps of transformers' modules for the backward pass (`block_activations`)
    logits       at target positions only, several float32 tensors at a time (softmax, its gradients)

ZeRO is as in Rajbhandari et al. 2020 (arXiv 1910.02054), section 5: stage 2 divides gradients and optimizer states by
the number of processes, stage 3 also the weights.
"""

from __future__ import annotations

import math
from dataclasses import replace

from tltrain.plan.setup import Batch, Setup
from tltrain.plan.shapes import Shape

GiB = 2**30
PROCESS = {"cpu": 0.55 * GiB, "cuda": 0.7 * GiB}
"""Bytes before anything is loaded: interpreter and libraries (CPU); context and library workspaces (GPU)."""
HEAP_OVERHEAD = {"cpu": (0.2, 0.6), "cuda": (0, 0)}
"""Heap overhead as a share of the activations: from earlier micro-batches during the forward pass, and from freed
activations afterwards. glibc returns only the top of the heap, and later allocations do not exactly fit the holes
(measured; `MALLOC_MMAP_THRESHOLD_=262144` in the environment avoids it)."""
BUCKET = 200_000_000
"""Elements that DeepSpeed reduces or gathers at once; it uses two such buffers at a time."""
MAX_LIVE_WEIGHTS = 1_000_000_000
"""Maximum number of weights that ZeRO-3 keeps gathered (`stage3_max_live_parameters`)."""
TILE = (4096, 32768)
"""Tile size (tokens, vocabulary) in which TRL's fused head computes logits."""
FEED_FORWARD = {True: 4, False: 2}
"""Kept tensors of the feed-forward layer's width: gate, its activation, up and product; two without a gate."""

EXPERTS = 7
"""Kept tensors of that width if the feed-forward layer consists of experts; each expert's input and output are kept
too (GPT-OSS, measured)."""

Moment = dict[str, float]


# --- state between the moments ----------------------------------------------------------------------------------------


def trained_weights(parameters: int, setup: Setup) -> int:
    """Count the trained weights of a model: all of them, or those of its adapter."""
    return parameters if setup.adapter is None else setup.adapter


def critic(shape: Shape, setup: Setup) -> tuple[int, Setup]:
    """Return the number of weights of PPO's critic, and its setup.

    The critic is the model's body with a new scalar head and its bias. With an adapter (as large as the policy's) the
    head is trained in full; the frozen weights are not quantized.
    """
    new_head = shape.hidden + 1
    if setup.shared_critic:
        return new_head, replace(setup, adapter=None, frozen_bytes=None)
    adapter = None if setup.adapter is None else setup.adapter + new_head
    return shape.body + new_head, replace(setup, adapter=adapter, frozen_bytes=None)


def trained(kind: str, shape: Shape, setup: Setup) -> dict[str, int]:
    """Count the trained weights by model. `kind`: name of the function below that returns the stage's moments."""
    if kind == "answering":
        return {}
    found = {"policy" if kind != "supervised" else "model": trained_weights(shape.parameters, setup)}
    return found | ({"critic": trained_weights(*critic(shape, setup))} if kind == "actor_critic" else {})


def state(parameters: int, block: int, setup: Setup) -> Moment:
    """Return the bytes of weights, gradients, optimizer states and communication buffers of trained models.

    Args:
        block: number of weights of the largest unit that FSDP gathers.
    """
    return _state(parameters, trained_weights(parameters, setup), _frozen(parameters, setup), block, setup)


def _frozen(parameters: int, setup: Setup) -> float:
    """Return the bytes of the weights beside an adapter."""
    return 0 if setup.adapter is None else parameters * (setup.frozen_bytes or setup.stored_bytes)


def _state(parameters: int, trained: int, frozen: float, block: int, setup: Setup) -> Moment:
    """Compute `state` for one or several models in one engine. `frozen`: bytes of the weights that are not trained."""
    n, w = setup.processes, setup.trained_bytes
    states = trained * _optimizer_bytes(setup)
    copies = 2 * min(BUCKET, trained) * setup.compute_bytes
    if setup.strategy == "none":
        buckets = trained * w if n > 1 else 0  # DistributedDataParallel's, in addition to the gradients
        return {"weights": trained * w + frozen, "gradients": trained * w, "optimizer": states, "buffers": buckets}
    if setup.strategy == "zero2":
        return {
            "weights": trained * w + frozen,
            "gradients": trained * w / n,
            "optimizer": (4 * trained + states) / n,
            "buffers": copies,
        }
    if setup.strategy == "fsdp":
        gathered = 2 * block * setup.compute_bytes  # the block being computed and the one prefetched
        return {
            "weights": (trained * w + frozen) / n,
            "gradients": trained * w / n,
            "optimizer": states / n,
            "buffers": gathered + 2 * block * setup.compute_bytes,
        }
    gathered = min(parameters, MAX_LIVE_WEIGHTS) * setup.compute_bytes
    part = {
        "weights": (trained * w + frozen) / n,
        "gradients": trained * w / n,
        "optimizer": (4 * trained + states) / n,
        "buffers": gathered + copies,
    }
    if setup.strategy == "zero3_offload":
        return part | {"weights": 0, "gradients": 0, "optimizer": 0}
    return part


def host_bytes(parameters: int, setup: Setup) -> float:
    """Return the bytes of host memory per process for offloading: weights, gradients, master copy, moments."""
    if setup.strategy != "zero3_offload":
        return 0
    each = 4 + 4 + _optimizer_bytes(setup)
    return (parameters * setup.compute_bytes + trained_weights(parameters, setup) * each) / setup.processes


def _optimizer_bytes(setup: Setup) -> float:
    """Return the bytes of optimizer states per weight: two moments, in the dtype of the weights they belong to."""
    width: float = 4 if setup.sharded else setup.trained_bytes
    name = setup.optimizer
    if "adafactor" in name or name == "sgd":
        return 0  # Adafactor keeps only row and column sums, SGD by default no momentum
    if "8bit" in name:
        width = 1
    elif "4bit" in name:
        width = 0.5
    return (1 if any(one in name for one in ("lion", "rmsprop", "adagrad")) else 2) * width


# --- one forward and backward -----------------------------------------------------------------------------------------


def block_activations(shape: Shape, setup: Setup, batch: Batch) -> float:
    """Return the bytes per token that autograd keeps of one block, in transformers' Llama and similar models.

    Each norm keeps its input (in float32) and the normalized input, and those before a linear layer, unless a cast
    follows, their output; attention keeps queries, keys, values and output; the feed-forward layer keeps `FEED_FORWARD`
    tensors, or those of its experts. Under autocast the residual stream is float32, and every linear layer keeps its
    own bfloat16 copy of its input.
    """
    h, q, k, f = shape.hidden, shape.queries, shape.keys, shape.intermediate
    c = setup.compute_bytes
    masked = (batch.masked or batch.tree) and "flash" not in setup.attention
    keys = q if masked else k
    normalized = 4 if shape.wide_norms else c
    within = EXPERTS * f + 2 * shape.experts * h if shape.experts else FEED_FORWARD[shape.gated] * f
    size = c * (2 * q + 2 * keys) + c * within + 4 * shape.heads + 8
    if setup.autocast:
        size += shape.norms * (4 + 4) * h + (5 if shape.gated else 4) * 2 * h
    else:
        size += shape.norms * (4 + normalized) * h + 2 * c * h
    if shape.normed:
        size += (4 + normalized) * (q + k)
    if setup.attention == "eager":  # softmax in float32, and its cast
        size += shape.heads * batch.length * (4 if c == 4 else 2 if shape.sinks else 6)
    elif masked and not batch.tree:
        size += c * batch.length
    return size


def activations(shape: Shape, setup: Setup, batch: Batch) -> float:
    """Return the bytes kept for the backward pass; with checkpointing the blocks' inputs and one recomputed block."""
    tokens, one = batch.tokens, batch.tokens * block_activations(shape, setup, batch)
    residual = tokens * shape.hidden * (4 if setup.autocast else setup.compute_bytes)
    kept = shape.layers * residual + one if setup.checkpointing else shape.layers * one
    return kept + 3 * tokens * shape.hidden * 4 + _mask(batch)


def _mask(batch: Batch) -> int:
    """Return the bytes of a tree's attention mask, at most a float32 per pair of tokens."""
    return batch.rows * batch.length**2 * 4 if batch.tree else 0


def one_block(shape: Shape, setup: Setup, batch: Batch) -> float:
    """Return the bytes of one block's backward pass: its kept tensors and the gradients of its widest ones."""
    kept = batch.tokens * block_activations(shape, setup, batch)
    return kept + batch.tokens * (3 * setup.compute_bytes * shape.intermediate + 2 * 4 * shape.hidden)


def casts(matrices: int, setup: Setup) -> float:
    """Return the bytes of autocast's bfloat16 weight copies, which the graph holds until the backward pass ends."""
    return 2 * matrices if setup.autocast else 0


def head(shape: Shape, setup: Setup, targets: int) -> float:
    """Return a supervised step's bytes at the head: softmax, its gradient, and the logits' or the head's gradient."""
    c, v = setup.compute_bytes, shape.vocab
    weight = 0 if setup.adapter is not None else shape.embedding * (c + setup.stored_bytes)
    if setup.fused_head:
        tile = min(targets, TILE[0]) * min(v, TILE[1])
        per = c if setup.device == "cuda" else c + 16  # without Triton the tile is reduced by float32 operations
        return tile * per + (0 if setup.adapter is not None else shape.embedding * 4)
    return max(12 * targets * v, c * targets * v + weight)


def key_value_cache(shape: Shape, samples: int, tokens: int, number_bytes: int) -> int:
    """Return the bytes of a key and a value per key head, layer and token."""
    return 2 * shape.layers * shape.keys * number_bytes * samples * tokens


def generation(shape: Shape, number_bytes: int, batch: Batch) -> Moment:
    """Return what sampling holds besides weights: cache and a copy of one layer, the prefill's activations, softmax."""
    cache = key_value_cache(shape, batch.samples, batch.prompt + batch.new, number_bytes)
    width = FEED_FORWARD[shape.gated] * shape.intermediate + 4 * shape.queries
    return {
        "key-value cache": cache + cache / shape.layers,
        "activations": batch.prefill * (number_bytes * width + 3 * 4 * shape.hidden),
        "logits": 3 * 4 * batch.samples * shape.vocab,
    }


# --- the moments of a step --------------------------------------------------------------------------------------------


def supervised(shape: Shape, setup: Setup, batch: Batch) -> dict[str, Moment]:
    """Return the moments of stage=sft and stage=pkt."""
    fixed = state(shape.parameters, shape.block, setup) | {"process": setup.process}
    kept = activations(shape, setup, batch) + casts(shape.matrices + shape.embedding, setup)
    held, freed = ({"allocator": share * kept} for share in HEAP_OVERHEAD[setup.device])
    return {
        "forward": fixed
        | {
            "gradients": _early(fixed["gradients"], setup),
            "activations": kept,
            "logits": head(shape, setup, batch.targets),
        }
        | held,
        "backward": fixed | freed | _last(shape, setup, batch),
        "step": _step(fixed, setup) | freed,
    }


def actor_critic(shape: Shape, setup: Setup, batch: Batch) -> dict[str, Moment]:
    """Return PPO's moments: policy and critic are trained (both with an adapter or neither), the reference is not."""
    parts = (shape.parameters, setup), critic(shape, setup)
    trained = [trained_weights(*part) for part in parts]
    frozen = sum(_frozen(*part) for part in parts)
    fixed = _state(sum(size for size, _ in parts), sum(trained), frozen, shape.block, setup)
    of_critic = fixed["gradients"] * trained[1] / sum(trained)
    fixed |= {
        "reference": reference(shape, setup),
        "process": setup.process,
        "sampling copy": sampling_copy(shape, setup),
    }
    one = activations(shape, setup, batch)
    policy = one + casts(shape.matrices + shape.embedding, setup)
    value = 0.0 if setup.shared_critic else one + casts(shape.matrices, setup)
    held, freed = ({"allocator": share * (policy + value)} for share in HEAP_OVERHEAD[setup.device])
    logits = 4 * batch.targets * shape.vocab  # float32: divided by the temperature, and their softmax
    early = _early(fixed["gradients"], setup)
    # The entropy briefly takes three more of them, before the critic's activations exist.
    entropy, both = {"activations": policy, "logits": 5 * logits}, {"activations": policy + value, "logits": 2 * logits}
    return {
        "sampling": fixed
        | _sum(generation(shape, setup.compute_bytes, batch), {"buffers": fixed["buffers"] + _gathered(shape, setup)})
        | {"gradients": fixed["gradients"] if setup.sharded else 0},
        "forward": fixed | held | {"gradients": early} | max(entropy, both, key=lambda part: sum(part.values())),
        "backward (policy)": fixed
        | {"gradients": max(early, of_critic), "activations": policy, "logits": head(shape, setup, batch.targets)},
        "backward": fixed | freed | _last(shape, setup, batch),
        "step": _step(fixed, setup) | freed,
    }


def group(shape: Shape, setup: Setup, batch: Batch) -> dict[str, Moment]:
    """Return the moments of RLOO and GRPO: TRL's trainers, whose policy has the fused head; no critic."""
    extra = {"reference": reference(shape, setup)}
    fixed = state(shape.parameters, shape.block, setup) | extra | {"process": setup.process}
    sampling = _sum(
        generation(shape, setup.compute_bytes, batch), {"buffers": fixed["buffers"] + _gathered(shape, setup)}
    )
    return {
        "sampling": fixed | sampling | {"gradients": fixed["gradients"] if setup.sharded else 0},
        **{name: moment | extra for name, moment in supervised(shape, setup, batch).items()},
    }


def answering(shape: Shape, setup: Setup, batch: Batch) -> dict[str, Moment]:
    """Return the moment of stage=eval: greedy answers, with weights in the compute dtype."""
    weights = {"weights": shape.parameters * setup.compute_bytes, "process": setup.process}
    return {"answering": weights | generation(shape, setup.compute_bytes, batch)}


def reference(shape: Shape, setup: Setup) -> float:
    """Return the bytes of the frozen copy of the policy; with an adapter none is needed, it is switched off instead."""
    if setup.adapter is not None or not setup.reference:
        return 0
    whole = shape.parameters * setup.stored_bytes
    if setup.autocast:  # autocast would cast the linear layers' weights, so they are stored in bfloat16
        whole -= (shape.matrices + (0 if shape.tied else shape.embedding)) * 2
    if setup.strategy == "zero3_offload":
        return 0  # gathered from host memory as it is computed
    return whole / setup.processes if setup.strategy in ("zero3", "fsdp") else whole


def sampling_copy(shape: Shape, setup: Setup) -> float:
    """Return the bytes of the bfloat16 policy that samples if the trained weights are float32."""
    return 2 * shape.parameters if setup.autocast else 0


def _gathered(shape: Shape, setup: Setup) -> float:
    """Return the bytes of the whole policy, which sampling needs on every process, beyond what is gathered anyway."""
    if setup.strategy not in ("zero3", "zero3_offload", "fsdp"):
        return 0
    there = min(shape.parameters, MAX_LIVE_WEIGHTS) if setup.strategy != "fsdp" else 0
    return (shape.parameters - there) * setup.compute_bytes


def _early(gradients: float, setup: Setup) -> float:
    """Return the gradients present in the forward pass: an earlier micro-batch's, or the engine's own buffer."""
    return gradients if setup.accumulation > 1 or setup.sharded else 0


def _last(shape: Shape, setup: Setup, batch: Batch) -> Moment:
    """Return the end of the backward pass: the first block, then the embedding's dense gradient beside the head's."""
    embedding = 0 if setup.adapter is not None else shape.embedding * setup.stored_bytes
    return {"activations": one_block(shape, setup, batch), "logits": embedding}


def _step(fixed: Moment, setup: Setup) -> Moment:
    """Return the optimizer's step: DeepSpeed casts gradients to float32; torch's fused AdamW needs nothing extra."""
    if setup.strategy in ("zero2", "zero3"):
        return fixed | {"buffers": fixed["buffers"] + fixed["gradients"] * 4 / setup.stored_bytes}
    if setup.optimizer == "adamw_torch":  # not fused: a list of temporary tensors as large as the weights
        return fixed | {"buffers": fixed["buffers"] + fixed["gradients"]}
    return fixed


def _sum(one: Moment, other: Moment) -> Moment:
    return {part: one.get(part, 0) + other.get(part, 0) for part in one | other}


def peak(moments: dict[str, Moment]) -> tuple[str, float]:
    """Return the name of the largest moment and its bytes."""
    name = max(moments, key=lambda one: math.fsum(moments[one].values()))
    return name, math.fsum(moments[name].values())
