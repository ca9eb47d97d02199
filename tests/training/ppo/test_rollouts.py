"""What PPO samples, in which order and how often, and what it logs."""

from __future__ import annotations

import json
import math

import pytest

from tests.support.ppo_trainers import SCORES, steps, trainer_of, trees_of
from tests.support.small_rollouts import NEVER, PAD
from tltrain.grading import Grade, Outcome
from tltrain.training import rollout
from tltrain.training.ppo import RolloutSampler, Settings
from tltrain.training.reward_function import GRADES, GradedResponse
from tltrain.training.rollout import Sampling


def test_at_first_the_policy_is_its_own_reference(tmp_path, policy, critic, encoder):
    trainer = trainer_of(tmp_path, (policy, critic, policy), encoder, trees_of(encoder), max_steps=2)
    trainer.train()
    first, second = steps(trainer)
    assert first["kl"] == pytest.approx(0, abs=1e-5)
    assert abs(second["kl"]) > 1e-3
    assert first["policy_clip_fraction"] == second["policy_clip_fraction"] == 0  # one PPO epoch: the ratio is 1


def test_rollouts_are_made_once_for_all_ppo_epochs(tmp_path, policy, critic, reference, encoder, sampled):
    asked: list[tuple[int, list[str]]] = []
    trainer = trainer_of(
        tmp_path,
        (policy, critic, reference),
        encoder,
        trees_of(encoder, "turn")[:4],
        settings=Settings(ppo_epochs=2),
        on_samples=lambda step, judged: asked.append((step, sorted(one.sample.id for one in judged))),
        max_steps=8,
    )
    trainer.train()
    assert len(sampled) == 4
    assert [step for step, _ in asked] == [1, 3, 5, 7]
    everything = ["o#1", "t#1", "t#2", "t#3"]
    assert [sorted(asked[i][1] + asked[i + 1][1]) for i in (0, 2)] == [everything] * 2  # each prompt once per epoch
    assert [entry["samples"] for entry in steps(trainer)] == [2, 0] * 4
    assert all(("reward" in entry) == (entry["samples"] > 0) for entry in steps(trainer))
    assert all(math.isfinite(entry["tokens_per_second"]) for entry in steps(trainer))


def test_every_step_draws_anew_and_every_run_the_same(tmp_path, policy, critic, reference, encoder, sampled):
    still = {"learning_rate": 0.0, "settings": Settings(critic_learning_rate=0.0), "max_steps": 3}
    for _ in range(2):
        trainer_of(tmp_path, (policy, critic, reference), encoder, trees_of(encoder)[:1], **still).train()
    assert sampled[:3] == sampled[3:]
    assert sampled[0] != sampled[1] != sampled[2]


def test_indices_come_in_another_order_each_epoch_and_each_rollouts_again():
    sampler = RolloutSampler(6, 2, 3, seed=0)
    epochs = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
        assert len(epochs[-1]) == len(sampler) == 18 and list(sampler) == epochs[-1]
        for start in (0, 6, 12):
            pair = epochs[-1][start : start + 2]
            assert epochs[-1][start : start + 6] == pair * 3
        assert sorted(epochs[-1]) == sorted([*range(6)] * 3)
    assert epochs[0] != epochs[1] != epochs[2]


def test_with_repeats_the_last_rollout_is_as_large_as_the_others():
    for count, size, repeats in ((5, 2, 2), (3, 4, 3), (1, 4, 2)):
        sampler = RolloutSampler(count, size, repeats, seed=0)
        found = list(sampler)
        assert len(found) == len(sampler)
        rollouts = [found[start : start + size] for start in range(0, len(found), size)]
        assert all(len(own) == size for own in rollouts)
        assert all(own == rollouts[i - i % repeats] for i, own in enumerate(rollouts))
        assert set(found) == set(range(count)) and len(rollouts) == -(-count // size) * repeats


def test_without_repeats_each_prompt_comes_once_an_epoch():
    sampler = RolloutSampler(5, 2, 1, seed=0)
    assert sorted(sampler) == [*range(5)] and len(sampler) == 5


@pytest.mark.parametrize(("batch", "accumulation"), [(2, 1), (1, 2)])
def test_prompts_that_do_not_divide_into_rollouts_are_all_asked_and_learned_from(
    tmp_path, policy, critic, reference, encoder, sampled, batch, accumulation
):
    asked: list[tuple[int, set[str]]] = []
    trainer = trainer_of(
        tmp_path,
        (policy, critic, reference),
        encoder,
        trees_of(encoder, "turn")[:3],
        settings=Settings(ppo_epochs=2),
        on_samples=lambda step, judged: asked.append((step, {one.sample.id for one in judged})),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        max_steps=-1,
        num_train_epochs=2,
    )
    trainer.train()
    assert trainer.state.global_step == 8 and [step for step, _ in asked] == [1, 3, 5, 7]
    for i in (0, 2):
        assert asked[i][1] | asked[i + 1][1] == {"t#1", "t#2", "t#3"}


def test_what_is_logged_of_a_rollout(tmp_path, policy, critic, reference, encoder, sampled):
    outcomes = dict(zip(SCORES, ["correct", "format_error", "wrong_value", "correct", "correct"], strict=True))

    def graded(sample, response: str, ended: bool) -> GradedResponse:
        return GradedResponse(sample, response, Grade(Outcome(outcomes[sample.id]), ""), SCORES[sample.id], ended)

    shown: list[GradedResponse] = []
    trees = trees_of(encoder)
    end = rollout.sample(policy, trees, Sampling(5, None, NEVER, PAD))[0][0][2]
    sampling = Sampling(5, None, end, PAD)
    trainer = trainer_of(
        tmp_path,
        (policy, critic, reference),
        encoder,
        trees,
        sampling=sampling,
        judge=graded,
        on_samples=lambda step, judged: shown.extend(judged),
    )
    trainer.train()
    (entry,) = steps(trainer)
    responses = [tokens for own in sampled[-1] for tokens in own]
    assert entry["reward"] == pytest.approx((1 - 2 + 0.5 + 7 - 0.25) / 5)  # before clipping
    # The response that cannot be read has no end token either: it was cut.
    shares = {"grade/correct": 0.6, "grade/cut": 0.2, "grade/wrong_value": 0.2}
    assert {name: entry[name] for name in GRADES} == pytest.approx(dict.fromkeys(GRADES, 0.0) | shares)
    assert entry["response_length"] == sum(map(len, responses)) / 5
    assert entry["response_tokens"] == sum(map(len, responses)) < 25
    assert entry["ended"] == sum(tokens[-1] == end for tokens in responses) / 5 > 0
    assert entry["ended"] + entry["no_end_token"] + entry["grade/cut"] == pytest.approx(1)
    # In float32 the policy itself samples.
    assert 0 <= entry["sampling_logprob_difference"] <= entry["sampling_logprob_difference_max"] < 1e-4
    parts = [entry[f"seconds_{part}"] for part in ("generation", "scoring", "update")]
    assert min(parts) > 0 and entry["seconds"] == pytest.approx(sum(parts))
    prompt_tokens = sum(end for tree in trees for end in tree.ends)
    assert entry["tokens_per_second"] == pytest.approx((prompt_tokens + entry["response_tokens"]) / entry["seconds"])
    assert 0 < entry["entropy"] < math.log(policy.config.vocab_size)
    assert sorted(encoder.decode(tokens) for tokens in responses) == sorted(one.response for one in shown)
    assert json.dumps(entry)
