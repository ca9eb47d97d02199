"""Code that differs on a GPU, compared with the CPU: `pytest -m gpu` on a machine with a GPU."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments
from transformers.models.llama.modeling_llama import LlamaForTokenClassification

from tests.support.ppo_trainers import judge, trees_of
from tests.support.trajectories import ALIKE, chain
from tltrain.inference import decoding_attention, generation
from tltrain.tokens.encoder import Encoder
from tltrain.tokens.layout import flatten
from tltrain.tokens.prefix_tree import tree
from tltrain.tokens.prompts import PromptTree
from tltrain.training import rollout, sft, tree_mask, update_batches
from tltrain.training.actor_critic import ActorCritic, Models
from tltrain.training.kl import KlControl
from tltrain.training.ppo import PPOTrainer, Settings
from tltrain.training.reward_function import RewardSignal
from tltrain.training.rollout import Prompts, Sampling

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
DOCUMENTATION = [1, 2, 3, 4, 5, 6, 7, 8] * 30
LONG = [chain((DOCUMENTATION, False), ([4, 5], True), ([7] * length, False), ([8], True)) for length in (5, 99)]
SIZES = {
    "vocab_size": 400,
    "hidden_size": 64,  # flex attention's kernels need heads of at least 16 elements
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}


@pytest.fixture
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES))


def losses(model, layouts, fused: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each turn's loss and the gradient of their mean, on the CPU."""
    batch = sft.Collator(0, tree_mask.BLOCK)(list(sft.dataset(layouts)))
    batch = {name: value.to(model.device) if torch.is_tensor(value) else value for name, value in batch.items()}
    nll = sft.target_nll(model, batch, fused)
    found = sft.turn_losses(nll, batch["weights"], batch["turns"], batch["turn_count"])
    gradient = torch.autograd.grad(found.mean(), list(model.parameters()))
    return found.detach().cpu(), torch.cat([one.flatten() for one in gradient]).cpu()


@pytest.mark.parametrize("attention", ["sdpa", "eager", "flex_attention"])
@pytest.mark.parametrize("rows", ["chains", "trees"])
def test_losses_and_gradients_are_those_of_the_cpu(model, attention, rows):
    from trl.trainer.utils import add_fused_lm_head

    layouts = [flatten(one) for one in ([*LONG, *ALIKE] if rows == "chains" else [tree(LONG), tree(ALIKE)])]
    expected = losses(model, layouts)
    on_gpu = copy.deepcopy(model).cuda()
    add_fused_lm_head(on_gpu, outputs=("log_probs",))
    on_gpu.set_attn_implementation(attention)
    for one, other in zip(losses(on_gpu, layouts, fused=True), expected, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("attention", ["sdpa", "flex_attention"])
def test_a_rollout_gives_the_logprobs_and_values_of_the_cpu(model, byte_level, attention):
    critic = LlamaForTokenClassification(LlamaConfig(**SIZES, num_labels=1))
    trees = trees_of(Encoder(byte_level))
    responses = [[[11, 12, 13], [15], [16, 17]], [[18, 19, 20], [21]]]
    found = []
    for device in ("cpu", "cuda"):
        both = ActorCritic(copy.deepcopy(model), copy.deepcopy(critic)).to(device)
        if device == "cuda":
            for one in (both.policy, both.critic):
                one.set_attn_implementation(attention)
        batch = update_batches.make_batch(trees, responses, [0.0] * 5, 1, tree_mask.BLOCK if device == "cuda" else 1)
        batch = rollout.to_device(batch, torch.device(device))
        batch["attention_mask"] = tree_mask.attention_mask(both.policy, batch.pop("reach"), batch["position_ids"])
        inputs = {name: batch[name] for name in ("input_ids", "position_ids", "keep", "targets", "attention_mask")}
        with torch.no_grad():
            found.append([one.cpu() for one in both(temperature=0.7, **inputs)])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("attention", ["sdpa", "flex_attention"])
def test_greedy_answers_are_those_of_the_cpu(model, byte_level, attention):
    sharp = LlamaForCausalLM(LlamaConfig(**SIZES, initializer_range=0.3))  # so that the likeliest tokens differ clearly
    trees = [PromptTree(tuple(range(5, 205)), (90, 200), (None, None)), PromptTree((7, 8, 9), (3,), (None,))]
    on_gpu = copy.deepcopy(sharp).cuda()
    on_gpu.set_attn_implementation(attention)
    greedy = Sampling(20, None, 10**6, 1)
    assert rollout.sample(on_gpu, trees, greedy) == rollout.sample(sharp, trees, greedy)
    assert on_gpu.config._attn_implementation == attention
    encoder, prompts = Encoder(byte_level), [list(range(5, 90)), list(range(5, 80)), [7, 8, 9]]
    settings = generation.GenerationSettings(max_new_tokens=20, batch_size=2)
    expected = generation.generate(sharp, encoder, prompts, settings)
    assert generation.generate(on_gpu, encoder, prompts, settings) == expected
    with decoding_attention.enabled(on_gpu):
        assert on_gpu.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("attention", ["sdpa", "flex_attention"])
def test_a_step_of_ppo_in_bfloat16(byte_level, tmp_path, attention):
    torch.manual_seed(0)
    sizes = SIZES | {"vocab_size": len(byte_level), "attn_implementation": attention}
    policy = LlamaForCausalLM(LlamaConfig(**sizes))
    critic = LlamaForTokenClassification(LlamaConfig(**sizes, num_labels=1, classifier_dropout=0.0))
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        bf16=True,
        max_steps=2,
        per_device_train_batch_size=2,
        learning_rate=1e-4,
        optim="adamw_torch_fused",
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    trainer = PPOTrainer(
        Models(policy, critic, copy.deepcopy(policy)),
        arguments,
        Prompts(trees_of(Encoder(byte_level)), Sampling(20, 0.7, 10**6, 1), Encoder(byte_level)),
        reward=RewardSignal(judge, KlControl(0.3)),
        settings=Settings(),
    )
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "kl" in entry]
    assert len(logs) == 2
    assert abs(logs[0]["kl"]) < 1e-3  # the policy is its own reference, computed in the same way
    assert all(entry["seconds_update"] > 0 and entry["response_tokens"] == 100 for entry in logs)
