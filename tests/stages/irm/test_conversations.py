"""stage=irm stage.rollout=conversation through the command line, on a small random model."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.support.command_line import Ran
from tests.support.composition import composed, mistake
from tests.support.environment_samples import Room, hold, says
from tests.support.mae_rules import STRICT
from tests.support.small_runs import SMALL, last_line, steps, weights
from tltrain.environments.golden import GoldenCalls
from tltrain.environments.loop import converse
from tltrain.errors import TltrainError
from tltrain.evaluation.transcripts import Transcript
from tltrain.stages import irm_conversations
from tltrain.tokens.encoder import Encoder
from tltrain.toolworld.environment import golden_calls
from tltrain.tracking import names
from tltrain.training import pricing, reward_function
from tltrain.training.conversation_ppo import RewardedConversation
from tltrain.training.conversation_rollout import SampledConversation, SampledTurn
from tltrain.trajectory import Call, Message, Sample, Task, Trajectory

pytestmark = pytest.mark.slow

CONVERSING = ("stage=irm", "stage.rollout=conversation", "reward=conversation")
FEW = (
    *("data.size=12", "stage.eval_size=1", "stage.max_new_tokens=6", "stage.args.max_steps=2"),
    *("stage.args.gradient_accumulation_steps=2", "stage.samples_every=1"),
)
SHORT = "stage.environment={size: 6, max_turns: 3}"
RANDOM_CRITIC = "stage.critic.init=random"  # a critic that starts at the reward of nonsense would have nothing to learn


@pytest.fixture(scope="module")
def ran(run_once) -> Ran:
    return run_once(*CONVERSING, *SMALL, *FEW, SHORT)


def test_a_run_at_its_defaults_but_for_sizes(ran):
    assert {"model", "samples.jsonl", "transcripts.jsonl", "transcripts.html"} <= {f.name for f in ran.folder.iterdir()}
    found = ran.metrics["train"]
    assert (found["environment"], found["tasks"], found["group_size"]) == ("toolworld_multi", 6, 1)
    assert [entry["conversations"] for entry in steps(ran)] == [2, 2]
    logged = {f"irm/{name}" for entry in steps(ran) for name in entry if name != "step"}
    assert {*names.CONVERSATIONS} <= logged <= {*names.IRM, *names.CONVERSATIONS}
    lacking = {name.removeprefix("irm/") for name in {*names.IRM} - logged if not name.startswith("irm/grade/")}
    assert lacking == {"no_end_token", "seconds_prefill"}  # as docs/irm.md says
    assert (ran.metrics["costs"]["conversations"], ran.metrics["costs"]["environment_errors"]) == (4, 0)


def test_samples_are_conversations_to_read(ran):
    samples, records = ran.lines("samples.jsonl"), ran.lines("transcripts.jsonl")
    assert [row["step"] for row in samples] == [1, 1, 2, 2] == [row["step"] for row in records]
    for sample, record in zip(samples, records, strict=True):
        shown = Transcript.from_json(record)
        assert sample["id"] == f"{shown.id}#0" and shown.id.startswith("toolworld-train")  # never the test's tools
        assert (
            sample["reward"]
            == record["reward"]
            == pytest.approx(sum(sum(parts.values()) for parts in record["rewards"].values()))
        )
        assert sample["sampled"].count("assistant (") == len(shown.calls) == 3 and sample["grade"] == "failure"
    page = (ran.folder / "transcripts.html").read_text()
    assert f"step 1: {records[0]['id']}" in page


def test_the_same_seed_repeats_a_run(ran, tltrain):
    again = tltrain(*CONVERSING, *SMALL, *FEW, SHORT)
    assert weights(again) == weights(ran)
    assert again.lines("transcripts.jsonl") == ran.lines("transcripts.jsonl")


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_conversations_about_a_task_are_compared(tltrain, algorithm):
    ran = tltrain(*CONVERSING, *SMALL, *FEW, SHORT, f"stage.algorithm={algorithm}", "stage.group_size=2")
    assert [entry["conversations"] for entry in steps(ran)] == [4, 4]
    assert not (ran.folder / "critic").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("format=qwen3", "stage.learn_thoughts=false"),
        ("stage.packing=turn", "stage.names=offered"),
        ("model.lora.r=2",),
    ],
)
def test_other_ways(tltrain, words):
    ran = tltrain(*CONVERSING, *SMALL, *FEW, SHORT, *words)
    assert all(entry["turns"] >= 1 for entry in steps(ran))


OWN = """
from tltrain.trajectory import Call, Message, Task, Tool, Turn

class Tools:
    def __init__(self, count: int = 3) -> None:
        self.count = count

    def tasks(self):
        return [Task(f"own-{number}") for number in range(self.count)]

    def environment(self):
        return Flood()

class Flood:
    def reset(self, task):
        return Turn((Tool("look", "Look.", {"type": "object", "properties": {}}),), (Message("user", "Look!"),))

    def call(self, call):
        raise SystemExit("a tool that ends the process")

    def follow_up(self, answer):
        return None

    def outcome(self):
        return {"success": None}

    def close(self):
        raise OSError("no way out")
"""


def test_an_environment_of_ones_own_that_fails_ends_no_run(tltrain, tmp_path):
    (tmp_path / "own_tools.py").write_text(OWN)
    found = ("--config-dir", str(tmp_path))
    ran = tltrain(
        *found, *CONVERSING, *SMALL, *FEW, "stage.environment={_target_: own_tools.Tools, count: 2, max_turns: 2}"
    )
    assert ran.status == 0 and ran.metrics["train"]["environment"] == "Tools"
    assert "success" not in steps(ran)[0]  # nobody can tell


def test_environments_that_all_fail_end_the_run(tltrain, tmp_path):
    broken = OWN.replace("return Turn(", "raise OSError('no room')\n        return Turn(")
    (tmp_path / "failing_tools.py").write_text(broken)
    ran = tltrain(
        *("--config-dir", str(tmp_path), *CONVERSING, *SMALL, *FEW),
        *(RANDOM_CRITIC, "stage.environment={_target_: failing_tools.Tools, max_turns: 2}"),
        status=1,
    )
    said = "stage.environment: it failed in all 2 conversations of the first step, so there is nothing to learn from; "
    assert said in last_line(ran) and last_line(ran).endswith(": OSError: no room")


# --- stopped and resumed ----------------------------------------------------------------------------------------------


def test_a_stopped_run_goes_on_bit_for_bit(tltrain, tmp_path, monkeypatch):
    words = (*CONVERSING, *SMALL, SHORT, RANDOM_CRITIC, "stage.ppo_epochs=2", "stage.args.save_steps=1")
    words = (*words, *(word for word in FEW if "max_steps" not in word), "stage.args.max_steps=4")
    whole = tltrain(*words)
    write = reward_function.SampleLog.write

    def write_and_stop(self, step, records):
        write(self, step, records)
        if step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(reward_function.SampleLog, "write", write_and_stop)
    folder = tmp_path / "stopped"
    tltrain(*words, folder=folder, status=130)
    monkeypatch.undo()
    resumed = tltrain(*words, "stage.resume=true", folder=folder)
    assert "continuing from" in (folder / "tltrain.log").read_text()
    assert weights(resumed) == weights(whole)
    for name in ("samples.jsonl", "transcripts.jsonl", "transcripts.html"):
        assert (folder / name).read_bytes().replace(b"stopped", b"") == (whole.folder / name).read_bytes().replace(
            whole.folder.name.encode(), b""
        ), name


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("stage.rollout=conversation",),
            "reward=table: prices single calls, and stage.rollout=conversation has whole",
        ),
        (("reward=conversation",), "reward=conversation: prices whole conversations"),
        ((*CONVERSING[1:], "stage.algorithm=rejection"), "stage.algorithm=rejection samples single calls"),
        ((*CONVERSING[1:], "stage.algorithm=rloo", "stage.group_size=1"), "rloo compares conversations"),
        ((*CONVERSING[1:], "stage.algorithm=grpo", "stage.do_sample=false"), "grpo compares sampled conversations"),
        ((*CONVERSING[1:], "stage.environment={name: toolworld}"), "stage.environment.name=toolworld: has single"),
        ((*CONVERSING[1:], "stage.environment={name: nowhere}"), "stage.environment: expected one of bfcl"),
        ((*CONVERSING[1:], "stage.environment={spilt: train}"), "spilt"),
        ((*CONVERSING[1:], "stage.environment={_target_: nowhere.World}"), "stage.environment._target_=nowhere.World"),
        ((*CONVERSING[1:], "stage.truncation=left"), "stage.truncation: stage.rollout=conversation reads no such key"),
        (("stage.group_size=2",), "stage.group_size: stage.rollout=call reads no such key"),
        ((*CONVERSING[1:], "stage.algorithm=grpo", "++stage.args.num_generations=4"), "num_generations"),
    ],
)
def test_what_does_not_go_together_is_said_at_once(words, said):
    assert said in mistake("stage=irm", *words)


def test_keys_of_the_loop_may_be_set_with_every_algorithm():
    words = ("stage.clip=0.1", "stage.ppo_epochs=2", "stage.loss_mean=responses", "stage.generation_batch_size=2")
    for algorithm in ("ppo", "rloo", "grpo"):
        assert not mistake(*CONVERSING, f"stage.algorithm={algorithm}", "stage.reward_clip=2", *words)
    said = mistake("stage=irm", "stage.algorithm=grpo", "stage.clip=0.1")
    assert said.startswith(
        "stage.clip: stage.algorithm=grpo with stage.rollout=call reads no such key; stage.algorithm="
    )
    assert mistake(*CONVERSING, "stage.algorithm=rloo", "stage.lam=0.5").endswith("stage.algorithm=ppo does")


def test_a_sample_says_what_each_answer_earned_and_why():
    room = Room(seen=lambda at: "Error: there is nothing")
    held = hold(says('look(at="a")', "look(to=1)", 'look(at="c") or so', 'finish(answer="no")'), room, rule=STRICT)
    golden = [[Call("look", {"at": "a"}), Call("look", {"at": "b"})]]
    price = pricing.configured_for_conversations(composed(*CONVERSING).reward, "strict")
    rewarded = RewardedConversation(SampledConversation(held, ()), price(held, golden))
    found = irm_conversations.record(3, rewarded, golden)
    assert found.sampled.splitlines()[::2] == [
        'assistant (golden +0.1): look(at="a") [the tool answered with an error]',
        f"assistant (documentation -0.2): look(to=1) [{held.calls[1].reason}] [the tool answered with an error]",
        'assistant (tool_error -0.15): look(at="c") or so [the tool answered with an error]',
        'assistant (outcome -1): finish(answer="no")',
    ]
    assert found.golden == 'look(at="a")\nlook(at="b")' and found.grade == "failure"


def test_answers_may_be_as_long_as_the_golden_calls_of_the_tasks(byte_level, caplog):
    encoder, cfg = Encoder(byte_level), composed(*CONVERSING, "model=tiny")
    data = [Trajectory("d", (), (Message("user", "Look!"), Message.calling(Call("look", {}))))]
    most, _ = irm_conversations.limits(cfg, data, encoder, 8192)
    calls = [[Call("order", {"title": "Dune, " * 20}), Call("look", {})]]
    own = SimpleNamespace(tasks=[Task("a"), Task("b")], golden=lambda task: calls)
    golden = irm_conversations.golden_lengths(own, encoder)
    assert len(golden) == 2 and min(golden) < most < max(golden)
    assert irm_conversations.limits(cfg, data, encoder, 8192, [min(golden)])[0] == most
    assert irm_conversations.limits(cfg, data, encoder, 8192, golden)[0] >= max(golden) and not caplog.records
    cfg.stage.max_new_tokens = max(golden) - 1
    assert irm_conversations.limits(cfg, data, encoder, 8192, golden)[0] == max(golden) - 1
    assert "1 of the 2 different golden calls of the tasks do not fit stage.max_new_tokens" in caplog.text


class Remembering:
    """Tasks that only the object that made them knows."""

    environment = Room

    def tasks(self):
        self.golden_of = {"a": [[Call("look", {"at": "b"})]]}
        return [Task("a")]

    def golden(self, task):
        return self.golden_of[task.id]


def test_golden_calls_come_from_the_object_that_has_the_tasks():
    cfg = composed(*CONVERSING, f"stage.environment={{_target_: {__name__}.Remembering}}")
    own = irm_conversations.world(cfg, None)
    price = irm_conversations.judge(cfg, own.golden)
    found = price(replace(hold(says('look(at="b")', 'finish(answer="right")')), task=own.tasks[0]))
    assert [dict(turn.parts) for turn in found] == [{"golden": 0.1}, {"outcome": 1.0}]


def test_first_prompts_that_are_too_long_are_told(caplog):
    turn = SampledTurn(Sample("t0#1", (), (), ()), [1], [2], [0.0])
    held = [SampledConversation(hold(says('look(at="b")', None)), (turn,)), SampledConversation(hold(says(None)), ())]
    rewarded = [RewardedConversation(one, ()) for one in held]
    irm_conversations.FirstConversations(0.9)(1, rewarded)
    said = "the first prompt of 1 of the 2 conversations of the first step does not fit the model"
    assert said in caplog.text and "stage.max_prompt_length" in caplog.text
    with pytest.raises(TltrainError, match=r"the first prompt of 1 of the 1 conversations .* nothing to learn from"):
        irm_conversations.FirstConversations(0.9)(1, rewarded[1:])


@pytest.mark.parametrize(("most", "solved"), [(4, 54), (5, 60)])
def test_tasks_that_the_limit_leaves_unsolvable_are_counted(caplog, most, solved):
    """The golden calls and `finish` have to fit: 54 of these 60 tasks have at most three calls before it."""
    cfg = composed(*CONVERSING, f"stage.environment={{size: 60, max_turns: {most}}}")
    held = converse_golden(irm_conversations.world(cfg, None))
    assert sum(one.outcome["success"] for one in held) == solved
    said = [record.getMessage() for record in caplog.records if "cannot be solved" in record.getMessage()]
    assert len(said) == (solved < 60) and all(line.startswith(f"{60 - solved} of the 60 tasks") for line in said)


def converse_golden(world):
    player = GoldenCalls({task.id: golden_calls(task) for task in world.tasks})
    return converse(world.tasks, world.make, player, world.settings, parallel=60)


def test_a_test_split_is_warned_of(caplog, tltrain):
    ran = tltrain(*CONVERSING, *SMALL, *FEW, "stage.environment={size: 2, max_turns: 1, split: test}")
    assert "trains with the tools of benchmark=toolworld" in (ran.folder / "tltrain.log").read_text()
