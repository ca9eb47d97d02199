"""stage.algorithm=rejection: supervised training on those sampled calls that are correct."""

from __future__ import annotations

from tests.support.small_runs import SMALL, last_line, weights
from tltrain.grading import Grade, Outcome
from tltrain.tokens.prompts import PromptTree
from tltrain.training import rejection, reward_function
from tltrain.training.reward_function import GradedResponse
from tltrain.training.rollout import RolloutSampler

WORDS = (
    "data.size=12",
    "data.holdout=0.2",
    "stage.max_new_tokens=4",
    "stage.too_long_answer=keep",
    "stage.eval_size=2",
)


def end_of_letters(judge, sample, response: str, ended: bool = True) -> GradedResponse:
    """Grade a response that begins with a letter as correct, with an end token."""
    right = response[:1].isalpha()
    grade = Grade(Outcome.CORRECT if right else Outcome.FORMAT_ERROR, "")
    return GradedResponse(sample, response, grade, 1.0 if right else -2.0)


def test_correct_calls_are_kept_and_learned(tltrain, monkeypatch, tmp_path):
    monkeypatch.setattr(reward_function.RewardFunction, "__call__", end_of_letters)
    words = ["stage=irm", "stage.algorithm=rejection", *SMALL, *WORDS, "stage.args.save_steps=1"]
    ran = tltrain(*words, "stage.sampled_calls=40")
    lines, train, costs = ran.lines("sampled.jsonl"), ran.metrics["train"], ran.metrics["costs"]
    kept = [line for line in lines if line["kept"]]
    assert len(lines) == train["sampled_calls"] == costs["sampled_calls"] == 40
    assert 0 < len(kept) == train["kept_calls"] < 40
    assert all(line["text"][:1].isalpha() == line["kept"] for line in lines)
    assert costs["sampled_tokens"] == sum(len(line["tokens"]) for line in lines)
    assert costs["target_tokens"] == sum(len(line["tokens"]) for line in kept)  # one epoch
    assert costs["updates"] == ran.metrics["steps"] > 0
    assert f"{len(kept)} of 40" in ran.err and "40 are sampled (stage.sampled_calls)" in ran.err
    again = tltrain(*words, "stage.sampled_calls=40")
    assert weights(again) == weights(ran)


def test_no_correct_call_is_one_clear_line(tltrain):
    ran = tltrain("stage=irm", "stage.algorithm=rejection", *SMALL, *WORDS, status=1)
    assert last_line(ran).startswith("none of ") and "so there is nothing to learn" in last_line(ran)
    assert ran.lines("sampled.jsonl") and not (ran.folder / "model").exists()


def trees_of(*counts: int) -> list[PromptTree]:
    """Return a tree for each number of prompts, which have 1, 2, ... tokens."""
    return [
        PromptTree(tuple(range(100 * b, 100 * b + n)), tuple(range(1, n + 1)), tuple(f"{b}.{m}" for m in range(n)))
        for b, n in enumerate(counts)
    ]


def test_calls_are_asked_in_the_order_of_ppo_until_there_are_enough():
    trees = trees_of(3, 1, 2)
    sampler = RolloutSampler(3, 1, 1, seed=4)
    first = [trees[i] for i in sampler]
    sampler.set_epoch(1)
    second = [trees[i] for i in sampler]
    assert rejection.order(trees, None, 4) == first
    assert rejection.order(trees, 6, 4) == first
    asked = rejection.order(trees, 11, 4)
    assert [sample for tree in asked for sample in tree.samples] == [
        sample for tree in first + second for sample in tree.samples
    ][:11]
    assert all(len(tree.ids) == tree.ends[-1] for tree in asked)


def judged(outcome: Outcome, ended: bool = True) -> GradedResponse:
    return GradedResponse(None, "", Grade(outcome, ""), 0.0, ended)


def test_kept_responses_become_targets_and_others_leave_no_trace():
    tree = PromptTree((7, 8, 9, 10), (1, 3, 4), ("a", "b", "c"))
    sampled = [
        rejection.SampledTree(
            tree,
            [[3, 4], [5, 6], [2]],
            [judged(Outcome.CORRECT), judged(Outcome.CORRECT), judged(Outcome.WRONG_VALUE)],
        ),
        rejection.SampledTree(tree, [[1]] * 3, [judged(Outcome.CORRECT, ended=False)] * 3),
    ]
    (layout,) = rejection.layouts(sampled, branches=True)
    assert layout.input_ids == [7, 3, 8, 9, 5] and layout.position_ids == [0, 1, 1, 2, 3]
    assert (layout.positions, layout.targets, layout.turns) == ([0, 1, 3, 4], [3, 4, 5, 6], [0, 0, 1, 1])
    apart = list(rejection.layouts(sampled, branches=False))
    assert [own.input_ids for own in apart] == [[7, 3], [7, 8, 9, 5]]
    assert rejection.counts(sampled) == rejection.SampledCounts(6, 2, 8)
