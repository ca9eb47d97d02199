"""stage=export through the command line: merged adapters, a push to a hub on this machine, and GGUF."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from tests.support.composition import mistake
from tests.support.fake_hub import TOKEN, hub
from tests.support.gguf_converter import converter
from tests.support.small_runs import TRAINED, last_line
from tltrain.serving import gguf, llama_cpp
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


def test_the_model_itself_and_what_is_no_export_are_not_replaced(tltrain, model, tmp_path):
    own = tmp_path / "models" / "model"
    shutil.copytree(model, own)
    ran = tltrain("stage=export", f"model.path={own}", "overwrite=true", folder=own.parent, status=1)
    assert last_line(ran) == f"{own} is the model that is to be exported: give another hydra.run.dir"
    ran = tltrain("stage=export", f"model.path={model}", folder=own.parent, status=1)
    assert last_line(ran).startswith(f"{own} is there already and is not an earlier export")
    (own / "mine.txt").touch()
    tltrain("stage=export", f"model.path={model}", "overwrite=true", folder=own.parent)
    assert not (own / "mine.txt").exists()
    tltrain("stage=export", f"model.path={model}", folder=own.parent)  # of an earlier export


def test_what_a_link_leads_to_is_not_passed_on(tltrain, model, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(model, own)
    (own / "optimizer.pt").touch()
    ran = tltrain("stage=export", f"model.path={own}")
    assert not (ran.folder / "model" / "optimizer.pt").exists() and "keeps to resume: optimizer.pt" in ran.err
    (own / "data").symlink_to(tmp_path)
    ran = tltrain("stage=export", f"model.path={own}", status=1)
    assert "own/data is a link to" in last_line(ran) and not (ran.folder / "model").exists()


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


def test_a_repository_of_something_else_is_not_written_to_by_mistake(tltrain, model, at_hub):
    at_hub.private["me/tools"], at_hub.files = True, {"README.md": b"", "train.py": b"", "model-q8_0.gguf": b"old"}
    words = ("stage=export", f"model.path={model}", "stage.hub=me/tools")
    said = "stage.hub=me/tools: that repository has 3 files and no tltrain.json, so it is not ours; another name makes"
    assert last_line(ran := tltrain(*words, status=1)).startswith(said) and not (ran.folder / "model").exists()
    tltrain(*words, "overwrite=true")
    assert at_hub.removed == ["model-q8_0.gguf"] and {"train.py", "model.safetensors"} <= set(at_hub.files)
    ran = tltrain(*words)  # it is ours now
    assert "me/tools is there already and gets another commit" in ran.err


def test_a_token_that_may_only_read_is_refused_before_any_work(tltrain, model, at_hub):
    at_hub.user["auth"] = {"accessToken": {"role": "read"}}
    ran = tltrain("stage=export", f"model.path={model}", "stage.hub=me/tools", status=1)
    assert last_line(ran).startswith("stage.hub=me/tools: the token may only read: make one with write access")
    assert not (ran.folder / "model").exists()


def test_what_a_hub_refuses_is_one_line(tltrain, model, at_hub, monkeypatch):
    at_hub.read_only = True
    ran = tltrain("stage=export", f"model.path={model}", "stage.hub=me/tools", status=1)
    assert last_line(ran).startswith("stage.hub=me/tools: the hub refuses: You have read access only; a token needs")
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


def test_mistakes_before_anything_is_loaded(tltrain, model, tmp_path, monkeypatch):
    ran = tltrain("stage=export", status=1)
    assert last_line(ran) == "stage=export takes the folder of a trained model: give model.path=FOLDER"
    ran = tltrain("stage=export", f"model.path={model}", "stage.hub=tools", status=1)
    assert last_line(ran) == "stage.hub=tools: expected OWNER/NAME, such as me/tools-0.6b"
    ran = tltrain("stage=export", f"model.path={model}", "stage.gguf=f16", f"stage.converter={tmp_path}/no", status=1)
    assert "expected convert_hf_to_gguf.py, a folder that has it, or a command; without this key: " in last_line(ran)
    assert not (ran.folder / "model").exists()
    monkeypatch.setattr(gguf, "PLACE", tmp_path / "place")
    for module in (gguf, llama_cpp):  # neither the converter nor llama.cpp is installed
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    readme = ("stage=export", "stage.gguf=q8_0", f"model.path={model}")
    ran = tltrain(*readme, status=1)
    assert last_line(ran).startswith("stage.gguf needs llama.cpp's converter, once for this environment: ")
    assert not (ran.folder / "model").exists()
    converter(tmp_path / "place")  # as the line says
    ran = tltrain(*readme, "data.size=8", "stage.verify=1")
    assert (ran.folder / "model" / "model-q8_0.gguf").is_file()
    assert "export: the file will not be compared with the model: the package xllamacpp" in ran.err
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
