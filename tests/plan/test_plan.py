"""A plan's memory and time: hand-computed numbers, what autograd really keeps, and monotonicity."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from transformers import AutoConfig, GPT2Config, LlamaConfig, LlamaForCausalLM, MixtralConfig, Qwen3Config
from transformers.models.auto import AutoModelForCausalLM

from tltrain.errors import TltrainError
from tltrain.plan import compute, memory, shapes
from tltrain.plan.compute import Speed, Tokens
from tltrain.plan.configured import SampleSizes
from tltrain.plan.setup import Batch, Setup

SIZES = {
    "vocab_size": 10,
    "hidden_size": 4,
    "intermediate_size": 6,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
SMALL = shapes.shape_of(LlamaConfig(**SIZES, tie_word_embeddings=True))
SEVEN = shapes.shape_of(
    LlamaConfig(
        vocab_size=32016,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        tie_word_embeddings=False,
    )
)

# --- the architecture -------------------------------------------------------------------------------------------------


def test_the_parameters_of_a_small_llama_by_hand():
    # queries and output 2 x 16, keys and values 2 x 4 x 2, feed-forward 3 x 24
    assert SMALL.matrices == SMALL.active == 2 * (32 + 16 + 72)
    assert SMALL.block == 32 + 16 + 72 + 2 * 4
    assert SMALL.parameters == 2 * SMALL.block + 4 + 10 * 4
    assert (SMALL.queries, SMALL.keys, SMALL.gated, SMALL.normed, SMALL.tied) == (4, 2, True, False, True)
    untied = shapes.shape_of(LlamaConfig(**SIZES, tie_word_embeddings=False))
    assert untied.parameters == SMALL.parameters + 40
    assert untied.body == SMALL.body == SMALL.parameters


def test_code_llama_has_as_many_parameters_as_its_checkpoint():
    assert SEVEN.parameters == 6_738_546_688


@pytest.mark.parametrize(
    ("config", "gated", "normed"),
    [
        (GPT2Config(n_layer=2, n_embd=32, n_head=4, vocab_size=50), False, False),
        (
            Qwen3Config(
                **SIZES | {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "head_dim": 16},
            ),
            True,
            True,
        ),
    ],
)
def test_other_architectures_are_counted_exactly(config, gated, normed):
    shape = shapes.shape_of(config)
    model = AutoModelForCausalLM.from_config(config)
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (shape.gated, shape.normed) == (gated, normed)


def test_a_token_meets_only_its_own_experts():
    sizes = SIZES | {"num_local_experts": 4, "num_experts_per_tok": 1}
    shape = shapes.shape_of(MixtralConfig(**sizes))
    experts = 2 * 4 * 3 * 24
    assert shape.matrices - shape.active == experts * 3 // 4
    assert shape.intermediate == 6


def test_the_critic_has_no_head():
    assert SEVEN.body == SEVEN.parameters - 32016 * 4096


def test_a_configuration_that_is_no_language_model_is_said():
    with pytest.raises(TltrainError, match="model: vit is not a causal language model"):
        shapes.shape_of(AutoConfig.for_model("vit"))


# --- states -----------------------------------------------------------------------------------------------------------

P = 1000
STATES = {
    # strategy, weight bytes, bf16 -> weights, gradients, optimizer of 1000 weights on 4 processes
    ("none", 4, True): (4000, 4000, 8000),
    ("none", 2, True): (2000, 2000, 4000),  # torch's Adam keeps its moments as wide as the weights
    ("zero2", 4, True): (2000, 500, 3000),  # bfloat16 weights; a float32 copy and two moments, divided by four
    ("zero2", 4, False): (4000, 1000, 3000),
    ("zero3", 2, True): (500, 500, 3000),
    ("zero3_offload", 2, True): (0, 0, 0),
    ("fsdp", 2, True): (1000, 1000, 2000),  # accelerate converts the weights to float32
}


@pytest.mark.parametrize(("case", "expected"), STATES.items(), ids=str)
def test_weights_gradients_and_moments_by_hand(case, expected):
    strategy, width, bf16 = case
    found = memory.state(P, 100, Setup(4, strategy, "cuda", bf16, width))
    assert tuple(found[part] for part in ("weights", "gradients", "optimizer")) == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("adamw_torch", 8000), ("adamw_8bit", 2000), ("sgd", 0), ("lion_32bit", 4000)]
)
def test_optimizers_keep_different_states(name, expected):
    assert memory.state(P, 100, Setup(optimizer=name))["optimizer"] == expected


def test_offloading_takes_the_machines_memory():
    # bfloat16 weights, float32 gradients, master copy and two moments: 18 bytes per weight
    assert memory.host_bytes(P, Setup(4, "zero3_offload", "cuda", True)) == 18 * P / 4
    assert memory.host_bytes(P, Setup(4, "zero3", "cuda", True)) == 0


def test_an_adapter_alone_has_gradients_and_moments():
    found = memory.state(P, 100, Setup(weight_bytes=2, bf16=True, adapter=10))
    # peft converts it to float32
    assert (found["weights"], found["gradients"], found["optimizer"]) == (2000 + 40, 40, 80)
    four_bits = memory.state(P, 100, Setup(weight_bytes=2, bf16=True, adapter=10, frozen_bytes=0.5))
    assert four_bits["weights"] == 500 + 40
    divided = memory.state(P, 100, Setup(2, "zero2", weight_bytes=2, bf16=True, adapter=10))
    assert (divided["weights"], divided["gradients"], divided["optimizer"]) == (2000 + 20, 10, 60)


def test_the_key_value_cache_by_hand():
    # two layers, a key and a value of two elements each, in bfloat16, for three samples of five tokens
    assert memory.key_value_cache(SMALL, 3, 5, 2) == 2 * 2 * 2 * 2 * 3 * 5


def test_a_small_training_by_hand():
    setup, batch = Setup(accumulation=2, device="cuda"), Batch(rows=1, length=10, targets=3)
    moments = memory.supervised(SMALL, setup, batch)
    n = SMALL.parameters
    step = {"weights": 4 * n, "gradients": 4 * n, "optimizer": 8 * n, "buffers": 0, "process": 0, "allocator": 0}
    assert moments["step"] == step
    assert moments["forward"]["logits"] == max(12 * 3 * 10, 4 * 3 * 10 + 8 * 40)
    assert memory.supervised(SMALL, Setup(), batch)["forward"]["gradients"] == 0  # none before the first backward pass
    assert memory.peak({"a": {"x": 1, "y": 2}, "b": {"x": 4}}) == ("b", 4)


def test_ppo_holds_three_models_and_two_in_the_optimizer():
    batch = Batch(rows=1, length=10, targets=3, samples=2, prompt=5, new=3, prefill=10)
    step = memory.actor_critic(SMALL, Setup(), batch)["step"]
    both = SMALL.parameters + SMALL.body + SMALL.hidden + 1
    assert (step["weights"], step["optimizer"], step["reference"]) == (4 * both, 8 * both, 4 * SMALL.parameters)
    assert step["sampling copy"] == 0
    assert memory.actor_critic(SMALL, Setup(bf16=True), batch)["step"]["sampling copy"] == 2 * SMALL.parameters
    assert memory.group(SMALL, Setup(), batch)["step"]["weights"] == 4 * SMALL.parameters


def test_policy_and_critic_have_an_adapter_each_and_no_reference():
    """The frozen weights of both stay; the critic's new head, 4 weights and a bias, is trained beside its adapter."""
    batch = Batch(rows=1, length=10, targets=3, samples=2, prompt=5, new=3, prefill=10)
    step = memory.actor_critic(SMALL, Setup(adapter=6), batch)["step"]
    trained, frozen = 6 + 6 + 5, SMALL.parameters + SMALL.body + 5
    assert (step["gradients"], step["optimizer"], step["reference"]) == (4 * trained, 8 * trained, 0)
    assert step["weights"] == 4 * (trained + frozen)
    four_bits = memory.actor_critic(SMALL, Setup(adapter=6, frozen_bytes=0.5), batch)["step"]  # the policy only
    assert four_bits["weights"] == 4 * (trained + SMALL.body + 5) + SMALL.parameters // 2


# --- activations ------------------------------------------------------------------------------------------------------

WIDE = {**SIZES, "vocab_size": 64, "hidden_size": 96, "intermediate_size": 256}
HEADS = {"num_attention_heads": 6, "num_key_value_heads": 2}
CONFIGS = {
    "llama": LlamaConfig(**WIDE | HEADS),
    "qwen3": Qwen3Config(**WIDE | HEADS, head_dim=16),
    "eager": LlamaConfig(**WIDE | HEADS, attn_implementation="eager"),
}


def kept_by_autograd(config, dtype: torch.dtype, autocast: bool, checkpointing: bool, length: int, padded: bool) -> int:
    """Return the bytes that a forward pass keeps for the backward pass, besides the weights and their casts."""
    model = AutoModelForCausalLM.from_config(config, attn_implementation=config._attn_implementation).to(dtype).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    weights = {p.shape for p in model.parameters()} | {p.T.shape for p in model.parameters() if p.dim() == 2}
    kept: dict[int, torch.Tensor] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.shape not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    mask = torch.ones(1, length, dtype=torch.long)
    mask[:, -1] = not padded
    keep = torch.zeros(1, length, dtype=torch.bool)
    keep[:, -2:] = True
    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        ids = torch.randint(0, 64, (1, length))
        model(input_ids=ids, attention_mask=mask, logits_to_keep=keep, use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


PRECISIONS = {"float32": (torch.float32, False), "autocast": (torch.float32, True), "bfloat16": (torch.bfloat16, False)}


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", CONFIGS)
def test_a_block_keeps_what_autograd_really_keeps(name, precision, padded):
    dtype, autocast = PRECISIONS[precision]
    config, length = CONFIGS[name], 500
    found = []
    for layers in (1, 2):  # the difference is one block
        config.num_hidden_layers = layers
        if hasattr(config, "layer_types"):
            config.layer_types = ["full_attention"] * layers
        found.append(kept_by_autograd(config, dtype, autocast, False, length, padded))
    shape = shapes.shape_of(config)
    setup = Setup(bf16=precision != "float32", weight_bytes=dtype.itemsize, attention=config._attn_implementation)
    planned = memory.block_activations(shape, setup, Batch(rows=1, length=length, masked=padded)) * length
    assert planned == pytest.approx(found[1] - found[0], rel=0.03)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_with_checkpointing_a_block_keeps_its_input_alone(precision):
    dtype, autocast = PRECISIONS[precision]
    config = LlamaConfig(**WIDE | HEADS)
    found = []
    for layers in (2, 4):
        config.num_hidden_layers = layers
        found.append(kept_by_autograd(config, dtype, autocast, True, 500, False))
    setup = Setup(bf16=precision != "float32", weight_bytes=dtype.itemsize, checkpointing=True)
    whole = [
        memory.activations(replace(shapes.shape_of(config), layers=n), setup, Batch(rows=1, length=500)) for n in (2, 4)
    ]
    assert whole[1] - whole[0] == pytest.approx(found[1] - found[0], rel=0.03)


# --- what must never grow ---------------------------------------------------------------------------------------------

SETUPS = st.builds(
    Setup,
    processes=st.integers(1, 64),
    strategy=st.sampled_from(["none", "zero2", "zero3", "zero3_offload", "fsdp"]),
    device=st.just("cuda"),
    bf16=st.booleans(),
    weight_bytes=st.sampled_from([2, 4]),
    checkpointing=st.booleans(),
    attention=st.sampled_from(["sdpa", "eager", "flash_attention_2"]),
    accumulation=st.integers(1, 4),
    adapter=st.sampled_from([None, 10_000_000]),
    fused_head=st.booleans(),
)
BATCHES = st.builds(
    Batch,
    rows=st.integers(1, 8),
    length=st.integers(1, 20_000),
    targets=st.integers(1, 20_000),
    masked=st.booleans(),
    tree=st.booleans(),
    samples=st.integers(1, 64),
    prompt=st.integers(1, 8000),
    new=st.integers(1, 512),
    prefill=st.integers(1, 64_000),
)
KINDS = st.sampled_from([memory.supervised, memory.actor_critic, memory.group])


@given(SETUPS, BATCHES, KINDS, st.integers(1, 64))
def test_more_processes_never_take_more_memory_of_one(setup, batch, kind, more):
    if setup.strategy == "none":  # with several processes, copies of the gradients are made for communication
        return
    one = memory.peak(kind(SEVEN, setup, batch))[1]
    assert memory.peak(kind(SEVEN, replace(setup, processes=setup.processes + more), batch))[1] <= one * (1 + 1e-12)


@given(SETUPS, BATCHES)
def test_checkpointing_and_flash_attention_keep_less(setup, batch):
    with_all = memory.activations(SEVEN, replace(setup, checkpointing=False), batch)
    assert memory.activations(SEVEN, replace(setup, checkpointing=True), batch) < with_all
    flash = memory.activations(SEVEN, replace(setup, attention="flash_attention_2", checkpointing=False), batch)
    assert flash <= with_all


@given(SETUPS, BATCHES, KINDS, st.integers(1, 1000))
@settings(max_examples=50)
def test_longer_samples_never_take_less(setup, batch, kind, more):
    longer = replace(batch, length=batch.length + more, targets=batch.targets + more, prompt=batch.prompt + more)
    assert memory.peak(kind(SEVEN, setup, longer))[1] >= memory.peak(kind(SEVEN, setup, batch))[1]


@given(SETUPS, BATCHES, KINDS)
@settings(max_examples=50)
def test_no_part_is_negative(setup, batch, kind):
    assert all(size >= 0 for moment in kind(SEVEN, setup, batch).values() for size in moment.values())


# --- time -------------------------------------------------------------------------------------------------------------


def test_operations_by_hand():
    tokens = Tokens(read=1000, predicted=100, length=10)
    # two per weight and token; the head at 100 tokens; attention: 2 layers, 4 elements, half of 10 tokens, twice
    forward = 2 * 240 * 1000 + 2 * 40 * 100 + 2 * 2 * 4 * 10 * 1000
    assert compute.forward(SMALL, tokens) == forward
    assert compute.training(SMALL, tokens, False) == 3 * forward
    assert compute.training(SMALL, tokens, True) == 4 * forward
    near = 6 * SEVEN.parameters * 1e6
    assert compute.training(SEVEN, Tokens(1e6, 1e6, 1), False) == pytest.approx(near, rel=0.03)


def test_time_is_operations_over_speed_and_processes():
    tokens = Tokens(1000, 100, 10, sampled=60, prefill=500)
    batch, speed = Batch(rows=1, length=10, samples=3, prompt=5, new=4), Speed(1e6, 1e5, "")
    one = compute.seconds("supervised", SMALL, Setup(), batch, tokens, speed)
    assert one == {"training": compute.training(SMALL, tokens, False) / 1e6}
    two = compute.seconds("supervised", SMALL, Setup(processes=2), batch, tokens, speed)
    assert two["training"] == one["training"] / 2
    irm = compute.seconds("actor_critic", SMALL, Setup(), batch, tokens, speed)
    assert set(irm) == {"training", "scoring", "prefill", "sampling"}
    assert irm["training"] > 1.9 * one["training"]
    # 20 steps of three samples, each reading all weights and the cache in float32
    assert irm["sampling"] == pytest.approx(20 * 4 * (SMALL.parameters + 2 * 2 * 2 * 3 * 5) / 1e5)


def test_the_longest_samples_make_the_largest_batch():
    rows = SampleSizes([5, 9, 7], [1, 2, 3])
    assert rows.longest(1) == (9, 2)
    assert rows.longest(2) == (9, 5)
    assert rows.longest(6) == (9, 12)  # fewer samples than the batch: some are used twice


def test_configured_sizes_replace_the_hubs(tmp_path):
    model = OmegaConf.create(
        {"name": "x", "path": None, "hub": "no/where", "package": None, "random": None, "sizes": SIZES}
    )
    assert shapes.read_config(model, str(tmp_path)).hidden_size == 4
    LlamaForCausalLM(LlamaConfig(**SIZES | {"hidden_size": 8})).config.save_pretrained(tmp_path)
    model.path, model.trust_remote_code = str(tmp_path), False
    assert shapes.read_config(model, "").hidden_size == 8
    model.path, model.sizes = None, {"model_type": "lama"}
    with pytest.raises(TltrainError, match=r"model=x, its sizes: .*lama"):
        shapes.read_config(model, "")
