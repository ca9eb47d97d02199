"""Untrusted models and tools: only a model's weights are read and nothing in it is run; tools run in isolation."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from tests.support.command_line import command_line
from tests.support.launched_runs import SUPERVISED
from tests.support.rude_tools import LIBRARY
from tests.support.small_runs import ALGORITHMS, FEW, SMALL
from tltrain.environments import sandbox

CODE = """
from pathlib import Path
Path({canary!r}).write_text("ran")
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class StrangeConfig(LlamaConfig):
    model_type = "strange"
class StrangeModel(LlamaForCausalLM):
    config_class = StrangeConfig
class StrangeTokenizer(PreTrainedTokenizerFast):
    pass
"""


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = str(canary)

    def __reduce__(self):
        return (open, (self.canary, "w"))


@pytest.fixture
def canary(tmp_path):
    """A file that untrusted code would create; it must not exist afterwards."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "a stranger's code was run"


@pytest.fixture(scope="module")
def trained(run_once):
    """A run that kept its checkpoints."""
    return run_once("stage=sft", *SMALL, *SUPERVISED, "stage.args.save_steps=3", "stage.keep_checkpoints=true")


@pytest.fixture
def model(trained, tmp_path) -> Path:
    """A copy of a model folder."""
    return Path(shutil.copytree(trained.folder / "model", tmp_path / "model"))


def refused(tltrain, *words: str) -> str:
    ran = tltrain(*SMALL, *words, status=1)
    assert "Traceback" not in ran.err
    return ran.err.splitlines()[-1]


def in_pickle(file: Path, canary: Path) -> None:
    file.write_bytes(pickle.dumps({"model.norm.weight": Payload(canary)}))


def in_torchs_pickle(file: Path, canary: Path) -> None:
    torch.save({"state": Payload(canary)}, file)


WRITERS = pytest.mark.parametrize("write", [in_pickle, in_torchs_pickle], ids=["pickle", "torch's pickle"])


@WRITERS
@pytest.mark.parametrize("stage", ["sft", "eval"])
def test_a_folder_with_pickled_weights_alone(tltrain, model, canary, write, stage):
    (model / "model.safetensors").unlink()
    write(model / "pytorch_model.bin", canary)
    words = {"sft": ["data.size=4"], "eval": ["benchmark.size=1"]}[stage]
    line = refused(tltrain, f"stage={stage}", *words, f"model.path={model}")
    assert line.startswith(f"{model} cannot be read as a model: ") and "safetensors" in line


def test_pickled_weights_beside_safetensors_are_not_looked_at(tltrain, model, canary):
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        in_pickle(model / name, canary)
    tltrain("stage=eval", *SMALL, "benchmark.size=1", "stage.max_new_tokens=1", f"model.path={model}")


@pytest.fixture
def strange(model, canary) -> Path:
    """A model folder with its own code for everything."""
    (model / "strange.py").write_text(CODE.format(canary=str(canary)))
    config = json.loads((model / "config.json").read_text())
    config |= {
        "model_type": "strange",
        "auto_map": {
            "AutoConfig": "strange.StrangeConfig",
            "AutoModelForCausalLM": "strange.StrangeModel",
            "AutoModelForTokenClassification": "strange.StrangeModel",
        },
    }
    (model / "config.json").write_text(json.dumps(config))
    settings = json.loads((model / "tokenizer_config.json").read_text())
    settings |= {"auto_map": {"AutoTokenizer": [None, "strange.StrangeTokenizer"]}, "tokenizer_class": "Strange"}
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    return model


@pytest.mark.parametrize(
    "words",
    [
        ("stage=sft", "data.size=4"),
        ("stage=eval", "benchmark.size=1"),
        ("stage=analyze", "data.size=4"),
    ],
    ids=lambda words: words[0],
)
def test_a_folder_with_code(tltrain, strange, canary, words):
    line = refused(tltrain, *words, f"model.path={strange}")
    assert line == f"the model {strange} contains its own code, which runs only with model.trust_remote_code=true"


def test_code_is_run_where_the_user_says_so(tmp_path, models_cache, strange, canary):
    """The tests above rely on this: the code is in the right place."""
    words = ["stage=eval", "benchmark.size=1", "stage.max_new_tokens=1", "model.trust_remote_code=true"]
    ran = command_line(*SMALL, *words, f"model.path={strange}", folder=tmp_path / "run", cache=models_cache)
    assert canary.exists(), ran.err
    canary.unlink()


@pytest.mark.parametrize("what", ["pickle", "code"])
def test_a_critic_from_a_stranger(tltrain, trained, model, canary, request, what):
    if what == "pickle":
        (model / "model.safetensors").unlink()
        in_pickle(model / "pytorch_model.bin", canary)
    else:
        request.getfixturevalue("strange")
    words = [*SMALL, *FEW, *ALGORITHMS["ppo"], f"stage.critic.path={model}"]
    line = tltrain("stage=irm", *words, status=1).err.splitlines()[-1]
    assert line.startswith(f"{model} cannot be read as a critic: ")


@WRITERS
def test_an_adapter_in_pickle(tltrain, model, tmp_path, canary, write):
    adapter = Path(shutil.copytree(model, tmp_path / "adapter", ignore=shutil.ignore_patterns("*.safetensors")))
    (adapter / "config.json").unlink()
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(model), "r": 2}
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"target_modules": ["q_proj"]}))
    write(adapter / "adapter_model.bin", canary)
    line = refused(tltrain, "stage=eval", "benchmark.size=1", f"model.path={adapter}")
    assert line.startswith(f"{adapter} cannot be read as an adapter: ")


# --- checkpoints ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
@WRITERS
def test_a_checkpoint_with_a_pickle(tltrain, trained, tmp_path, canary, name, write):
    checkpoint = shutil.copytree(trained.folder / "checkpoints" / "checkpoint-6", tmp_path / "checkpoint-3")
    shutil.copyfile(trained.folder / "checkpoints" / "checkpoint-6" / name, checkpoint / name)
    write(checkpoint / name, canary)
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    (checkpoint / "trainer_state.json").write_text(json.dumps(state | {"global_step": 3}))
    line = refused(tltrain, "stage=sft", *SUPERVISED, f"stage.args.resume_from_checkpoint={checkpoint}")
    assert line.startswith(f"{checkpoint} cannot be resumed from: ")


@pytest.mark.parametrize("content", ["", "[" * 100_000, '{"values": 1}', '{"processed": 1, "values": "x"}'])
def test_a_checkpoint_whose_sums_are_damaged(tltrain, trained, tmp_path, canary, content):
    checkpoint = shutil.copytree(trained.folder / "checkpoints" / "checkpoint-6", tmp_path / "checkpoint-6")
    (checkpoint / "sums_0.json").write_text(content)
    line = refused(tltrain, "stage=sft", *SUPERVISED, f"stage.args.resume_from_checkpoint={checkpoint}")
    assert line.startswith(f"{checkpoint} cannot be resumed from: ")


def test_what_nothing_reads_may_hold_anything(tltrain, trained, tmp_path, canary):
    checkpoint = shutil.copytree(trained.folder / "checkpoints" / "checkpoint-6", tmp_path / "checkpoint-6")
    in_pickle(checkpoint / "training_args.bin", canary)
    tltrain("stage=sft", *SMALL, *SUPERVISED, f"stage.args.resume_from_checkpoint={checkpoint}")


def test_a_rollout_of_a_checkpoint_is_no_place_for_code(tmp_path, canary):
    from types import SimpleNamespace

    from tltrain.training.ppo import ROLLOUT, SUMS, PPOTrainer

    for name in (ROLLOUT, SUMS):
        for write in (in_pickle, in_torchs_pickle):
            folder = tmp_path / f"{name}-{write.__name__}"
            folder.mkdir()
            write(folder / f"0_{name}", canary)
            sums = SimpleNamespace(values={})
            trainer = SimpleNamespace(args=SimpleNamespace(process_index=0, device="cpu"), _sums=sums)
            with pytest.raises(pickle.UnpicklingError):
                PPOTrainer._load_extra(trainer, folder)


# --- tool libraries -------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A checkout of ToolEyes with one query, in a folder that only our user can enter."""
    folder = tmp_path / "checkout"
    shutil.copytree(LIBRARY / "Text", folder / "Tool_Library" / "Text")
    tools = (LIBRARY / "Text" / "Words" / "config_gpt4.json").read_text()
    said = [{"from": "system", "value": f"You have access of the following tools:\n{tools}"}]
    said += [{"from": "user", "value": "How many words?"}]
    record = {"id": "1", "conversations": said, "path": "ToolEyes/Tool_Library/Text/Words", "scenario": "TG"}
    (folder / "Test_Data").mkdir()
    (folder / "Test_Data" / "scenario_data_zero_processed.json").write_text(json.dumps([record]))
    return folder


def test_the_isolation_of_tools_is_said_and_recorded(tltrain, checkout):
    words = ["stage=eval", "benchmark=tooleyes", "source=random", "benchmark.max_turns=2"]
    ran = tltrain(*words, f"benchmark.path={checkout}")
    level = sandbox.isolation()
    metrics = json.loads((ran.folder / "metrics.json").read_text())
    assert metrics["isolation"] == {"level": level.level, "network": level.network}
    assert f"isolation level {level.level}" in " ".join((ran.out + ran.err).split())


@pytest.mark.skipif(os.getuid() != 0, reason="only root has to copy a library")
def test_a_tool_library_with_a_pipe_stops_the_run_and_does_not_choose_a_weaker_wall(tltrain, checkout):
    os.mkfifo(checkout / "Tool_Library" / "pipe")
    words = ["stage=eval", "benchmark=tooleyes", "benchmark.isolation=process"]
    line = tltrain(*words, f"benchmark.path={checkout}", status=1).err.splitlines()[-1]
    assert line.startswith(f"{checkout}/Tool_Library/pipe: the tool library cannot be copied for the user nobody")
