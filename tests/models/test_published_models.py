"""The models of `conf/model/`: published sizes, recipes and plans, and small random ones of their architectures."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM

from tests.support import native_formats
from tests.support.composition import composed
from tltrain.plan import compute, configured, memory, shapes
from tltrain.plan.setup import Batch, Setup

pytestmark = pytest.mark.slow

MODELS = {
    "qwen3_0_6b": (596_049_920, "auto", "qwen3"),
    "qwen3_1_7b": (1_720_574_976, "auto", "qwen3"),
    "qwen3_4b": (4_022_468_096, "auto", "qwen3"),
    "qwen3_8b": (8_190_735_360, "auto", "qwen3"),
    "llama3_2_1b": (1_235_814_400, "llama3", "llama3"),
    "llama3_2_3b": (3_212_749_824, "llama3", "llama3"),
    "smollm3_3b": (3_075_098_624, "auto", "hermes"),
    "gemma3_270m": (268_098_176, "tl", "gemma"),
    "functiongemma_270m": (268_098_176, "tl", "gemma"),
    "gpt_oss_20b": (20_914_757_184, "gptoss", "gptoss"),
    "mistral_7b_v0_3": (7_248_023_552, "native", "mistral"),
}
"""Model -> weights as published with its checkpoint, its format, and a family whose template its random twin gets."""
RECIPES = {"lora_24gb": 24, "lora_80gb": 80}
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "sliding_window": 16,
}


@cache
def group_of(name: str):
    """Return the configuration's `model`."""
    return composed("stage=plan", f"model={name}").model


@cache
def shape_of(name: str) -> shapes.Shape:
    return shapes.shape_of(config_of(name))


def config_of(name: str, **other):
    cfg = group_of(name)
    made = AutoConfig.for_model(**(dict(cfg.sizes) | other))
    made._attn_implementation = cfg.attn_implementation
    return made


@pytest.mark.parametrize("name", MODELS)
def test_sizes_give_the_published_number_of_weights(name):
    assert shape_of(name).parameters == MODELS[name][0]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_chooses_its_format_and_another_one_may_be_asked_for(name):
    assert composed("stage=pkt", f"model={name}").format.name == MODELS[name][1]
    assert composed("stage=pkt", f"model={name}", "format=tl").format.name == "tl"


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", MODELS)
def test_a_recipe_fits_its_gpu(name, recipe):
    cfg = composed("stage=pkt", f"model={name}", f"+recipe={recipe}", "hardware=gpu", "hardware.processes=1")
    assert (cfg.model.lora.r, cfg.model.dtype, cfg.model.lora.target_modules) == (16, "bfloat16", "all-linear")
    given = configured.arguments(cfg)
    assert given["learning_rate"] == 2e-4 and given["activation_checkpointing"] is True
    shape = shape_of(name)
    setup = configured.setup_of(cfg, shape, 1)
    length, rows = given["max_length"], given["per_device_train_batch_size"]
    plan = configured.make_plan(
        cfg, shape, setup, Batch(rows=rows, length=length, targets=rows * length // 4), None, compute.GPU
    )
    fits = plan.peak[1] <= RECIPES[recipe] * 2**30 * configured.USABLE_SHARE and plan.refused is None
    assert fits is ((name, recipe) != ("gpt_oss_20b", "lora_24gb"))  # its experts alone are 36 GiB in bfloat16


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_for_any_model_and_the_command_line_overrides_it(recipe):
    cfg = composed("stage=irm", "model=tiny", f"+recipe={recipe}", "model.lora.r=4", "stage.args.learning_rate=3e-5")
    assert cfg.model.lora.r == 4 and configured.arguments(cfg)["learning_rate"] == 3e-5
    cfg = composed("stage=sft", "model.path=org/model", f"+recipe={recipe}")
    assert configured.arguments(cfg)["max_length"] == {"lora_24gb": 4096, "lora_80gb": 8192}[recipe]


# --- the plan's formulas, at the true sizes ---------------------------------------------------------------------------


def kept_by_autograd(config, length: int) -> int:
    """Return the bytes that a forward pass keeps for the backward pass, besides the weights, without allocating any."""
    kept: dict[int, torch.Tensor] = {}
    with FakeTensorMode(allow_non_fake_inputs=True):
        how = {"attn_implementation": config._attn_implementation, "dtype": torch.bfloat16}
        model = AutoModelForCausalLM.from_config(config, **how).train()
        weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            if (storage := tensor.untyped_storage()._cdata) not in weights:
                kept[storage] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            ids = torch.zeros(1, length, dtype=torch.long)
            model(input_ids=ids, attention_mask=torch.ones_like(ids), logits_to_keep=1, use_cache=False)
        return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("name", [name for name in MODELS if name != "functiongemma_270m"])
def test_a_block_of_the_true_size_keeps_what_the_plan_says(name):
    """A mask without content counts as one with padding: it is not left out."""
    found, length = [], 1000
    for layers in (1, 2):  # the difference is one block
        config = config_of(name, num_hidden_layers=layers)
        if getattr(config, "layer_types", None):
            config.layer_types = [config.layer_types[0]] * layers
        found.append(kept_by_autograd(config, length))
    shape = shapes.shape_of(config)
    setup = Setup(bf16=True, weight_bytes=2, attention=config._attn_implementation)
    planned = memory.block_activations(shape, setup, Batch(rows=1, length=length, masked=True)) * length
    assert planned == pytest.approx(found[1] - found[0], rel=0.06)


# --- random models of three layers -----------------------------------------------------------------------------------


def small(name: str):
    """Return a random model of three layers of an architecture, and the encoder of a family's template."""
    family = MODELS[name][2]
    encoder = native_formats.mistral_encoder() if family == "mistral" else native_formats.encoder(family)
    tokenizer, sizes = encoder.tokenizer, group_of(name).sizes
    known = {key: value for key, value in SMALL.items() if key in sizes or key in ("hidden_size", "head_dim")}
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    config = config_of(name, **known, vocab_size=len(tokenizer), max_position_embeddings=4096, **ids)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation=config._attn_implementation), encoder


ARCHITECTURES = ("qwen3_0_6b", "llama3_2_1b", "smollm3_3b", "gemma3_270m", "gpt_oss_20b", "mistral_7b_v0_3")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_random_model_of_the_architecture_learns_a_turn_in_a_format(name):
    model, encoder = small(name)
    assert model.config.num_hidden_layers == 3
    turn = next(encoder.turns(native_formats.PARALLEL, 9.0))
    ids = torch.tensor([[*turn.prompt.ids, *turn.said.ids]])
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    assert torch.isfinite(loss)
    assert all(weight.grad is not None and torch.isfinite(weight.grad).all() for weight in model.parameters())


@pytest.mark.parametrize(("name", "form"), [("qwen3_1_7b", "qwen3"), ("gemma3_270m", "tl")])
def test_two_steps_by_a_recipe_and_answers(tltrain, tmp_path, name, form):
    model, encoder = small(name)
    encoder.tokenizer.save_pretrained(tmp_path / "base")
    model.save_pretrained(tmp_path / "base")
    words = (f"model={name}", f"model.path={tmp_path / 'base'}", f"format={form}", "+recipe=lora_24gb")
    few = ("data.size=6", "data.holdout=0", "stage.args.max_steps=2", "stage.args.gradient_accumulation_steps=1")
    ran = tltrain("stage=pkt", *words, *few, "hardware.bf16=false", "stage.args.warmup_steps=0")
    trained = ran.folder / "model"
    assert (trained / "model.safetensors").is_file() and ran.metrics["train"]["train_loss"] > 0
    asked = ("stage=eval", f"model.path={trained}", "format=auto", "benchmark.size=2", "stage.max_new_tokens=4")
    assert "toolworld/ts" in tltrain(*asked, "hardware.bf16=false").metrics
