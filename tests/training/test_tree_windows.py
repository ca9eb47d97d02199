"""Trees in models with sliding windows, where each branch is computed as if alone; models that cannot process trees."""

from __future__ import annotations

import peft
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from transformers import (
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    BloomConfig,
    Gemma3TextConfig,
    Gemma4TextConfig,
    GptOssConfig,
    Lfm2Config,
    Llama4TextConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3_5TextConfig,
    Qwen3NextConfig,
)

from tests.support.ppo_trainers import trainer_of, trees_of
from tests.support.small_rollouts import PAD
from tests.support.trajectories import ALIKE, VOCABULARY, chain
from tests.support.tree_losses import CHAINS, by_turn, gradient, losses
from tltrain.errors import TltrainError
from tltrain.tokens.encoder import Encoder
from tltrain.tokens.layout import Run, flatten
from tltrain.tokens.prefix_tree import tree
from tltrain.training import tree_mask
from tltrain.training.update_batches import make_batch

WINDOW = 3
FULL, SLIDING = "full_attention", "sliding_attention"
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
    "initializer_range": 0.1,
}
MIXED = {"layer_types": [SLIDING, FULL, SLIDING, FULL], "sliding_window": WINDOW}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", FULL, "linear_attention", FULL],
}
WINDOWED: dict[str, PreTrainedConfig] = {
    "gemma3": Gemma3TextConfig(**SHAPE, **MIXED, query_pre_attn_scalar=8),
    "gemma4": Gemma4TextConfig(
        **SHAPE, **MIXED, global_head_dim=16, num_kv_shared_layers=2, hidden_size_per_layer_input=4,
        vocab_size_per_layer_input=VOCABULARY,
    ),
    "gptoss": GptOssConfig(**SHAPE, **MIXED, **EXPERTS),
    "mistral": MistralConfig(**SHAPE, sliding_window=WINDOW),
    "qwen2": Qwen2Config(**SHAPE, sliding_window=WINDOW, use_sliding_window=True, max_window_layers=2),
}  # fmt: skip
OTHERS: dict[str, PreTrainedConfig] = {
    "qwen3_5": Qwen3_5TextConfig(**SHAPE, **LINEAR),
    "qwen3_next": Qwen3NextConfig(**SHAPE, **LINEAR, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16),
    "lfm2": Lfm2Config(**SHAPE, layer_types=["conv", FULL, "conv", FULL], conv_L_cache=3),
}


def made(config: PreTrainedConfig) -> PreTrainedModel:
    """Return a model with random weights, none of which is at its neutral value."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module", params=sorted(WINDOWED))
def model(request) -> PreTrainedModel:
    return made(WINDOWED[request.param])


LONG = [
    chain(([1, 2, 3, 4, 5, 6], False), ([7] * length, True), ([5, 6, 7], False), ([2, last], True))
    for length in (1, 4, 9)
    for last in (3, 8)
]


def test_each_branch_has_the_logits_that_it_has_alone(model):
    layout = flatten(tree(LONG))
    reach, places = torch.tensor([layout.reach]), torch.tensor([layout.position_ids])
    mask = tree_mask.attention_mask(model, reach, places)
    ids = torch.tensor([layout.input_ids])
    with torch.no_grad():
        together = model(input_ids=ids, position_ids=places, attention_mask=mask, use_cache=False).logits[0]
        seen = tree_mask.visible(reach)[0]
        for leaf in (i for i in range(len(layout.reach)) if layout.reach[i] == i + 1):
            branch = seen[leaf].nonzero()[:, 0]
            alone = model(input_ids=ids[:, branch], use_cache=False).logits[0]
            assert (together[branch] - alone).abs().max() < 1e-5 * max(1.0, float(alone.abs().max()))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CHAINS)
def test_losses_and_gradients_are_those_of_each_turn_alone(model, chains):
    expected, found = by_turn(model, chains), losses(model, [flatten(tree(chains))])
    assert torch.allclose(found, expected, atol=1e-5)
    one, other = gradient(model, found.mean()), gradient(model, expected.mean())
    assert (one - other).norm() < 1e-5 * other.norm()


def test_trees_of_different_lengths_share_a_batch(model):
    layouts = [flatten(tree(LONG)), flatten(LONG[0]), flatten(tree(ALIKE))]
    expected = by_turn(model, [*LONG, LONG[0], *ALIKE])
    assert torch.allclose(losses(model, layouts, 3), expected, atol=1e-5)


def test_a_model_that_returns_what_its_routers_say_processes_trees():
    own = made(GptOssConfig(**SHAPE, **MIXED, **EXPERTS, output_router_logits=True))
    assert torch.allclose(losses(own, [flatten(tree(LONG))]), by_turn(own, LONG), atol=1e-5)


def test_a_window_is_counted_in_the_branch():
    # 0 1 2 | 3 4 5 | 6 7: both branches continue from 2, so token 6 is three positions after 0, like token 3.
    layout = flatten([Run([1] * 3, -1, []), Run([2] * 3, 0, []), Run([3] * 2, 0, [])])
    places = torch.tensor([layout.position_ids])
    seen = tree_mask.visible(torch.tensor([layout.reach]), tree_mask.Window(places, 3))[0]
    rows = [row.nonzero()[:, 0].tolist() for row in seen]
    assert rows == [[0], [0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5], [1, 2, 6], [2, 6, 7]]


def test_windows_are_read_from_the_configuration():
    assert tree_mask.layer_windows(WINDOWED["gptoss"]) == {SLIDING: WINDOW, FULL: None}
    assert tree_mask.layer_windows(WINDOWED["mistral"]) == {SLIDING: WINDOW}
    assert tree_mask.layer_windows(LlamaConfig(**SHAPE)) == {FULL: None}
    assert all(tree_mask.layer_windows(config) is None for config in OTHERS.values())


def test_block_masks_hide_what_the_dense_mask_with_a_window_hides():
    branches = [Run([1] * 200, -1, []), *(Run([2] * length, 0, []) for length in (3, 300, 130)), Run([3] * 34, 3, [])]
    layouts = [flatten(branches), flatten([Run([1] * 500, -1, [])])]
    reach = tree_mask.padded([layout.reach for layout in layouts], 667)
    places = torch.zeros_like(reach)
    for row, layout in zip(places, layouts, strict=True):
        row[: len(layout.position_ids)] = torch.tensor(layout.position_ids)
    at = torch.arange(667)
    for size in (1, 100, 260, 1000):
        window = tree_mask.Window(places, size)
        seen, blocks = tree_mask.visible(reach, window), tree_mask.blocks(reach, window)
        b, q, k = torch.arange(2)[:, None, None], at[:, None], at
        assert torch.equal(blocks.mask_mod(b, None, q, k), seen)
        partial, full = (
            _marked(counts, lists)
            for counts, lists in (
                (blocks.kv_num_blocks, blocks.kv_indices),
                (blocks.full_kv_num_blocks, blocks.full_kv_indices),
            )
        )
        assert not (partial & full).any() and seen[full].all() and not seen[~(partial | full)].any()
        assert full.any() == (size > 128) and not (partial | full).all()
    omitted = tree_mask.blocks(reach, tree_mask.Window(places, 100)).kv_num_blocks.sum()
    assert omitted < tree_mask.blocks(reach).kv_num_blocks.sum() + tree_mask.blocks(reach).full_kv_num_blocks.sum()


def _marked(counts: torch.Tensor, lists: torch.Tensor) -> torch.Tensor:
    """Return [B, T, T], True in the blocks that are listed."""
    marks = torch.zeros(lists.shape, dtype=torch.bool)
    for at in torch.cartesian_prod(*map(torch.arange, counts.shape)):
        index = tuple(at.tolist())
        marks[index][lists[index][: counts[index]].long()] = True
    return marks[:, 0].repeat_interleave(128, 1).repeat_interleave(128, 2)[:, :667, :667]


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("name", ["mistral", "qwen2"])
def test_flex_attention_gives_the_losses_and_gradients_of_dense_masks(monkeypatch, name):
    """Uncompiled on the CPU, where torch refuses a backward pass that works: everything but the GPU kernel."""
    from torch.nn.attention import flex_attention as flex
    from transformers.integrations import flex_attention as library

    monkeypatch.setattr(flex, "_validate_device", lambda *tensors: None)
    monkeypatch.setattr(library, "WrappedFlexAttention", lambda training: lambda: flex.flex_attention)
    own, found = made(WINDOWED[name]), {}
    for attention in ("eager", "flex_attention"):
        own.set_attn_implementation(attention)
        loss = losses(own, [flatten(tree(LONG)), flatten(LONG[0])], batch_size=2)
        found[attention] = loss.detach(), gradient(own, loss.mean())
    for one, other in zip(*found.values(), strict=True):
        assert (one - other).abs().max() < 1e-5 * max(1.0, float(other.abs().max()))


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_models_with_other_layers_get_chains_with_exact_losses(name):
    own = made(OTHERS[name])
    kind = next(kind for kind in OTHERS[name].layer_types if kind != FULL)
    assert f"{type(own).__name__} has layers ({kind}) that do not attend to single tokens" in tree_mask.obstacle(own)
    with pytest.raises(TltrainError, match=r"branches would mix in them: stage.packing=trajectory"):
        tree_mask.check(own)
    expected = by_turn(own, LONG[:3])
    assert torch.allclose(losses(own, [flatten(one) for one in LONG[:3]]), expected, atol=1e-5)
    assert torch.allclose(losses(own, [flatten(one) for one in LONG[:3]], 3), expected, atol=1e-5)


def test_attention_in_chunks_and_models_without_positions_are_refused():
    text = Llama4TextConfig(**SHAPE, **EXPERTS, attention_chunk_size=8)
    assert tree_mask.layer_windows(text) is None
    bloom = AutoModelForCausalLM.from_config(BloomConfig(vocab_size=10, hidden_size=32, n_layer=1, n_head=4))
    with pytest.raises(TltrainError, match=r"BloomForCausalLM does not take position_ids.*: stage.packing=trajectory"):
        tree_mask.check(bloom)


def test_a_model_with_an_adapter_processes_trees():
    base = made(LlamaConfig(**SHAPE))
    adapter = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], init_lora_weights=False)
    with_adapter = peft.get_peft_model(base, adapter).eval()
    assert tree_mask.obstacle(with_adapter) == ""
    assert torch.allclose(losses(with_adapter, [flatten(tree(LONG))]), by_turn(with_adapter, LONG), atol=1e-5)


# --- reinforcement ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packing", ["trajectory", "turn"])
def test_an_update_of_ppo_scores_responses_as_each_prompt_alone(tmp_path, byte_level, packing):
    shape = {**SHAPE, "vocab_size": len(byte_level), "num_hidden_layers": 2}
    window = {"layer_types": [SLIDING, FULL], "sliding_window": 9}
    policy = made(Qwen2Config(**shape, use_sliding_window=True, **window))
    torch.manual_seed(1)
    critic = AutoModelForTokenClassification.from_config(
        Qwen2Config(**shape, use_sliding_window=True, **window, num_labels=1)
    )
    trees = trees_of(Encoder(byte_level), packing)
    trainer = trainer_of(tmp_path, (policy, critic, policy), Encoder(byte_level), trees)
    responses = [[[7 + m, 11, 12, 13] for m in range(len(tree.ends))] for tree in trees]
    scores = [0.0] * sum(len(tree.ends) for tree in trees)
    batch = make_batch(trees, responses, scores, PAD)
    inputs = {name: batch[name] for name in ("input_ids", "position_ids", "keep", "targets")}
    with torch.no_grad():
        logprobs, _, _ = trainer.model(temperature=1.0, **inputs, **trainer._attention(batch))
    found = logprobs[batch["index"]]
    expected = [
        policy(torch.tensor([[*tree.ids[:end], *response]])).logits[0, end - 1 : -1].log_softmax(-1)
        for tree, own in zip(trees, responses, strict=True)
        for end, response in zip(tree.ends, own, strict=True)
    ]
    flat = [response for own in responses for response in own]
    for row, logs, response in zip(found, expected, flat, strict=True):
        assert torch.allclose(row, logs[range(4), response], atol=1e-5)


def test_a_critic_whose_layers_attend_otherwise_is_refused():
    windowed = Qwen2Config(**SHAPE, sliding_window=WINDOW, use_sliding_window=True, max_window_layers=2)
    models = [AutoModelForCausalLM.from_config(config) for config in (windowed, Qwen2Config(**SHAPE))]
    with pytest.raises(TltrainError, match="the critic's layers attend to other tokens than the policy's"):
        tree_mask.check_same_layers(*models)
