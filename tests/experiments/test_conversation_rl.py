"""conversation_rl: the arms of the experiment, and the bench's numbers by hand."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from omegaconf import OmegaConf

from tests.support.composition import composed
from tests.support.paths import ROOT
from tltrain.data import trajectories
from tltrain.data.reading import ReadReport
from tltrain.entry import chosen_benchmarks
from tltrain.toolworld.environment import ToolworldTasks

EXPERIMENT = ROOT / "conf" / "experiment" / "conversation_rl.yaml"

ARMS = {"before": (False, "call", "table"), "sft": (False, "call", "table"), "call": (True, "call", "table")}
ARMS["conversation"] = (True, "conversation", "conversation")


@pytest.mark.parametrize("arm", ARMS)
def test_arms_differ_in_what_follows_the_supervised_training_alone(arm):
    cfg = composed("+experiment=conversation_rl", f"+experiment/arm={arm}", "model=tiny")
    irm, rollout, reward = ARMS[arm]
    assert (cfg.stage.irm, cfg.stage.rl.rollout.name, cfg.reward.name) == (irm, rollout, reward)
    assert cfg.stage.rl.args.max_steps == 40 and cfg.stage.rl.environment.split == "train"
    assert cfg.stage.continued == (cfg.stage.rl.args if arm == "sft" else {})


@pytest.mark.parametrize("seed", OmegaConf.load(EXPERIMENT).hydra.sweeper.params.seed.split(","))
def test_no_training_of_the_sweep_sees_the_tasks_of_its_evaluation(seed):
    cfg = composed("+experiment=conversation_rl", "+experiment/arm=conversation", "model=tiny", f"seed={seed}")
    _, asked = chosen_benchmarks.benchmark(cfg.stage.benchmarks[0])
    _, environment = chosen_benchmarks.environment(OmegaConf.create({"stage": cfg.stage.rl, "benchmark": {}}))
    learned = {item.id for item in trajectories(cfg.data, cfg.seed, ReadReport())}
    assert environment.seed != asked.seed and learned
    assert not learned & {task.id for task in ToolworldTasks(asked).tasks(cfg.seed)}


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    sys.path.insert(0, str(ROOT / "experiments" / "bench"))
    try:
        import conversation_rl
    finally:
        sys.path.pop(0)
    return conversation_rl


def test_the_parts_of_a_step_add_up(bench):
    step = {"seconds": 10.0, "seconds_generation": 5.0, "seconds_sampling": 4.0, "seconds_scoring": 0.5}
    step |= {"seconds_update": 4.5, "seconds_policy": 1.0, "seconds_backward": 2.0, "seconds_reference": 0.25}
    parts = bench.parts_of([step, {name: value + 2 * (name == "seconds_sampling") for name, value in step.items()}])
    assert (parts["sampling"], parts["environments"], parts["critic"]) == (5.0, 0.0, 0.0)
    assert sum(parts.values()) == pytest.approx(10.0)
