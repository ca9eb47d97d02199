"""stage=export through the command line: merged adapters, a push to a hub on this machine, and GGUF."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.support.composition import mistake
from tests.support.fake_hub import TOKEN, hub
from tests.support.gguf_converter import converter
from tests.support.small_runs import TRAINED, last_line
from tltrain.serving import llama_cpp
from tltrain.serving.gguf_comparison import Comparison
from tltrain.stages import export

pytestmark = pytest.mark.slow


@pytest.fixture
def model(run_once):
    return run_once(*TRAINED).folder / "model"


@pytest.fixture
def at_hub(monkeypatch):
    """A hub on this machine, whose token this user has."""
    with hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        yield server


def test_a_merged_model_is_copied_whole(tltrain, model):
    ran = tltrain("stage=export", f"model.path={model}")
    target = ran.folder / "model"
    assert {file.name for file in target.iterdir()} == {file.name for file in model.iterdir()}
    assert (target / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert (target / "model.safetensors").stat().st_mode & 0o444 == 0o444  # a server's user may read it
    assert ran.metrics["merged"] is False and "hub" not in ran.metrics and "gguf" not in ran.metrics


def test_an_adapter_is_merged_as_the_training_would_have(tltrain, run_once):
    lora = (*TRAINED, "model.lora.r=2", "model.lora.dropout=0", "certify=0")
    alone = run_once(*lora, "model.lora.merge=false").folder / "model"
    merged = run_once(*lora).folder / "model"
    target = tltrain("stage=export", f"model.path={alone}", "stage.dtype=float32").folder / "model"
    ours, theirs = (load_file(each / "model.safetensors") for each in (target, merged))
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in ours)
    assert not list(target.glob("adapter_*"))
    for name in ("tltrain.json", "chat_template.jinja", "trained_prompts.json"):
        assert (target / name).read_text() == (merged / name).read_text()
    ends = [json.loads((each / "generation_config.json").read_text())["eos_token_id"] for each in (target, merged)]
    assert ends[0] == ends[1]


def test_weights_in_another_dtype(tltrain, model):
    target = tltrain("stage=export", f"model.path={model}", "stage.dtype=bfloat16").folder / "model"
    assert {weight.dtype for weight in load_file(target / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((target / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_push_is_private_and_has_the_card(tltrain, model, at_hub):
    ran = tltrain("stage=export", f"model.path={model}", "stage.hub=me/tools")
    assert at_hub.private == {"me/tools": True}
    assert at_hub.files["README.md"] == (model / "README.md").read_bytes()
    assert at_hub.files["model.safetensors"] == (model / "model.safetensors").read_bytes()
    assert ran.metrics["hub"] == f"{at_hub.url}/me/tools/commit/1" and "(private)" in ran.out
    assert TOKEN not in ran.out + ran.err + (ran.folder / "config.yaml").read_text()
    tltrain("stage=export", f"model.path={model}", "stage.hub=me/tools")  # once more, to the same repository
    assert at_hub.private == {"me/tools": True}


def test_a_public_repository_has_to_be_asked_for(tltrain, model, at_hub):
    at_hub.private["me/open"] = False
    ran = tltrain("stage=export", f"model.path={model}", "stage.hub=me/open", status=1)
    assert last_line(ran).startswith("stage.hub=me/open: that repository is public; stage.private=false pushes to it")
    assert not at_hub.files and not (ran.folder / "model").exists()
    ran = tltrain("stage=export", f"model.path={model}", "stage.hub=me/open", "stage.private=false")
    assert at_hub.files and "(public)" in ran.out
    tltrain("stage=export", f"model.path={model}", "stage.hub=me/new", "stage.private=false")
    assert at_hub.private["me/new"] is False
    at_hub.private["me/hidden"] = True  # a repository that is there keeps its visibility, and the line says which
    ran = tltrain("stage=export", f"model.path={model}", "stage.hub=me/hidden", "stage.private=false")
    assert at_hub.private["me/hidden"] and "(private)" in ran.out and "(public)" not in ran.out


def test_what_a_hub_refuses_is_one_line(tltrain, model, at_hub, monkeypatch):
    at_hub.read_only = True
    ran = tltrain("stage=export", f"model.path={model}", "stage.hub=me/tools", status=1)
    assert last_line(ran).startswith("stage.hub=me/tools: the token may not write there: make one with write access")
    monkeypatch.setenv("HF_TOKEN", "hf_anotherTokenOfNobody0123456789")
    ran = tltrain("stage=export", f"model.path={model}", "stage.hub=me/tools", status=1)
    assert last_line(ran).startswith("stage.hub=me/tools: the hub does not accept the token: set the environment")
    assert not (ran.folder / "model").exists()  # before any work
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    ran = tltrain("stage=export", f"model.path={model}", "stage.hub=me/tools", status=1)
    assert last_line(ran) == (
        "stage.hub needs a token of the hub: set the environment variable HF_TOKEN, or run `hf auth login`"
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    ran = tltrain("stage=export", f"model.path={model}", "stage.hub=me/tools", status=1)
    assert last_line(ran).startswith("stage.hub: HF_HUB_OFFLINE is set")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], ""),
        (["stage.gguf=q4"], "stage.gguf: Invalid value 'q4', expected one of [f32, f16, bf16, q8_0]"),
        (["stage.verify=2"], "stage.verify: stage.gguf=none reads no such key; stage.gguf=f32 or stage.gguf=f16"),
        (["stage.private=false"], "stage.private: without stage.hub nothing is pushed; stage.hub=OWNER/NAME does"),
        (["certify=2"], "certify: stage=export serves no model"),
        (["certify_timeout=60"], ""),
        (["stage.dtype=int8"], "stage.dtype: Invalid value 'int8', expected one of [float32"),
    ],
)
def test_keys(words, line):
    said = mistake("stage=export", *words)
    assert said.startswith(line) if line else said == ""


def test_mistakes_before_anything_is_loaded(tltrain, model, tmp_path):
    ran = tltrain("stage=export", status=1)
    assert last_line(ran) == "stage=export takes the folder of a trained model: give model.path=FOLDER"
    ran = tltrain("stage=export", f"model.path={model}", "stage.hub=tools", status=1)
    assert last_line(ran) == "stage.hub=tools: expected OWNER/NAME, such as me/tools-0.6b"
    ran = tltrain("stage=export", f"model.path={model}", "stage.gguf=f16", f"stage.converter={tmp_path}/no", status=1)
    assert "expected convert_hf_to_gguf.py, a folder that has it, or a command: pip install" in last_line(ran)
    assert not (ran.folder / "model").exists()
    ran = tltrain("stage=pkt", "+stage.args.push_to_hub=true", status=1)
    assert last_line(ran).startswith("stage.args.push_to_hub: this is set by stage=export stage.hub=OWNER/NAME")


GGUF = ("stage.gguf=q8_0", "data.size=8", "data.holdout=0.2", "stage.verify=2")


def test_without_llama_cpp_the_card_says_not_verified(tltrain, model, tmp_path, monkeypatch):
    converter(tmp_path / "own")
    monkeypatch.setattr(llama_cpp, "find_spec", lambda name: None)
    ran = tltrain("stage=export", f"model.path={model}", *GGUF, f"stage.converter={tmp_path / 'own'}")
    target = ran.folder / "model"
    assert (target / "model-q8_0.gguf").read_bytes() == b"GGUFq8_0"
    text = (target / "README.md").read_text()
    assert "**Not verified**: the package xllamacpp, which ships llama.cpp, is not installed: pip install" in text
    assert 'PARAMETER stop "<|im_end|>"' in (target / "Modelfile").read_text()
    assert "not_verified" in ran.metrics["llama_cpp"] and "not verified: the package" in ran.out.replace("\n", " ")


@pytest.mark.parametrize("equal", [2, 1])
def test_what_llama_cpp_finds_ends_in_the_card_and_in_the_status(tltrain, model, tmp_path, monkeypatch, at_hub, equal):
    """The comparison itself is stubbed; tests/serving/test_llama_cpp.py runs llama.cpp."""
    converter(tmp_path / "own")
    made = Comparison(2, equal, 2, 0, 0.0, "q8_0", "xllamacpp 1", () if equal == 2 else ("prompt a: token 1 differs",))
    monkeypatch.setattr(llama_cpp, "find_spec", lambda name: object())
    monkeypatch.setattr(export, "compare", lambda *given: made)
    words = ("stage=export", f"model.path={model}", *GGUF, f"stage.converter={tmp_path / 'own'}", "stage.hub=me/tools")
    ran = tltrain(*words, status=2 - equal)
    card = (ran.folder / "model" / "README.md").read_text()
    assert f"| prompts with exactly the tokens of training | {equal} |" in card
    assert ran.metrics["llama_cpp"]["passed"] is (equal == 2)
    assert bool(at_hub.files) is (equal == 2)  # a file that differs is not pushed
    if equal == 1:
        assert "differs from the trained model: 1 of 2 prompts and 2 answers equal" in last_line(ran)
