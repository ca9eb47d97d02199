"""A plan covers exactly what the stage trains: the same library arguments, the same trained weights."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from functools import cache
from pathlib import Path

import pytest
import torch
import transformers
import trl
import yaml
from omegaconf import DictConfig, OmegaConf

from tests.support.composition import composed
from tltrain.config import STAGES
from tltrain.models import loading
from tltrain.plan import configured, memory
from tltrain.plan.compute import Speed
from tltrain.plan.configured import SampleSizes
from tltrain.plan.setup import Batch
from tltrain.plan.shapes import shape_of
from tltrain.stages import irm, supervised
from tltrain.stages import plan as stage_plan
from tltrain.training import arguments

TRAININGS = {
    "sft": ("stage=sft",),
    "pkt": ("stage=pkt",),
    "ppo": ("stage=irm",),
    "rloo": ("stage=irm", "stage.algorithm=rloo"),
    "grpo": ("stage=irm", "stage.algorithm=grpo"),
}
TINY = ("model=tiny", "hardware=cpu", "hardware.bf16=false", "cache.dir=/nowhere")


@cache
def composed_once(name: str) -> DictConfig:
    return composed(*TRAININGS[name], *TINY)


def training(name: str, *words: str) -> DictConfig:
    """Compose the configuration of a training run once, and override keys."""
    cfg = copy.deepcopy(composed_once(name))
    for key, value in (word.split("=") for word in words):
        OmegaConf.update(cfg, key.lstrip("+"), yaml.safe_load(value), force_add=True)
    return cfg


def places(name: str) -> tuple[str, ...]:
    """Return the places where arguments of a training run may be set; the last place wins."""
    if name in ("sft", "pkt"):
        return ("model.args", "hardware.args", "stage.args")
    return ("model.irm.args", "hardware.args", f"stage.algorithm_args.{name}", "stage.args")


def built(cfg, folder: Path):
    """Return the library's arguments object that the stage makes."""
    stage = {"supervised": supervised, "irm": irm}[STAGES.get(cfg.stage.name, cfg.stage.name)]
    return stage.training_arguments(cfg, folder, "cpu", False)


def plain(value):
    """Return the plain value of a library's enumeration."""
    return getattr(value, "value", value)


CHOSEN = {
    "per_device_train_batch_size": 12,
    "gradient_accumulation_steps": 2,
    "num_train_epochs": 5,
    "max_steps": 7,
    "optim": "adafactor",
    "gradient_checkpointing": True,
    "weight_decay": 0.25,
}
OTHER = {"per_device_train_batch_size": 24, "optim": "sgd", "gradient_checkpointing": False}


def words(place: str, values: dict) -> list[str]:
    return [f"++{place}.{key}={value}" for key, value in values.items()]


CASES = [(name, place) for name in TRAININGS for place in places(name)]


@pytest.mark.parametrize(("name", "place"), CASES)
def test_the_plan_has_the_arguments_of_the_stage(name, place, tmp_path):
    at = places(name).index(place)
    lower = [word for below in places(name)[:at] for word in words(below, OTHER)]
    cfg = training(name, *lower, *words(place, CHOSEN))
    planned, object_ = configured.arguments(cfg), built(cfg, tmp_path)
    assert planned["activation_checkpointing"] is True
    assert (planned["optim"], planned["num_train_epochs"]) == ("adafactor", 5)
    if name in ("rloo", "grpo"):  # TRL derives their batch sizes from one another
        del planned["generation_batch_size"], planned["steps_per_generation"]
    assert planned == {key: plain(getattr(object_, key)) for key in planned}


def test_hardware_may_switch_checkpointing_on():
    """Whichever of its names is used, wherever it is set, the last setting counts."""

    def peak(*more: str) -> float:
        cfg = training("pkt", *more)
        setup = configured.setup_of(cfg, SHAPE)
        return configured.make_plan(cfg, SHAPE, setup, Batch(rows=1, length=2000, targets=10), None, SPEED).peak[1]

    without = peak()
    assert peak("++hardware.args.gradient_checkpointing=true") < without
    assert peak("++hardware.args.gradient_checkpointing=true") == peak("++stage.args.gradient_checkpointing=true")
    assert peak("++model.args.activation_checkpointing=true") == peak("++stage.args.gradient_checkpointing=true")
    assert peak("++model.args.activation_checkpointing=true", "++stage.args.gradient_checkpointing=false") == without
    assert peak("++stage.args.activation_checkpointing=null") == without


def test_fsdp_may_checkpoint_by_itself():
    cfg = composed("stage=pkt", "model=tiny", "hardware=fsdp", "++hardware.fsdp.activation_checkpointing=true")
    assert configured.setup_of(cfg, SHAPE).checkpointing
    assert not configured.setup_of(cfg, SHAPE, strategy="zero2").checkpointing


@pytest.mark.parametrize("name", TRAININGS)
def test_the_plan_knows_the_librarys_defaults(name, tmp_path):
    cfg = training(name)
    kind = arguments.library_class(cfg.stage)
    package, _, class_ = kind.partition(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = getattr({"trl": trl, "transformers": transformers}[package], class_)(str(tmp_path), bf16=False)
    ours = configured.DEFAULTS | configured.OWN_DEFAULTS.get(kind, {})
    fields = {field.name: field.default for field in dataclasses.fields(type(theirs))}
    for key, value in ours.items():
        assert value == (fields[key] if key.endswith(("batch_size", "generation")) else plain(getattr(theirs, key))), (
            key
        )


# --- tokens -----------------------------------------------------------------------------------------------------------

ROWS = SampleSizes([10, 20], [1, 1])
SPEED = Speed(1.0, 1.0, "")


@pytest.mark.parametrize(
    ("algorithm", "more", "sampled", "read"),
    [
        # Two prompts of 30 tokens, answered with 4 tokens each.
        ("ppo", [], 2 * 4, 30 + 8),
        ("ppo", ["stage.ppo_epochs=3"], 2 * 4, 3 * (30 + 8)),
        ("ppo", ["stage.ppo_epochs=2", "stage.args.max_steps=4"], 2 * 2 * 4, 4 * (30 + 8)),  # two prompts per step
        ("grpo", ["stage.algorithm_args.grpo.num_generations=8"], 8 * 2 * 4, 8 * (30 + 8)),
        ("rloo", ["++stage.args.num_iterations=2"], 4 * 2 * 4, 2 * 4 * (30 + 8)),
        ("rloo", ["stage.args.max_steps=3"], 3 * 2 * 4, 3 * (30 + 8)),
    ],
)
def test_what_is_sampled_and_learned_from_by_hand(algorithm, more, sampled, read):
    size = "stage.args.per_device_train_batch_size=2", "stage.args.gradient_accumulation_steps=1"
    cfg = training(algorithm, "stage.args.num_train_epochs=1", *size, "stage.max_new_tokens=4", *more)
    found = configured.tokens_of(cfg, ROWS, configured.setup_of(cfg, SHAPE))
    assert (found.sampled, found.read) == (sampled, read)
    assert found.prefill == 30 / 8 * sampled


@pytest.mark.parametrize(
    ("more", "samples"),
    [([], 16), (["++stage.args.steps_per_generation=2"], 32), (["++stage.args.generation_batch_size=48"], 48)],
)
def test_a_group_samples_what_trl_samples_at_once(more, samples):
    cfg = training("grpo", *more)
    assert configured.batch_of(cfg, ROWS, configured.setup_of(cfg, SHAPE)).samples == samples


# --- trained weights --------------------------------------------------------------------------------------------------

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SMALL = tuple(f"model.random.{key}={value}" for key, value in (SIZES | {"num_key_value_heads": 2}).items())
LORA = {
    "whole": (),
    "r=8": ("model.lora.r=8",),
    "all-linear": ("model.lora.r=8", "model.lora.target_modules=all-linear"),
}
SHAPE = shape_of(
    transformers.LlamaConfig(
        vocab_size=768, **SIZES, num_key_value_heads=2, max_position_embeddings=8192, tie_word_embeddings=True
    )
)


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    cfg = training("sft", *SMALL)
    return loading.resolve(cfg.model, str(tmp_path_factory.mktemp("cache")), lambda: ["def tool(): finish()"] * 9)


def trainable(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


@pytest.mark.parametrize("lora", LORA)
@pytest.mark.parametrize("name", TRAININGS)
def test_the_plan_trains_what_the_stage_trains(name, lora, path):
    cfg = training(name, *SMALL, *LORA[lora])
    policy = loading.load(path, cfg.model, torch.float32, torch.device("cpu"))
    built = {"model" if name in ("sft", "pkt") else "policy": policy}
    if name == "ppo":
        models = irm.load_models(cfg, path, policy, lambda: 0.5)
        built["critic"] = models.critic
        assert (models.reference is None) == (lora != "whole")
    counts = {name: sum(map(torch.Tensor.numel, trainable(model))) for name, model in built.items()}
    shape = shape_of(policy.config)
    for strategy in ("none", "zero2", "zero3", "fsdp"):
        setup = configured.setup_of(cfg, shape, 2, strategy)
        plan = configured.make_plan(cfg, shape, setup, Batch(rows=1, length=10, targets=1), None, SPEED)
        assert plan.trained == counts
        step = plan.moments["step"]
        assert step["gradients"] == sum(counts.values()) * 4 / (1 if strategy == "none" else 2)
        assert bool(step.get("reference")) == (cfg.stage.name == "irm" and lora == "whole")


def test_an_adapter_is_float32_beside_weights_of_16_bits(path):
    cfg = training("ppo", *SMALL, *LORA["r=8"], "model.dtype=bfloat16")
    policy = loading.load(path, cfg.model, torch.bfloat16, torch.device("cpu"))
    held = sum(parameter.nbytes for parameter in trainable(policy))
    shape = shape_of(policy.config)
    setup = configured.setup_of(cfg, shape)
    assert memory.state(shape.parameters, shape.block, setup)["gradients"] == held


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (["hardware=gpu"], "stage.args.learning_rate=1e-06: bfloat16 weights would lose most updates to rounding"),
        (["hardware=gpu", "stage.of=irm"], "stage.args.learning_rate=2e-07 and stage.critic.learning_rate=1e-07"),
        (["hardware=zero2"], None),
        (["hardware=gpu", "model.lora.r=8"], None),
        (["hardware=gpu", "model.dtype=float32"], None),
        (["hardware=gpu", "model.allow_lost_updates=true"], None),
        (["hardware=gpu", "stage.of=eval"], None),
    ],
)
def test_a_plan_whose_updates_would_be_lost_does_not_fit(words, refused):
    command = ["stage=plan", "stage.of=pkt", "model=codellama_7b", "stage.length=512", "stage.memory_gb=1000"]
    _, metrics = stage_plan.make(composed(*command, "stage.processes=1", *words))
    assert metrics["fits"] is (refused is None)
    assert (metrics["refused"] or "").startswith(refused or "") and bool(metrics["refused"]) is bool(refused)
