"""Keys that the chosen function or stage does not read: an error if typed for it, else dropped with a log line."""

from __future__ import annotations

import logging
import pickle
import sys
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, read_write

from tests.support.composition import composed, in_job, mistake, quick
from tests.support.processes import process
from tltrain import config
from tltrain.config import keys_of, reads
from tltrain.data import trajectories
from tltrain.data.reading import ReadReport
from tltrain.entry import choices, reference
from tltrain.entry.composed import compose
from tltrain.runtime import redact
from tltrain.sweeps import cache_key

UNREAD = {
    "a file for generated data": (
        ["stage=pkt", "data.path=chats.jsonl"],
        "data.path: data=toolworld reads no such key; data=auto, data=adp, data=anthropic, data=api_log, … do",
    ),
    "with ++": (
        ["stage=pkt", "data=openai", "++data.size=3"],
        "data.size: data=openai reads no such key; data=toolworld, data=toolworld_sweep do",
    ),
    "of another benchmark": (
        ["stage=eval", "benchmark.levels=[clean]"],
        "benchmark.levels: benchmark=toolworld reads no such key; benchmark=rotbench does",
    ),
    "of conversations": (
        ["stage=eval", "benchmark.max_turns=3"],
        "benchmark.max_turns: benchmark=toolworld reads no such key; "
        "benchmark=bfcl_multi, benchmark=python_tools, benchmark=tooleyes, benchmark=toolworld_confusable_multi, … do",
    ),
    "of another source": (
        ["stage=eval", "source=golden", "source.url=http://localhost/v1"],
        "source.url: source=golden reads no such key; source=endpoint does",
    ),
    "below a key": (["stage=eval", "+source.extra.top_k=1"], "source.extra: source=model reads no such key; "),
    "of another tracker": (
        ["stage=mae", "tracking=tensorboard", "tracking.mode=online"],
        "tracking.mode: tracking=tensorboard reads no such key; tracking=wandb does",
    ),
    "misspelt": (["stage=pkt", "data=openai", "data.pth=x"], "data.pth: no such key; did you mean path?"),
    "a group that mae does not read": (
        ["stage=mae", "benchmark.limit=3"],
        "benchmark.limit: stage=mae reads no such key; stage=eval does",
    ),
    "data where nothing learns": (
        ["stage=eval", "data.size=5"],
        "data.size: stage=eval reads no such key; stage=mae, stage=sft, stage=pkt, stage=irm, … do",
    ),
    "a share to hold out where all is kept": (
        ["stage=mae", "data.holdout=0.5"],
        "data.holdout: stage=mae reads no such",
    ),
    "arguments of another training": (
        ["stage=irm", "+model.args.max_steps=3"],
        "model.args.max_steps: stage=irm reads",
    ),
    "a file for the demo": (
        ["data=openai", "data.path=chats.jsonl"],
        "data.path: stage=demo reads no such key; it trains on generated data, stage.train_size; stage=sft, ",
    ),
    "a benchmark of a pipeline": (
        ["stage=pipeline", "benchmark.size=5"],
        "benchmark.size: stage=pipeline reads no such key; its benchmarks do: stage.benchmarks=[{name: NAME, ",
    ),
    "PPO's": (
        ["stage=irm", "stage.algorithm=grpo", "stage.clip=0.1"],
        "stage.clip: stage.algorithm=grpo with stage.rollout=call reads no such key; stage.algorithm=ppo or "
        "stage.rollout=conversation does",
    ),
    "PPO's, below a node": (
        ["stage=irm", "stage.algorithm=rloo", "stage.critic.save=true"],
        "stage.critic.save: stage.",
    ),
    "PPO's, in a pipeline": (
        ["stage=pipeline", "stage.rl.algorithm=grpo", "stage.rl.lam=1"],
        "stage.rl.lam: stage.rl.algorithm=grpo reads no such key; stage.rl.algorithm=ppo does",
    ),
    "of another way to ask": (
        ["stage=eval", "source=endpoint", "source.mode=chat", "source.tokenizer=FOLDER"],
        "source.tokenizer: source.mode=chat reads no such key; source.mode=text does",
    ),
    "sizes of random weights beside a folder": (
        ["stage=sft", "model=tiny", "model.path=some/model", "model.random.hidden_size=8"],
        "model.random.hidden_size: model.path is used instead, with its own sizes; leave one of the two out",
    ),
    "a hub id beside a folder": (
        ["stage=sft", "model.path=some/model", "model.hub=a/b"],
        "model.hub: model.path is used",
    ),
    "a part of an adapter that is not trained": (
        ["stage=sft", "model.lora.alpha=8"],
        "model.lora.alpha: without model.lora.r no adapter is trained; model.lora.r=8 trains one",
    ),
    "a model where the golden calls answer": (
        ["stage=eval", "source=golden", "model.dtype=bfloat16"],
        "model.dtype: source=golden reads no such key; source=model does",
    ),
    "a model where a server answers": (
        ["stage=predict", "source=endpoint", "model.lora.r=8"],
        "model.lora.r: source=endpoint reads no such key; source=model does",
    ),
    "data for a tokenizer that nothing reads": (
        ["stage=eval", "source=random", "model=tiny", "data.size=5"],
        "data.size: stage=eval reads no such key; ",
    ),
    "a device where the golden calls answer": (
        ["stage=eval", "source=golden", "hardware.device=cpu"],
        "hardware.device: source=golden reads no such key; source=model does",
    ),
    "processes where a server answers": (
        ["stage=predict", "source=endpoint", "hardware.processes=2"],
        "hardware.processes: source=endpoint reads no such key; source=model does",
    ),
    "arguments of trainers where nothing is trained": (
        ["stage=eval", "+hardware.args.gradient_checkpointing=true"],
        "hardware.args.gradient_checkpointing: stage=eval reads no such key; stage=demo, stage=sft, stage=pkt, ",
    ),
    "an engine of trainers where models are analysed": (
        ["stage=analyze", "hardware.deepspeed=null"],
        "hardware.deepspeed: stage=analyze reads no such key; stage=demo, ",
    ),
    "processes beside saved answers": (
        ["stage=eval", "stage.predictions=FILE", "hardware.processes=2"],
        "hardware.processes: nothing is asked with stage.predictions, so no model is read; leave one of the two out",
    ),
    "a device where only data is analysed": (
        ["stage=analyze", "data=openai", "data.path=FILE", "hardware.device=cpu"],
        "hardware.device: no model is analysed; model=NAME, model.path=FOLDER or stage.models=[FOLDER] adds one",
    ),
    "a model's type where only results are analysed": (
        ["stage=analyze", "stage.results=[FOLDER]", "model.dtype=bfloat16"],
        "model.dtype: no model is analysed; ",
    ),
    "a model beside saved answers": (
        ["stage=eval", "stage.predictions=FILE", "model.path=some/model"],
        "model.path: nothing is asked with stage.predictions, so no model is read; leave one of the two out",
    ),
    "a server beside saved answers": (
        ["stage=eval", "stage.compare=[a,b]", "source=endpoint", "source.model=x"],
        "source.model: nothing is asked with stage.compare; leave one of the two out",
    ),
    "IRM's where there is none": (
        ["stage=pipeline", "stage.irm=false", "stage.rl.kl=0.1"],
        "stage.rl.kl: stage.irm=false reads no such key; stage.irm=true does",
    ),
    "IRM's, of the model": (
        ["stage=pipeline", "stage.irm=false", "model.irm.critic_learning_rate=0.1"],
        "model.irm.critic_learning_rate: stage.irm=false reads no such key",
    ),
    "IRM's, of the reward": (
        ["stage=pipeline", "stage.irm=false", "reward.cut=-1"],
        "reward.cut: stage.irm=false reads",
    ),
    "PKT's where there is none": (
        ["stage=pipeline", "stage.pkt=false", "stage.w_max=5"],
        "stage.w_max: stage.pkt=false reads no such key; stage.pkt=true does",
    ),
    "the tokens that carry a weight, where there is none": (
        ["stage=sft", "stage.key_tokens=name"],
        "stage.key_tokens: stage.w_max=null reads no such key, since every token has weight 1; stage.w_max=9 does",
    ),
    "those tokens, in a pipeline without PKT": (
        ["stage=pipeline", "stage.pkt=false", "stage.key_tokens=name"],
        "stage.key_tokens: stage.pkt=false reads no such key; stage.pkt=true does",
    ),
    "names on offer, of a server": (
        ["stage=eval", "source=endpoint", "stage.names=offered"],
        "stage.names: source=endpoint reads no such key; source=model does",
    ),
    "the temperature of another source": (
        ["stage=eval", "source=endpoint", "stage.temperature=0.7"],
        "stage.temperature: source=endpoint reads no such key; use source.temperature",
    ),
    "names on offer, of the golden calls": (
        ["stage=predict", "source=golden", "stage.names=offered"],
        "stage.names: source=golden reads no such key; source=model does",
    ),
    "the temperature, of lm-eval": (
        ["stage=eval", "benchmark=general", "stage.temperature=0.7"],
        "stage.temperature: lm-eval runs benchmark=general as its tasks define; leave one of the two out",
    ),
    "names on offer, of saved answers": (
        ["stage=eval", "stage.predictions=answers.jsonl", "stage.names=offered"],
        "stage.names: nothing is asked with stage.predictions; leave one of the two out",
    ),
    "of a stage that is not planned": (
        ["stage=plan", "stage.rl.kl=0.1"],
        "stage.rl.kl: stage.of=pkt reads no such key; stage.of=irm does",
    ),
    "of trees": (
        ["stage=sft", "stage.tree_size=4"],
        "stage.tree_size: stage.packing=trajectory reads no such key; stage.packing=prefix_tree or stage.packing=auto",
    ),
    "of another way to prune": (
        ["stage=cache", "stage.prune=all", "stage.older_than_days=4"],
        "stage.older_than_days: stage.prune=all reads no such key; stage.prune=old does",
    ),
    "of a function that is not there": (
        ["stage=mae", "+data._target_=no_such_package.read"],
        "data._target_=no_such_package.read: expected package.module.attribute, found: No module named",
    ),
}


@pytest.mark.parametrize("name", UNREAD)
def test_a_key_that_is_not_read_is_refused_in_one_line_that_says_who_reads_it(name):
    words, said = UNREAD[name]
    line = mistake(*words)
    assert line.startswith(said)
    assert "\n" not in line


@pytest.mark.parametrize(
    "words",
    [
        ["stage=mae", "benchmark=rotbench", "source=endpoint"],  # a group that the stage does not read may be chosen
        ["stage=predict", "data.path=chat.json"],  # the stage's own key, independent of the reader
        ["stage=eval", "model=tiny", "data.size=5"],  # the model's tokenizer is trained on the data
        ["+model.demo.train_size=7"],  # the stage refers to it
        ["+experiment=ablation", "model=tiny", "stage.mae=false", "benchmark.size=5", "model.sweep.size=9"],
        ["stage=eval", "benchmark.multi=true", "benchmark.max_turns=3"],
        ["stage=irm", "stage.algorithm=grpo", "stage.kl=0.1"],
        ["stage=mae", "hardware.threads=1"],
        ["+experiment=ablation", "model=tiny", "stage.irm=false", "stage.rl.kl=0.1"],  # another job has IRM
        ["stage=pipeline", "stage.rl.kl=0.1", "stage.w_max=5", "model.irm.critic_learning_rate=0.1"],
        ["stage=eval", "source=endpoint", "model.bos=true"],
        ["stage=eval", "source=golden", "hardware.threads=1"],
        ["stage=eval", "source=golden", "benchmark=general", "hardware.device=cpu"],
        ["stage=pipeline", "source=golden", "hardware.device=cpu"],
        ["stage=analyze", "hardware.device=cpu"],
        ["stage=analyze", "data=openai", "stage.models=[base]", "model.dtype=bfloat16", "hardware.device=cpu"],
        ["stage=sft", "model.lora.r=8", "model.lora.alpha=8"],
        ["stage=sft", "stage.packing=auto", "stage.tree_size=4"],
        ["stage=plan", "stage.of=irm", "stage.rl.kl=0.1"],
        ["stage=pkt", "stage.key_tokens=shuffled"],
        ["stage=inspect", "stage.key_tokens=name"],
        ["stage=eval", "stage.names=offered", "stage.temperature=0.7"],
        ["stage=pipeline", "stage.key_tokens=name", "stage.rl.names=offered", "stage.eval.temperature=0.7"],
    ],
    ids=" ".join,
)
def test_a_key_that_is_read_is_not_refused(words):
    assert mistake(*words) == ""


@pytest.mark.slow
def test_each_choice_has_the_keys_of_its_function_and_no_others():
    for group in config.DOORS:
        if group == "mae":  # its rules are side by side, without a choice
            continue
        for name in reference.names_of(group):
            node = composed(f"{group}={name}")[group]
            assert set(node) == set(keys_of(choices.schema_of(group, node))), f"{group}={name}"
            assert OmegaConf.get_type(node) is choices.schema_of(group, node)


def test_every_stage_says_what_it_reads():
    assert reads.READS.keys() == config.STAGES.keys()
    for stage, stated in reads.READS.items():
        assert {each.removeprefix("!").partition(".")[0] for each in stated} <= set(reads.GROUPS), stage
    with quick():
        choices_of_stages = reference.all_choices()["stage"]
    assert "Reads the keys of data, " in next(c for c in choices_of_stages if c.name == "mae").reads


# --- experiments ------------------------------------------------------------------------------------------------------


def test_the_ablation_on_other_data_needs_no_more_than_its_name(caplog):
    cfg = composed(
        *("+experiment=ablation", "data=rotbench", "paths.rotbench=FOLDER", "stage.benchmarks=[rotbench]"),
        "stage.mae=true",
    )
    assert (cfg.data.name, cfg.data.path, "size" in cfg.data) == ("rotbench", "FOLDER", False)
    assert not caplog.records
    sizes = composed("+experiment=ablation", "model=tiny", "stage.mae=true")
    assert (sizes.data.size, sizes.stage.benchmarks[0].size) == (350, 100)


def test_what_an_experiment_sets_for_another_choice_is_dropped_with_one_line(caplog):
    choices._say_dropped.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):  # the jobs of a sweep
            cfg = composed("+experiment=smoke", "data=rotbench", "stage.mae=true")
    assert "size" not in cfg.data
    assert [record.getMessage() for record in caplog.records] == [
        "data.size: data=rotbench reads no such key; data=toolworld, data=toolworld_sweep do: dropped"
    ]


# --- a user's own choices ---------------------------------------------------------------------------------------------

READER = """
from dataclasses import dataclass
from tltrain.config import FileData, key
from tltrain.trajectory import Call, Message, Tool, Trajectory

def lines(path: str, mark: str = "?"):
    for number, line in enumerate(open(path)):
        messages = (Message("user", line.strip() + mark), Message.calling(Call("look", {})))
        yield Trajectory(str(number), (Tool("look", "", {"type": "object", "properties": {}}),), messages)

@dataclass
class Marked(FileData):
    mark: str = key("!", "what stands behind a question")

def marked(data: Marked, seed, report):
    report.read += 1
    return lines(data.path, data.mark * (seed + 1))

@dataclass
class Loud:
    path: str
    times: int = 2

    def __call__(self, seed):
        return lines(self.path, "!" * self.times)
"""


@pytest.fixture
def own(tmp_path, monkeypatch) -> Path:
    """A folder of choices, and next to it a package with readers that declare their keys in three ways."""
    (tmp_path / "own_readers.py").write_text(READER)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "questions.txt").write_text("Where\nWhen\n")
    for name, text in {
        "data/lines": "_target_: own_readers.lines\npath: {file}\n",
        "data/marked": "_target_: own_readers.marked\npath: {file}\nmark: '~'\n",
        "data/loud": "_target_: own_readers.Loud\npath: {file}\n",
        "data/needs": "_target_: own_readers.lines\n",
        "data/wrong": "name: openai\npath: {file}\nlevels: [clean]\n",
        "benchmark/mine": "name: openai\npath: {file}\n",
    }.items():
        group = name.partition("/")[0]
        file = tmp_path / "conf" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        stated = text.format(file=tmp_path / "questions.txt")
        named = "" if "name:" in text else "name: mine\n"
        file.write_text(f"defaults: [/schema/{group}@_here_]\n{named}{stated}")
    yield tmp_path / "conf"
    sys.modules.pop("own_readers", None)


def search(own: Path) -> str:
    return f"hydra.searchpath=[file://{own}]"


@pytest.mark.parametrize(
    ("words", "query"),
    [
        (["data=lines"], "Where?"),
        (["data=lines", "data.mark=x"], "Wherex"),
        (["data=marked", "seed=1"], "Where~~"),
        (["data=loud", "data.times=3"], "Where!!!"),
    ],
)
def test_a_users_reader_declares_its_own_keys(own, words, query):
    cfg = composed(search(own), "stage=mae", *words)
    assert next(trajectories(cfg.data, cfg.seed, ReadReport())).query == query


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["data=lines", "data.size=3"],
            "data.size: data=lines reads no such key; data=toolworld, data=toolworld_sweep do",
        ),
        (["data=lines", "data.mrk=3"], "data.mrk: no such key; did you mean mark?"),
        (["data=loud", "data.times=many"], "data.times: expected a whole number, found many"),
        (["data=loud", f"data.times={10**19}"], f"data.times: expected any number, at most 1e+18, found {10**19}"),
        (
            ["data=openai", "data.path=x", "data.mark=3"],
            "data.mark: data=openai reads no such key; data=lines, data=marked",
        ),
        (["data=wrong"], "data/wrong.yaml: data.levels: data=wrong reads no such key; data=rotbench does"),
    ],
)
def test_a_users_keys_are_checked_like_ours(own, words, said):
    assert mistake(search(own), "stage=mae", *words).startswith(said)


def test_a_key_without_a_default_has_to_be_set(own):
    line = mistake(search(own), "stage=mae", "data=needs")
    assert line.startswith("data.path: data=mine needs this key: give data.path=VALUE (provided without a key: cfg, ")
    assert mistake(search(own), "stage=report", "data=needs") == ""  # which reads no data


def test_a_users_code_is_part_of_the_cache_key(own, monkeypatch):
    monkeypatch.setattr(cache_key.source_digest, "digest", lambda *given: "code")
    plain = redact.config(composed(search(own), "stage=mae", "data=lines"))
    before = cache_key.key(plain)
    assert cache_key.key(plain) == before
    (own.parent / "own_readers.py").write_text(READER.replace("strip()", "lstrip()"))
    assert cache_key.key(plain) != before


def test_help_explains_the_keys_of_a_users_choice(own, tltrain):
    out = tltrain("--config-dir", str(own), "data=marked", "--help").out
    assert "  data.mark='~' " in out or "  data.mark=~ " in out
    assert "what stands behind a question" in out


# --- the run's own search path ----------------------------------------------------------------------------------------


def test_the_benchmarks_of_a_pipeline_are_composed_through_the_run_s_search_path(own, tltrain):
    line = "stage.benchmarks, mine.size: benchmark=mine reads no such key; benchmark=toolworld, "
    words = ["stage=pipeline", "model=tiny", "stage.benchmarks=[{name: mine, size: 3}]"]
    for given in (["--config-dir", str(own)], [search(own)]):
        assert tltrain(*given, *words, status=1).err.splitlines()[-1].startswith(line)
    assert "stage.benchmarks: expected some of bfcl, " in tltrain(*words, status=1).err


WORKER = """
import pickle, sys
from tltrain.entry import launch
from tltrain.entry.composed import choice_of
launch.as_in_hydra(pickle.loads(open(sys.argv[1], "rb").read()))
print(choice_of("benchmark", "mine").path)
"""


def test_worker_processes_compose_through_the_run_s_search_path(own, tmp_path):
    file = tmp_path / "hydra.pickle"
    with in_job(search(own), "stage=mae", f"hydra.run.dir={tmp_path}", "hydra.output_subdir=null"):
        state = HydraConfig.instance().cfg.copy()
    with read_write(state.hydra.runtime):
        state.hydra.runtime.output_dir = str(tmp_path)  # as Hydra sets it at the start of a job
    file.write_bytes(pickle.dumps(state))
    ran = process([sys.executable, "-c", WORKER, str(file)], tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == str(tmp_path / "questions.txt")


def test_the_demo_s_stages_are_composed_through_the_run_s_search_path(own):
    with in_job(search(own), "stage=demo", "model=tiny"):
        assert compose(["benchmark=mine"]).benchmark.path == str(own.parent / "questions.txt")
