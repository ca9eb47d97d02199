"""The command line and its configuration: mistakes end in one line, and Hydra works as its users expect."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.paths import ROOT
from tests.support.processes import Forked, forked, process
from tests.support.reader_samples import RAW
from tltrain.entry import usage
from tltrain.sweeps import callback


@pytest.fixture
def raw(tmp_path) -> Path:
    path = tmp_path / "raw.json"
    path.write_text(json.dumps([RAW]))
    return path


# --- mistakes -------------------------------------------------------------------------------------------------------

MISTAKES = {
    "a misspelt key": (["stage=pkt", "stage.w_mx=3"], "stage.w_mx: no such key; did you mean w_max?"),
    "an added key": (["++stage.foo=1"], "stage.foo: no such key"),
    "an added key at the root": (["+foo=1"], "foo: no such key"),
    "a wrong type": (["seed=abc"], "seed: expected a whole number, found abc"),
    "a word for a flag": (["--stage", "pkt"], "--stage pkt: choices and keys have no dashes: stage=pkt"),
    "a path with parentheses": (["stage=pkt", "data=openai", "data.path=a(b).json"], "'data.path=\"a(b).json\"'"),
    "heads that do not divide": (
        ["model=tiny", "model.random.hidden_size=7"],
        "model.random.hidden_size=7: expected a",
    ),
    "a run folder in a file": (
        ["stage=pkt", "hydra.run.dir=/dev/null/run"],
        "hydra.run.dir=/dev/null/run cannot be created: /dev/null is a file",
    ),
    "a cache in a file": (
        ["stage=pkt", "cache.dir=/dev/null/x"],
        "cache.dir=/dev/null/x cannot be created: /dev/null is",
    ),
    "data that is not there": (
        ["stage=pkt", "data=openai", "data.path=/no/such"],
        "/no/such: expected a file of JSON, found: No such file",
    ),
    "a benchmark of a pipeline": (
        ["stage=pipeline", "stage.benchmarks=[{name: rotbench, path: /no/such}]"],
        "/no/such: expected a folder with first_turn and third_turn",
    ),
    "a word that is no choice": (["stage=sft", "stage.packing=all"], "stage.packing: Invalid value 'all', expected"),
    "an unknown stage": (
        ["stage=trian"],
        "stage=trian: no such choice; there are: analyze, cache, certify, chat, check, demo, eval, export, gate",
    ),
    "an unknown model": (
        ["model=gpt"],
        "model=gpt: no such choice; there are: codellama_7b, functiongemma_270m, gemma3_270m",
    ),
    "unknown data": (
        ["data=x"],
        "data=x: no such choice; there are: adp, anthropic, api_log, auto, gemini",
    ),
    "an argument TRL lacks": (
        ["stage=pkt", "+stage.args.learning_rat=1"],
        "stage.args.learning_rat: trl.SFTConfig has no such argument; did you mean learning_rate?",
    ),
    "an argument of the wrong type": (
        ["stage=sft", "+stage.args.learning_rate=high"],
        "stage.args.learning_rate: expected float, found 'high'",
    ),
    "a size Llama lacks": (["model=tiny", "+model.random.layers=1"], "model.random.layers: LlamaConfig has no such"),
    "an argument set elsewhere": (["stage=sft", "+stage.args.seed=1"], "stage.args.seed: this is set by seed"),
    "a weight below 1": (
        ["stage=pkt", "stage.w_max=0.5"],
        "stage.w_max: expected a number from 1 to 1000000, found 0.5",
    ),
    "a bracket left open": (["stage=[pkt"], "stage=[pkt: expected a choice: stage=NAME"),
    "a model's folder that is not there": (["model.path=/no/such"], "model.path=/no/such: there is no such folder"),
}


HELP = {
    "help": ["--help"],
    "help on choices": ["stage=sft", "benchmark=bfcl", "--help"],
    "version": ["--version"],
}


@pytest.fixture(scope="module")
def started(once) -> dict[str, Forked]:
    """Run all command lines of `MISTAKES` and `HELP` in forks of one fresh interpreter."""
    given = [words for words, _ in MISTAKES.values()]
    lines = [words if "hydra.run.dir" in words[-1] else [*words, "hydra.run.dir=run"] for words in given]
    made = once("command lines", lambda folder: forked(folder, [*lines, *HELP.values()]))
    return dict(zip((*MISTAKES, *HELP), made, strict=True))


def leaves_nothing(ran: Forked) -> bool:
    """Return whether a command line left no files except those of `forked`."""
    return {file.name for file in ran.folder.iterdir()} == {"out", "err", "ended"}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_ends_in_one_line_before_anything_loads(started, name):
    ran = started[name]
    assert ran.status == 1
    (line,) = ran.err.splitlines()
    assert MISTAKES[name][1] in line
    assert ran.out == "" and ran.loaded == []
    assert not (ran.folder / "run" / "metrics.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sed=1"], "sed: no such key; did you mean seed?"),
        (["++cache.dri=x"], "cache.dri: no such key; did you mean dir?"),
        (["+model.demo.tran_size=3"], "model.demo.tran_size: no such key; did you mean train_size?"),
        (["benchmark=x"], "benchmark=x: no such choice; there are: bfcl, "),
        (["stage=sft", "+stage.args.max_steps=1.5"], "stage.args.max_steps: expected int, found 1.5"),
        (["stage=sft", "+model.args.lr=1"], "model.args.lr: trl.SFTConfig has no such argument"),
        (["stage=sft", "+stage.args.packing=true"], "stage.args.packing: this is set by stage.packing"),
        (["stage=eval", "stage.batch_size=0"], "stage.batch_size: expected a number from 1 to 1000000, found 0"),
        (["data.limit=-1"], "data.limit: expected 1 or more, found -1"),
        (["data.holdout=2"], "data.holdout: expected a number from 0 to below 1, found 2.0"),
        (["data.path=${nope}"], "data.path: Interpolation key 'nope' not found"),
        (["train"], "train: expected key=value"),
        (["stage=sft", "stage.args.resume_from_checkpoint=/no"], "stage.args.resume_from_checkpoint=/no: there is no"),
        (
            ["stage=mae", "hydra.run.dir=/dev/null/run"],
            "hydra.run.dir=/dev/null/run cannot be created: /dev/null is a file",
        ),
        (
            ["stage=mae", f"hydra.run.dir={'x' * 300}"],
            f"hydra.run.dir={'x' * 300} cannot be created: a name has 300 bytes, ",
        ),
        (["stage=mae", "hydra.run.dir="], "hydra.run.dir: expected a folder, found nothing; hydra.run.dir=. is the"),
        (
            ["-m", "stage=mae", "hydra.sweep.dir=/dev/null/x"],
            "hydra.sweep.dir=/dev/null/x cannot be created: /dev/null is",
        ),
    ],
)
def test_more_mistakes_end_in_one_line(words, said, tltrain):
    (line,) = tltrain(*words, status=1).err.splitlines()
    assert line.startswith(said)


def test_a_run_folder_given_for_its_model_is_told_apart(tltrain, tmp_path):
    (tmp_path / "pkt" / "model").mkdir(parents=True)
    (tmp_path / "pkt" / "model" / "config.json").write_text("{}")
    ran = tltrain("stage=eval", f"model.path={tmp_path / 'pkt'}", status=1)
    model = tmp_path / "pkt" / "model"
    assert ran.err == f"model.path={tmp_path / 'pkt'} is not a model folder: did you mean {model}?\n"
    ran = tltrain("stage=eval", f"model.path={tmp_path}", status=1)
    assert ran.err == f"model.path={tmp_path} is not a model folder: it has no config.json\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stage=mae", "data=openai"], "data=openai reads a file: give data.path=PATH"),
        (["stage=pkt", "data=rotbench", "data.path=/no/such"], "/no/such: expected a folder with first_turn and"),
        (["stage=mae", "data=tltrain", "data.path=/no/such"], "/no/such: expected a file of JSON, found: No such file"),
        (["stage=eval", "benchmark=rotbench"], "benchmark=rotbench reads RoTBench's release: give benchmark.path"),
        (["stage=eval", "benchmark.size=0"], "the benchmark has no samples"),
        (["stage=eval", "benchmark=toolalpaca"], "benchmark=toolalpaca reads ToolAlpaca's data: give benchmark.path"),
        (
            ["stage=eval", "benchmark=toolalpaca", "benchmark.path=/no"],
            "/no: expected eval_real.json or eval_simulated",
        ),
        (["stage=eval", "benchmark=openai"], "benchmark=openai reads a file: give benchmark.path=FILE"),
        (["stage=eval", "benchmark=bfcl", "benchmark.path=/no"], "/no: expected the folder `data` of bfcl-eval"),
        (["stage=eval", "benchmark=bfcl", "benchmark.categories=[x]"], "benchmark.categories: expected some of exec, "),
        (["stage=eval", "stage.compare=[a]"], "stage.compare: expected two result folders, [A,B], found 1"),
        (["stage=predict"], "stage=predict reads a conversation: give data.path"),
        (["stage=sft", "model.dtype=int8"], "model.dtype: expected float32, bfloat16 or float16, found int8"),
        (["stage=sft", "+stage.args.optim=best"], "stage.args: best is not a valid OptimizerNames"),
        (["stage=sft", "data.holdout=0", "stage.args.eval_strategy=steps"], "stage.args: You have set `args.eval_str"),
    ],
)
def test_a_mistake_found_by_a_stage_ends_in_one_line_too(tltrain, words, said):
    few = [] if any(word.startswith(("data=", "stage.compare=")) for word in words) else ["data.size=2"]
    ran = tltrain("model=tiny", *few, *words, status=1)
    line = ran.err.splitlines()[-1]  # earlier lines may say that libraries were loaded
    assert line.startswith(said)
    assert "Traceback" not in ran.err and "Error executing job" not in ran.err
    assert (ran.folder / "error.txt").read_text() == f"{line}\n"
    assert not (ran.folder / "metrics.json").exists()


def test_a_gpu_that_is_not_there(tltrain):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    ran = tltrain("stage=sft", "model=tiny", "data.size=2", "hardware=gpu", status=1)
    assert ran.err.splitlines()[-1].startswith("hardware=gpu: torch sees no CUDA device here")


@pytest.mark.slow
def test_a_hub_that_cannot_be_reached(tmp_path):
    closed = "http://127.0.0.1:9"  # the `discard` port, on which nothing listens
    command = [sys.executable, "-m", "tltrain", "stage=eval", "model.path=some/model", "hydra.run.dir=run"]
    ran = process(command, tmp_path, HF_ENDPOINT=closed, HF_HOME=str(tmp_path / "hub"))
    assert ran.returncode == 1
    line = ran.stderr.splitlines()[-1]
    assert line.startswith("the model some/model is not on this machine and could not be loaded from the hub")
    assert f"({closed})" in line
    assert "model.path=FOLDER" in line
    assert "Traceback" not in ran.stderr


def test_a_failed_run_replaces_a_finished_one(tltrain, raw, tmp_path):
    words, folder = ["stage=mae", "stage.mae=false", "data=tl_training"], tmp_path / "run"
    assert tltrain(*words, f"data.path={raw}", folder=folder).metrics["calls"] == 3
    tltrain(*words, "data.path=/no/such", folder=folder, status=1)
    assert not (folder / "metrics.json").exists()
    tltrain(*words, f"data.path={raw}", folder=folder)
    assert not (folder / "error.txt").exists()


# --- Hydra as its users know it --------------------------------------------------------------------------------------


def test_help_lists_groups_and_examples_and_loads_nothing(started):
    ran = started["help"]
    assert ran.status == 0 and ran.loaded == []
    assert "MAE leaves out calls" in ran.out
    words = ran.out.replace(" (default)", "").replace("+experiment=", "experiment ").split()
    groups = ("stage", "model", "data", "format", "weighting", "benchmark", "source", "hardware", "tracking", "reward")
    for folder in (*groups, "experiment"):
        choices = {file.stem for file in (ROOT / "conf" / folder).glob("*.yaml")}
        assert {word.strip(",;") for word in words} >= choices | {folder}
    assert sum(line.startswith("  python -m tltrain") for line in ran.out.splitlines()) == 7
    assert leaves_nothing(ran)


def test_help_is_quick(tmp_path):
    def seconds(*words: str) -> float:
        """Return the processor time, which does not depend on other programs."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        process([sys.executable, *words], tmp_path)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    bare, helped = seconds("-c", "import hydra"), seconds("-m", "tltrain", "--help")
    assert helped <= 2.5 * bare + 0.5  # alone 0.6 s; more on a busy machine


def test_help_on_a_choice_explains_its_keys(started):
    ran = started["help on choices"]
    assert ran.status == 0, ran.err
    lines = ran.out.splitlines()
    assert lines[0] == "stage=sft"
    (at,) = [number for number, line in enumerate(lines) if line.startswith("  stage.w_max=null ")]
    assert lines[at].endswith("  float or null; from 1 to 1000000")
    assert lines[at + 1].startswith("      largest weight of a key token")
    assert any(line.startswith("  stage.args.save_steps=500 ") for line in lines)
    assert any(line.startswith("  benchmark.categories=[exec] ") for line in lines)
    assert ran.loaded == [] and leaves_nothing(ran)


@pytest.mark.parametrize("words", [["stage=trian"], ["stage=pkt", "model=gpt"]])
def test_help_on_an_unknown_choice_ends_in_one_line(words, tltrain):
    (line,) = tltrain(*words, "--help", status=1).err.splitlines()
    assert line.startswith(f"{words[-1]}: no such choice; there are: ")


def test_help_explains_a_choice_of_a_config_directory_of_the_user_s(tltrain, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("# My model.\ndefaults:\n  - tiny\n  - _self_\ndtype: bfloat16\n")
    out = tltrain("--config-dir", str(tmp_path), "model=mine", "--help").out
    assert out.startswith("model=mine\n  My model.\n")
    assert "  model.dtype=bfloat16 " in out


def test_the_program_is_called_as_it_was_started(tltrain, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/tltrain", "stage=mae"])
    assert "Usage: tltrain [group=choice ...]" in usage.page() and "python -m" not in usage.page()
    assert callback.command() == "tltrain stage=mae"
    monkeypatch.setattr(sys, "argv", ["/a/tltrain/__main__.py", "stage=mae"])
    assert "Usage: python -m tltrain [group=choice ...]" in usage.page()
    assert callback.command() == "python -m tltrain stage=mae"
    assert tltrain("sed=1", status=1).err.endswith("see `tltrain --cfg job`\n")


def test_version_says_tltrain_s_and_the_libraries_and_loads_nothing(started):
    ran = started["version"]
    assert ran.status == 0, ran.err
    names = ("tltrain", "python", "torch", "transformers", "trl")
    lines = ran.out.splitlines()
    assert [line.split()[0] for line in lines] == list(names)
    assert lines[1] == f"python {sys.version.split()[0]}" and ran.loaded == []
    assert all(line.split()[1][0].isdigit() or line.endswith("not installed") for line in lines)


def test_the_examples_of_the_help_compose(started, tltrain):
    lines = started["help"].out.splitlines()
    for line in [line for line in lines if line.startswith("  python -m tltrain")]:
        command = line.partition("  python -m tltrain ")[2].partition("   ")[0].split()
        words = [word for word in command if word != "-m" and "," not in word and not word.startswith("model.path=")]
        assert yaml.safe_load(tltrain("--cfg", "job", *words).out)


def test_cfg_job_prints_the_configuration_and_runs_nothing(tltrain):
    ran = tltrain("--cfg", "job", "stage=pkt", "model=tiny", "seed=3")
    printed = yaml.safe_load(ran.out)
    assert (printed["stage"]["name"], printed["stage"]["w_max"], printed["seed"]) == ("pkt", 9.0, 3)
    assert printed["model"]["random"]["num_hidden_layers"] == 4
    assert not ran.folder.exists()


def test_the_users_values_override_the_models_defaults(tltrain):
    printed = [
        yaml.safe_load(tltrain("--cfg", "job", "--resolve", *words).out)["stage"]["train_size"]
        for words in (["model=tiny"], ["model=tiny", "stage.train_size=7"], ["model=qwen3_0_6b"])
    ]
    assert printed == [200, 7, 96]


def test_the_papers_hyperparameters_are_the_defaults_of_its_model(tltrain):
    found = yaml.safe_load(tltrain("--cfg", "job", "model=codellama_7b").out)["model"]
    paper = {
        "learning_rate": 1e-6,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "num_train_epochs": 1,
        "max_length": 8192,
        "max_grad_norm": 1.0,
        "adam_beta1": 0.9,
        "adam_beta2": 0.95,
        "weight_decay": 0.01,
        "activation_checkpointing": True,
    }
    assert found["args"].items() >= paper.items()
    assert yaml.safe_load(tltrain("--cfg", "job", "model=tl_codellama_2").out)["model"]["args"] == found["args"]


def test_runs_get_a_folder_by_stage_and_time(tmp_path):
    words = ["stage=mae", "data.size=2", "stage.mae=false"]
    ran = process([sys.executable, "-m", "tltrain", *words], tmp_path)
    assert ran.returncode == 0, ran.stderr
    folder, latest = sorted((tmp_path / "outputs" / "mae").iterdir())
    assert latest.name == "latest" and latest.readlink() == Path(folder.name)
    assert {file.name for file in folder.iterdir()} >= {"train.jsonl", "metrics.json", "config.yaml"}
    assert str(folder.relative_to(tmp_path) / "train.jsonl") in ran.stdout


def test_a_sweep_makes_one_folder_per_value(tltrain, raw, tmp_path):
    sweep = tmp_path / "sweep"
    words = ["data=tl_training", f"data.path={raw}", f"hydra.sweep.dir={sweep}"]
    tltrain("-m", "stage=mae", "stage.mae=true,false", *words)
    kept = [json.loads((sweep / job / "metrics.json").read_text())["kept"] for job in ("0", "1")]
    assert kept == [2, 3]


def test_a_failing_job_does_not_stop_a_sweep(tltrain, raw, tmp_path):
    sweep = tmp_path / "sweep"
    words = ["stage.mae=false", "data=tl_training", f"hydra.sweep.dir={sweep}"]
    ran = tltrain("-m", "stage=mae", f"data.path=/no/such,{raw}", *words, status=1)
    line = "/no/such: expected a file of JSON, found: No such file or directory\n"
    assert line in ran.err and "Traceback" not in ran.err
    assert (sweep / "0" / "error.txt").read_text() == line
    assert not (sweep / "0" / "metrics.json").exists()
    assert json.loads((sweep / "1" / "metrics.json").read_text())["calls"] == 3


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (
            "stage=",
            "stage=certify stage=chat stage=check stage=demo stage=eval stage=export stage=gate stage=inspect",
        ),
        ("model=t", "model=tiny model=tl_codellama_2"),
        ("stage=pkt stage.", "stage.packing= stage.resume= stage.rule="),
    ],
)
def test_the_shell_completes(typed, offered, tltrain, monkeypatch):
    line = f"tltrain {typed}"
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    assert offered in " ".join(tltrain("-sc", "query=bash").out.split())


def test_the_console_script_completes(tmp_path):
    script = Path(sys.executable).with_name("tltrain")
    if not script.is_file():
        pytest.skip("the console script is not installed")
    line = "tltrain model=t"
    ran = process([str(script), "-sc", "query=bash"], tmp_path, COMP_LINE=line, COMP_POINT=str(len(line)))
    assert ran.returncode == 0, ran.stderr
    assert "model=tiny model=tl_codellama_2" in " ".join(ran.stdout.split())
