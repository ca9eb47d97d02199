"""Messages between processes: values come back unchanged, and reading runs no code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from omegaconf import DictConfig, ListConfig, OmegaConf

from tests.support.composition import composed
from tests.support.traps import trap
from tltrain.errors import TltrainError
from tltrain.runtime import messages
from tltrain.runtime.place import Place
from tltrain.trajectory import ANY, Call, Message, OneOf, Sample, Tool


def returned(value):
    return messages.decode(messages.encode(value))


@pytest.mark.parametrize(
    "value",
    [
        None,
        [1, -2.5, "ä\ud800", True, [], {}],
        float("inf"),
        (1, ("a", [2])),
        {"a": {"b": None}},
        {1: "a", None: "b", "$path": "c", ("d", 1): 2},
        Path("/tmp/x"),
        Place(0, 2, 0, 2, "127.0.0.1", 1),
    ],
)
def test_values_come_back(value):
    found = returned(value)
    assert found == value
    assert type(found) is type(value)


def test_a_sample_comes_back():
    call = Call("find", {"town": OneOf(("A", {"b": [ANY]}), optional=True), "day": ANY}, positional=2)
    tools = (Tool("find", "Finds.", {"type": "object", "properties": {"$ref": {}}}),)
    sample = Sample("1", tools, (Message("user", "?"), Message.calling(call)), (call,), meta={"turn": 1})
    found = returned([sample, sample])
    assert found == [sample, sample]
    assert found[0].goldens[0].arguments["day"] is ANY
    assert found[0].goldens[0].positional == 2


def everything_of(node: DictConfig | ListConfig) -> list:
    """Return the schema, flags and raw value of every node, with its position."""
    found = [(OmegaConf.get_type(node), bool(OmegaConf.is_struct(node)), bool(OmegaConf.is_readonly(node)))]
    for key in node if isinstance(node, DictConfig) else range(len(node)):
        inner = node._get_node(key)
        if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key) or inner._is_none():
            found.append((key, type(inner), inner._value()))
        elif isinstance(inner, DictConfig | ListConfig):
            found.append((key, everything_of(inner)))
        else:
            found.append((key, type(inner), inner._value()))
    return found


@pytest.mark.parametrize(
    "words",
    [
        ("stage=irm", "hardware=zero2", "hardware.processes=2"),
        ("stage=pkt", "model.lora.r=8", "model.lora.target_modules=[q_proj]", "stage.args.max_steps=2"),
        ("stage=eval", "benchmark=toolworld", "source=model"),
        ("stage=pipeline", "hardware.threads=1"),
    ],
    ids=lambda words: words[0],
)
def test_a_configuration_comes_back_with_its_schemas(words):
    cfg = composed(*words)
    found = returned((cfg, cfg.stage))
    assert everything_of(found[0]) == everything_of(cfg)
    assert everything_of(found[1]) == everything_of(cfg.stage)


def test_the_state_of_hydra_comes_back():
    from hydra import compose, initialize_config_dir

    from tltrain import config

    config.register()
    with initialize_config_dir(str(config.CONF_DIR), version_base="1.3"):
        whole = compose("config", ["stage=pkt", "hydra.mode=RUN"], return_hydra_config=True)
    hydra = OmegaConf.masked_copy(whole, "hydra")
    OmegaConf.set_readonly(hydra.hydra, True)
    assert everything_of(returned(hydra)) == everything_of(hydra)


def test_keys_that_only_a_function_reads_come_back():
    """Their schema is made at run time and has no name by which another process could find it."""
    from tltrain.entry import choices

    cfg = composed("stage=pkt", "data._target_=tests.runtime.test_messages.read", "+data.depth=3")
    choices.bind(cfg)
    assert returned(cfg).data == cfg.data
    assert returned(cfg).data.depth == 3


def read(size: int, error_rate: float, depth: int):
    """A user's own reader."""
    raise AssertionError("not called here")


def test_what_has_no_form_in_json_is_named():
    with pytest.raises(TltrainError, match=r"cannot exchange a value of the type builtins\.object"):
        messages.encode([object()])


@pytest.mark.parametrize(
    "text",
    [
        trap(Path("trap")),
        b'{"$dataclass": ["subprocess:Popen", {"args": ["touch", "trap"]}]}',
        b'{"$dataclass": ["dataclasses:Field", {}]}',
        b'{"$enum": ["os:system", "touch trap"]}',
        b'{"$config": {"values": {}, "schemas": [[[], "subprocess:Popen"]], "flags": []}}',
        b'{"$config": 1}',
        b'{"$call": "x"}',
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_a_stranger_s_text_is_refused_and_runs_nothing(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError):
        messages.decode(text)
    assert not list(tmp_path.iterdir())


def test_a_message_is_json():
    assert json.loads(messages.encode((1, "a"))) == {"$tuple": [1, "a"]}
