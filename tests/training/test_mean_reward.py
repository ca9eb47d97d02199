"""The critic's initial value: the policy's mean reward before training."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.support.small_rollouts import NEVER, PAD, SIZES, trees_of
from tltrain.training.actor_critic import mean_reward, new_critic, set_initial_value
from tltrain.training.rollout import Sampling


@pytest.fixture
def policy(byte_level) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, vocab_size=len(byte_level))).eval()


SAMPLING = Sampling(max_new_tokens=3, temperature=1.0, eos_id=NEVER, pad_id=PAD)


def test_the_mean_is_over_the_responses_to_some_of_the_prompts(policy, byte_level):
    trees = trees_of(byte_level, "turn") * 4  # 20 prompts, each a tree
    asked = []

    def grade(sample, prompt, tokens):
        assert tuple(prompt) in {tree.ids for tree in trees}
        asked.append(sample.id)
        assert len(tokens) == 3
        return -2.0 if len(asked) % 2 else 1.0

    assert mean_reward(policy, trees, SAMPLING, grade, bf16=False, seed=0, prompts=10) == -0.5
    assert asked == [tree.samples[0].id for tree in trees[::2]]


def test_the_same_seed_samples_the_same_and_leaves_the_generator_alone(policy, byte_level):
    trees, said = trees_of(byte_level, "trajectory"), []

    def grade(sample, prompt, tokens):
        said.append(tuple(tokens))
        return float(sum(tokens))

    before = torch.random.get_rng_state()
    means = [mean_reward(policy, trees, SAMPLING, grade, bf16=False, seed=seed) for seed in (5, 5, 6)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert means[0] == means[1] != means[2] and said[:5] == said[5:10] != said[10:]


def test_a_critic_begins_with_that_value_everywhere(policy, tmp_path):
    policy.save_pretrained(tmp_path)
    critic = new_critic(str(tmp_path), "sft", dtype=torch.float32, attn_implementation="sdpa")
    ids = torch.randint(5, 200, (2, 7))
    assert not critic(ids).logits.any()
    set_initial_value(critic, -1.25)
    assert torch.allclose(critic(ids).logits, torch.full((2, 7, 1), -1.25))
