"""Each configuration key has a meaning and a range, and the range is enforced."""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache

import pytest
from omegaconf import DictConfig, OmegaConf

from tests.support.composition import mistake, quick
from tests.support.configuration_keys import paths
from tltrain import config
from tltrain.config import Bounds, keys_of
from tltrain.entry import arguments, checks, reference
from tltrain.errors import TltrainError

SCHEMAS = sorted({value for value in vars(config).values() if is_dataclass(value)} - {Bounds, config.Key}, key=str)
STAGES = ("sft", *(name for name in config.STAGES if name not in ("sft", "pkt")))


BOUNDED = [(stage, key, bounds) for stage in STAGES for key, bounds in paths(config.stage_schema(stage), "stage")]
BOUNDED += [("mae", key.removeprefix("."), bounds) for key, bounds in paths(config.Config, "")]
BOUNDED += [("sft", "stage.args.max_length", arguments.BOUNDS["max_length"])]
BOUNDED += [("plan", "stage.supervised.args.max_length", arguments.BOUNDS["max_length"])]
BOUNDED = [(stage, key, bounds) for stage, key, bounds in BOUNDED if bounds]


def numeric(hint: typing.Any) -> bool:
    return hint in (int, float) or any(each in (int, float) for each in typing.get_args(hint))


def outside(bounds: Bounds) -> Iterator[float]:
    """Yield a number beyond each bound."""
    if bounds.least is not None:
        yield bounds.least - 1
    if bounds.most is not None:
        yield bounds.most + 1
    yield from (limit for limit in (bounds.above, bounds.below) if limit is not None)


@cache
def composed(stage: str) -> DictConfig:
    with quick():
        return reference.composed({"stage": stage, "model": "tiny"})


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.__name__)
def test_every_key_has_a_meaning_and_every_number_a_range(schema):
    hints = typing.get_type_hints(schema)
    for each in fields(schema):
        known = keys_of(schema)[each.name]
        assert known.meaning and not known.meaning.endswith("."), each.name
        assert bool(known.bounds) == (numeric(hints[each.name]) and "dict" not in str(hints[each.name])), each.name
        assert hints[each.name] is not typing.Any or known.types or known.among, each.name


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.__name__)
def test_defaults_are_within_their_range(schema):
    for name, known in keys_of(schema).items():
        default = schema.__dataclass_fields__[name].default
        if known.bounds and default not in (None, "???"):
            assert default in known.bounds, name


@pytest.mark.parametrize(("stage", "key", "bounds"), BOUNDED, ids=[f"{stage}-{key}" for stage, key, _ in BOUNDED])
def test_a_number_out_of_range_ends_in_one_line_that_names_its_key(stage, key, bounds):
    refused = 0
    for value in outside(bounds):
        cfg = composed(stage).copy()
        OmegaConf.update(cfg, key, value, force_add=True)
        with pytest.raises(TltrainError) as error:
            checks.check(cfg)
        found = OmegaConf.select(cfg, key)
        assert str(error.value).startswith(f"{key}: expected {bounds}, found {found}")
        assert "\n" not in str(error.value)
        refused += 1
    assert refused


NUMBERS = [(schema, each.name) for schema in SCHEMAS for each in fields(schema) if keys_of(schema)[each.name].bounds]
"""Every numeric key of every schema, including future ones."""


@pytest.mark.parametrize(("schema", "name"), NUMBERS, ids=[f"{schema.__name__}.{name}" for schema, name in NUMBERS])
def test_every_number_has_a_finite_range(schema, name):
    """A key's own check refuses values beyond its ends, infinities and NaN, without a composition."""
    bounds = keys_of(schema)[name].bounds
    assert bounds.least is not None or bounds.above is not None, f"{name}: how small may it be?"
    beyond = [*outside(bounds), math.inf, -math.inf, math.nan, 10**19, -(10**23), 1e300]
    for value in beyond:
        node = OmegaConf.create({name: value}, flags={"allow_objects": True})
        with pytest.raises(TltrainError) as error:
            checks.check_node(node, schema, "group")
        assert str(error.value).startswith(f"group.{name}: expected {bounds}") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stage=pkt", "stage.w_max=inf"], "stage.w_max: expected a number from 1 to 1000000, found inf"),
        (["stage=sft", "stage.args.learning_rate=nan"], "stage.args.learning_rate: expected 0 or more, found nan"),
        (["seed=-1"], "seed: expected a number from 0 to 4294967295, found -1"),
        (
            ["seed=12345678901234567890123"],
            "seed: expected a number from 0 to 4294967295, found 12345678901234567890123",
        ),
    ],
)
def test_a_number_that_is_none_or_without_end_is_said_in_one_line(words, said):
    line = mistake(*words)
    assert line.startswith(said) and "\n" not in line


@pytest.mark.parametrize("name", arguments.BOUNDS)
def test_an_argument_of_a_library_has_its_range(name):
    kinds = [kind for kind, classes in arguments.ARGUMENTS.items() if name in arguments.library_fields(classes)]
    assert kinds
    for kind in kinds:
        for value in (*outside(arguments.BOUNDS[name]), math.nan, 10**19):
            with pytest.raises(TltrainError, match=rf"^stage\.args\.{name}: expected "):
                arguments.check_arguments({name: value}, "stage.args", kind)


def test_an_argument_without_a_range_is_finite():
    arguments.check_arguments({"save_total_limit": 3}, "stage.args")
    with pytest.raises(
        TltrainError, match=r"^stage\.args\.save_total_limit: expected any number, at most 1e\+18, found"
    ):
        arguments.check_arguments({"save_total_limit": 10**19}, "stage.args")


def test_every_composed_stage_is_within_its_ranges():
    for stage in reference.names_of("stage"):
        checks.check(composed(stage))


@pytest.mark.parametrize(
    ("bounds", "words", "within", "without"),
    [
        (Bounds(least=1), "1 or more", (1, 2.5, 10**18), (0.9, -1, math.nan, math.inf, 10**19)),
        (Bounds(most=1), "1 or less", (1, -3), (1.1, math.nan, -math.inf)),
        (Bounds(above=0), "a number above 0", (0.001,), (0, -1)),
        (Bounds(below=1), "a number below 1", (0.999,), (1, 2)),
        (Bounds(least=0, most=1), "a number from 0 to 1", (0, 0.5, 1), (-0.1, 1.1)),
        (Bounds(least=0, below=1), "a number from 0 to below 1", (0, 0.9), (-0.1, 1)),
        (Bounds(), "any number", (-5, 5.5), ("5", None, True, math.nan)),
    ],
)
def test_bounds(bounds, words, within, without):
    assert str(bounds) == words
    assert all(value in bounds for value in within)
    assert not any(value in bounds for value in without)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stage=pipeline", "stage.rl.kl=-1"], "stage.rl.kl: expected 0 or more, found -1.0"),
        (["stage=pipeline", "stage.supervised.tree_size=0"], "stage.supervised.tree_size: expected a number from 1"),
        (["stage=pipeline", "++stage.rl.critic.lr=1"], "stage.rl.critic.lr: no such key"),
        (["stage=plan", "++stage.eval.batch=1"], "stage.eval.batch: no such key; did you mean batch_size?"),
        (["+model.demo.train_size=0"], "model.demo.train_size: expected a number from 1 to"),
        (["+model.sweep.sze=5"], "model.sweep.sze: no such key; did you mean size?"),
        (["model.lora.dropout=1"], "model.lora.dropout: expected a number from 0 to below 1, found 1.0"),
        (["seed=-1"], "seed: expected a number from 0 to 4294967295, found -1"),
        (["stage=sft", "+stage.args.max_length=0"], "stage.args.max_length: expected 1 or more, found 0"),
        (["stage=sft", "stage.args=5"], "stage.args: expected a mapping, found 5"),
        (["stage=irm", "+stage.algorithm_args.dpo.beta=1"], "stage.algorithm_args.dpo: no such key"),
    ],
)
def test_mistakes_below_a_node_name_its_own_key(words, said, tltrain):
    (line,) = tltrain(*words, status=1).err.splitlines()
    assert line.startswith(said)


def test_a_benchmark_of_the_pipeline_is_checked_too(tltrain):
    ran = tltrain("stage=pipeline", "model=tiny", "stage.benchmarks=[{name: toolworld, limit: -1}]", status=1)
    assert ran.err.splitlines()[-1] == "stage.benchmarks, toolworld.limit: expected 1 or more, found -1"


NULLS = [
    (schema, each.name)
    for schema in SCHEMAS
    for each in fields(schema)
    if typing.get_type_hints(schema)[each.name] is typing.Any and type(None) not in keys_of(schema)[each.name].types
]


@pytest.mark.parametrize(("schema", "name"), NULLS, ids=[f"{schema.__name__}.{name}" for schema, name in NULLS])
def test_null_is_no_value_of_a_key_that_has_no_meaning_for_it(schema, name):
    """OmegaConf refuses null for every annotation but Any and Optional."""
    with pytest.raises(TltrainError, match=rf"^group\.{name}: expected .*, found null"):
        checks.check_node(OmegaConf.create({name: None}), schema, "group")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stage=pkt", "stage.args=null"], "stage.args: expected a mapping, found null; {} sets nothing"),
        (["stage=irm", "stage.algorithm_args.ppo=null"], "stage.algorithm_args.ppo: expected a mapping, found null"),
        (["stage=pipeline", "stage.rl=null"], "stage.rl: expected a mapping, found null"),
        (["stage=pipeline", "stage.eval=null"], "stage.eval: expected a mapping, found null"),
        (["stage=pkt", "model.args=null"], "model.args: expected a mapping, found null"),
        (["stage=pkt", "hardware.args=null"], "hardware.args: expected a mapping, found null"),
        (["stage=pkt", "model.bos=null"], "model.bos: expected one of auto, true, false, found null"),
        (["stage=pkt", "model.lora.r=8", "model.lora.target_modules=null"], "model.lora.target_modules: expected a l"),
        (["stage=pkt", "hardware.deepspeed=zero2.json"], "hardware.deepspeed: expected a mapping or null, found zero2"),
        (["stage=report", "report.path=3"], "report.path: expected a text or a list or null, found 3"),
        (["stage=mae", "mae.strict=null"], "mae.strict: expected a mapping, found null"),
        (["mae=strict"], "mae=strict: expected a choice: mae@mae.strict=NAME; stage.rule takes one of the two rules, "),
        (["mae=null"], "mae=null: expected a choice: mae@mae.strict=NAME"),
        (["mae@mae.paper=null"], "mae@mae.paper=null: expected a choice: mae@mae.paper=NAME"),
        (["hydra/launcher=null"], "hydra/launcher=null: expected a choice: hydra/launcher=NAME"),
        (["stage=pkt", "hardware=zero2", "hardware.deepspeed=null"], ""),
        (["stage=plan", "hardware.deepspeed=null", "hardware.fsdp=null"], ""),
    ],
)
def test_null_and_values_of_another_type_where_a_mapping_is_expected(words, said):
    assert mistake(*words)[: len(said) or None] == said
