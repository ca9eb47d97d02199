"""Models, and sampled responses."""

from __future__ import annotations

import copy
from unittest import mock

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaForTokenClassification

from tests.support.ppo_trainers import new_policy
from tests.support.small_rollouts import SIZES
from tltrain.tokens.encoder import Encoder
from tltrain.training import rollout


@pytest.fixture
def encoder(byte_level) -> Encoder:
    return Encoder(byte_level)


@pytest.fixture
def sizes(byte_level) -> dict:
    return {**SIZES, "vocab_size": len(byte_level)}


@pytest.fixture
def policy(sizes) -> LlamaForCausalLM:
    return new_policy(sizes, 0)


@pytest.fixture
def critic(sizes) -> LlamaForTokenClassification:
    torch.manual_seed(1)
    return LlamaForTokenClassification(LlamaConfig(**sizes, num_labels=1, classifier_dropout=0.0))


@pytest.fixture
def reference(policy) -> LlamaForCausalLM:
    """A model close to the policy, but not the same."""
    torch.manual_seed(2)
    near = copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in near.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return near


@pytest.fixture
def sampled():
    """The responses of every call of `rollout.sample`, in order."""
    seen: list[list[list[list[int]]]] = []
    draw = rollout.sample

    def record(*args):
        seen.append(draw(*args))
        return seen[-1]

    with mock.patch.object(rollout, "sample", record):
        yield seen


@pytest.fixture
def adapted(policy):
    peft = pytest.importorskip("peft")
    torch.manual_seed(3)
    return peft.get_peft_model(policy, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
