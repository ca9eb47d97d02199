"""What determines a stage's result: every key, unless a reason is stated; code, versions, and the content of files."""

from __future__ import annotations

import copy
import enum
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import pytest

from tests.support.composition import composed
from tltrain import config
from tltrain.errors import TltrainError
from tltrain.runtime import fingerprints, redact
from tltrain.sweeps import cache_key

WORDS = {
    "mae": ["stage=mae"],
    "mae of a file": ["stage=mae", "data=rotbench"],
    "sft": ["stage=sft", "model=tiny"],
    "pkt": ["stage=pkt", "model=tiny", "model.path=some/model"],
    "irm": ["stage=irm", "model=smollm2_135m"],
    "eval": ["stage=eval", "model=tiny"],
    "eval of a model with a path": ["stage=eval", "model=tiny", "model.path=some/model"],
    "eval of general ability": ["stage=eval", "model=tiny", "model.path=some/model", "benchmark=general"],
    "eval of conversations": ["stage=eval", "model=tiny", "benchmark=tooleyes"],
    "eval by an endpoint": ["stage=eval", "source=endpoint", "stage.rule=paper", "benchmark=rotbench"],
}


@pytest.fixture(autouse=True)
def code(monkeypatch):
    """Avoid computing the code's digest for each key."""
    monkeypatch.setattr(cache_key.source_digest, "digest", lambda *given: "code")


@cache
def values(*words: str) -> dict[str, Any]:
    """Return a whole configuration as plain values; no test may change them."""
    return redact.config(composed("tracking=none", *words))


def other(value: Any, kind: Any) -> Any:
    """Return a value of the same type that differs from `value`."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, list):
        return [*value, "another"]
    if isinstance(value, dict):
        return value | {"another": 1}
    choices = [choice for choice in get_args(kind) or (kind,) if choice is not NoneType]
    for choice in choices:
        if isinstance(choice, type) and issubclass(choice, enum.Enum):
            return next(member.name for member in choice if member.name != value)
        if value is None and choice in (int, float, bool):
            return choice(1)
    return "another"


def keys(node: Any, schema: type | None, where: str) -> Iterator[tuple[str, Any]]:
    """Yield each key of a schema (or of the configuration, if there is none) with a value different from its own."""
    kinds = get_type_hints(schema) if is_dataclass(schema) else {}
    known = config.keys_of(schema) if is_dataclass(schema) else {}
    for name in dict.fromkeys([*kinds, *(node or {})]):
        value = (node or {}).get(name)
        below = known[name].schema if name in known else None
        free = name not in known or (known[name].library is None and below is None)
        if below is not None or (free and isinstance(value, dict) and value):
            yield from keys(value, below, f"{where}{name}.")
        elif value != "???":
            yield f"{where}{name}", other(value, kinds.get(name))


def every_key(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in keys(values, config.Config, ""):
        if name != "stage":
            yield name, value
    yield from keys(values["stage"], config.stage_schema(values["stage"]["name"]), "stage.")


def put(values: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(values)
    *above, last = name.split(".")
    node = changed
    for word in above:
        if node.get(word) is None:
            node[word] = {}
        node = node[word]
    node[last] = value
    return changed


@pytest.mark.parametrize("stage", WORDS)
def test_every_key_changes_the_fingerprint_or_has_a_stated_reason(stage):
    before = values(*WORDS[stage])
    fingerprint = fingerprints.fingerprint(cache_key.key(before))
    wrong, asked = [], set()
    for name, value in every_key(before):
        asked.add(name)
        if name == "stage.name":  # another stage has different keys
            continue
        changed = fingerprints.fingerprint(cache_key.key(put(before, name, value))) != fingerprint
        if changed == (cache_key.exemption_reason(before, name) is not None):
            wrong.append(name)
    assert not wrong
    assert {"seed", "source.name", "benchmark.limit", "stage.name", "model.lora.r", "data.limit"} <= asked
    assert {name.partition(".")[0] for name in asked} >= {each.name for each in fields(config.Config)}


def test_the_content_of_a_rules_tables_counts(tmp_path, monkeypatch):
    before = values("stage=mae", "stage.rule=strict")
    file = tmp_path / "tables.yaml"
    monkeypatch.setattr(cache_key.error_rule, "tables_file", lambda rule: file)
    found = []
    for text in ("flags: [a]", "flags: [another]"):
        file.write_text(text)
        found.append(fingerprints.fingerprint(cache_key.key(before)))
    assert found[0] != found[1]


def test_every_exemption_names_an_existing_key():
    for exemption in cache_key.EXEMPTIONS:
        for stage in exemption.stages:
            alike = [words for words in WORDS.values() if words[0] == f"stage={stage}"]
            known = [name for words in alike for name, _ in every_key(values(*words))]
            assert any(name == exemption.key or name.startswith(f"{exemption.key}.") for name in known), exemption


def test_no_entry_of_the_key_overwrites_a_section():
    plain = values("stage=eval", "source=golden")
    found = cache_key.key(plain)
    assert not set(found) & set(plain)
    assert found["configuration"]["source"]["name"] == "golden" and found["code"] == "code"


# --- files ------------------------------------------------------------------------------------------------------------


def digest_of(folder: Path) -> str:
    return fingerprints.of_path(folder)


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "data" / "inner").mkdir(parents=True)
    (tmp_path / "data" / "inner" / "file").write_text("one")
    return tmp_path / "data"


def test_files_of_linked_folders_count(folder, tmp_path):
    (tmp_path / "elsewhere" / "deeper").mkdir(parents=True)
    (tmp_path / "elsewhere" / "deeper" / "file").write_text("one")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    before = digest_of(folder)
    (tmp_path / "elsewhere" / "deeper" / "file").write_text("two!")
    assert digest_of(folder) != before


def test_a_link_to_a_folder_above_has_an_end(folder):
    (folder / "inner" / "up").symlink_to(folder)
    assert [file.name for file in fingerprints.files(folder)] == ["file"]


def test_a_folder_below_one_called_git_is_read(tmp_path):
    found = []
    for place in ("plain", "repository/.git/modules"):
        (tmp_path / place / "data").mkdir(parents=True)
        (tmp_path / place / "data" / "file").write_text("one")
        found.append(digest_of(tmp_path / place / "data"))
    assert found[0] == found[1]
    (tmp_path / "repository" / ".git" / "modules" / "data" / "file").write_text("two!")
    assert digest_of(tmp_path / "repository" / ".git" / "modules" / "data") != found[1]


def test_what_git_keeps_inside_a_folder_does_not_count(folder):
    before = digest_of(folder)
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("ref")
    assert digest_of(folder) == before


def test_a_folder_without_files_is_an_error(tmp_path):
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    with pytest.raises(TltrainError, match="empty: expected files in this folder, found none"):
        digest_of(tmp_path / "empty")
    with pytest.raises(TltrainError, match=f"data.path={tmp_path}/empty: expected files in this folder"):
        cache_key.key(put(values("stage=mae"), "data.path", str(tmp_path / "empty")))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TltrainError, match="pipe: expected a file or a folder"):
        digest_of(tmp_path / "pipe")


PATHS = [  # a key whose value is a file or folder, and a stage whose result it determines
    ("mae", "data.path"),
    ("sft", "model.path"),
    ("sft", "model.hub"),
    ("sft", "stage.args.resume_from_checkpoint"),
    ("irm", "stage.critic.path"),
    ("eval", "source.tokenizer"),
    ("eval", "benchmark.path"),
    ("eval", "benchmark.include_path"),
    ("eval", "benchmark.user"),
    ("eval", "stage.predictions"),
    ("eval", "stage.compare"),
]


@pytest.mark.parametrize(("stage", "name"), PATHS)
def test_the_content_of_what_a_key_names_counts_and_not_its_name(folder, tmp_path, stage, name):
    def key() -> str:
        given = [str(folder)] if name == "stage.compare" else str(folder)
        return fingerprints.fingerprint(cache_key.key(put(values(*WORDS[stage]), name, given)))

    before = key()
    (folder / "inner" / "file").write_text("another")
    after = key()
    assert after != before
    folder.rename(tmp_path / "moved")
    folder = tmp_path / "moved"
    assert key() == after


def test_an_empty_path_is_no_folder():
    assert cache_key.content("") == ""


def test_an_adapter_is_its_own_weights_and_those_of_its_base(tmp_path):
    for name in ("base", "adapter"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text(name)
    (tmp_path / "adapter" / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(tmp_path / "base")})
    )
    seen = [cache_key.content(str(tmp_path / "adapter"))]
    for name in ("adapter", "base"):
        (tmp_path / name / "weights").write_text(f"another {name}")
        seen.append(cache_key.content(str(tmp_path / "adapter")))
    assert len(set(seen)) == 3
    (tmp_path / "base" / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(tmp_path / "adapter")})
    )
    assert cache_key.content(str(tmp_path / "adapter")) not in seen  # and a cycle ends


def test_the_package_that_a_base_model_comes_from_counts(tmp_path, monkeypatch):
    from tltrain.models import packages

    package = tmp_path / "a_model_of_this_test"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "weights.gguf").write_text("one")
    monkeypatch.syspath_prepend(tmp_path)
    plain = put(values("stage=sft", "model=smollm2_135m"), "model.package", package.name)
    keys, places = [], []
    for text in ("one", "another", "one"):
        (package / "weights.gguf").write_text(text)
        keys.append(fingerprints.fingerprint(cache_key.key(plain)))
        places.append(packages.converted(packages.weights(package.name), "smollm2_135m", "cache"))
    assert keys[0] == keys[2] != keys[1] and places[0] == places[2] != places[1]
    assert places[0].parent == Path("cache/models")


def test_bfcl_s_version_and_data_count(tmp_path, monkeypatch):
    package = tmp_path / "bfcl_eval"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "data" / "BFCL_v4_simple.json").write_text("one")
    monkeypatch.syspath_prepend(tmp_path)
    plain = values("stage=eval", "benchmark=bfcl")
    seen = [fingerprints.fingerprint(cache_key.key(plain))]
    (package / "data" / "BFCL_v4_simple.json").write_text("another")
    seen.append(fingerprints.fingerprint(cache_key.key(plain)))
    (package / "checker.py").write_text("verdict = True\n")
    seen.append(fingerprints.fingerprint(cache_key.key(plain)))
    monkeypatch.setattr(cache_key.fingerprints, "version", lambda name: f"{name} 9")
    seen.append(fingerprints.fingerprint(cache_key.key(plain)))
    assert len(set(seen)) == 4


# --- a resumed run ----------------------------------------------------------------------------------------------------


def test_what_the_choice_of_an_environment_names_counts(tmp_path):
    """`stage.environment` may give no more than its name."""
    (tmp_path / "tasks.json").write_text("[]")
    conversing = ("stage=irm", "stage.rollout=conversation", "reward=conversation", f"paths.tooleyes={tmp_path}")
    asked = values(*conversing, "stage.environment={name: tooleyes}")
    before = cache_key.key(asked)
    assert cache_key.key(asked) == before
    (tmp_path / "tasks.json").write_text("[1]")
    assert cache_key.key(asked) != before


def test_the_keys_in_which_two_configurations_differ_are_named():
    before = cache_key.configuration(values("stage=sft", "model=tiny", "hardware.threads=1"))
    words = ["stage=sft", "model=tiny", "hardware.threads=2", "seed=3", "stage.args.max_steps=7", "stage.resume=true"]
    after = cache_key.configuration(values(*words))
    assert cache_key.differences(before, after) == ["seed", "stage.args.max_steps"]
    assert cache_key.differences(before, json.loads(json.dumps(before))) == []


def test_order_and_emptiness_do_not_differ():
    assert cache_key.differences({"a": {"b": 1, "c": {}}}, {"a": {"b": 1}}) == []
    pairs = itertools.permutations([{"a": {"b": 1}}, {"a": {}}, {"a": {"b": 2}}], 2)
    assert all(cache_key.differences(left, right) for left, right in pairs)


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_secrets_are_no_part_of_a_key_but_the_content_of_paths_with_them_is(tmp_path, monkeypatch):
    monkeypatch.setenv("A_TOKEN", "part-of-a-path-1")
    monkeypatch.setenv("B_TOKEN", "part-of-a-path-2")

    def data(token: str, text: str, *words: str) -> dict:
        file = tmp_path / token / "train.jsonl"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        cfg = composed("tracking=none", "stage=mae", "data=tltrain", f"data.path={file}", *words)
        return cache_key.key(config.plain(cfg, enum_to_str=True))

    assert data("part-of-a-path-1", "a") != data("part-of-a-path-2", "b")  # they were one key, and one result
    assert data("part-of-a-path-1", "a") == data("part-of-a-path-2", "a")
    asked = ("tracking=none", "stage=eval", "source=endpoint", "source.url=http://host/v1", "source.model=m")
    keys = [
        cache_key.key(config.plain(composed(*asked, *words), enum_to_str=True))
        for words in (["+source.extra.api_key=short"], ["+source.extra.api_key=other"], ["+source.extra.n=1"])
    ]
    assert keys[0] == keys[1] != keys[2] and "short" not in str(keys[0])
