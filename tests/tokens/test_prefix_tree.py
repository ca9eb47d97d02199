"""Trees of trajectories with common prefixes: what is shared, and that each turn's loss and gradient are unchanged."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from tests.support.trajectories import ALIKE, END, TOOLS, TRAJECTORY, VOCABULARY, chain, conversation
from tests.support.tree_losses import CHAINS, by_turn, gradient, losses
from tltrain.errors import TltrainError
from tltrain.tokens.encoder import Encoder
from tltrain.tokens.layout import Run, flatten
from tltrain.tokens.packing import PackingReport, PackingSettings, pack
from tltrain.tokens.prefix_tree import Limits, groups, tree
from tltrain.training import sft, tree_mask
from tltrain.trajectory import Call, Trajectory

ANY = Limits(100, 10**6)


# --- the layout -----------------------------------------------------------------------------------------------------


def test_a_tree_by_hand():
    # Sorted: [1 2 | 5], [1 2 3 4 5], [1 2 3 4 6 7 8]. The first call's tokens are predicted from 2 in one chain and
    # from nothing there in the others, so 2 occurs twice; after 4, 5 is expected once and 6 once, so 4 occurs twice.
    layout = flatten(tree(ALIKE))
    assert layout.input_ids == [1, 2, 3, 4, 5, 4, 6, 7, 8, 2, 5]
    assert layout.position_ids == [0, 1, 2, 3, 4, 3, 4, 5, 6, 1, 2]
    assert layout.reach == [11, 9, 9, 5, 5, 9, 9, 9, 9, 11, 11]
    found = sorted(zip(layout.turns, layout.positions, layout.targets, layout.weights, layout.keys, strict=True))
    assert found == [
        (0, 2, 4, 1.0, 1),  # the first token of both calls is expected at one place, once per turn
        (0, 3, 5, 2.0, 0),
        (0, 4, END, 3.0, 0),
        (1, 2, 4, 1.0, 1),
        (1, 5, 6, 2.0, 0),
        (1, 6, END, 3.0, 0),
        (2, 7, 8, 1.0, 1),
        (2, 8, END, 2.0, 0),
        (3, 9, 5, 1.0, 1),
        (3, 10, END, 2.0, 0),
    ]


def test_runs_that_do_not_stand_depth_first_are_refused():
    with pytest.raises(ValueError, match="run 3 is not in depth-first order"):
        flatten([Run([1], -1, []), Run([2], 0, []), Run([3], 0, []), Run([4], 1, [])])


def test_one_chain_is_unchanged_and_two_without_a_common_prefix_form_a_forest():
    assert tree([ALIKE[1]]) == ALIKE[1]
    layout = flatten(tree([chain(([5, 6], False), ([7], True)), chain(([1, 2], False), ([3], True))]))
    assert layout.input_ids == [1, 2, 3, 5, 6, 7] and layout.reach == [3, 3, 3, 6, 6, 6]
    assert layout.position_ids == [0, 1, 2, 0, 1, 2]


def test_chains_that_share_most_are_grouped_at_the_position_of_the_first():
    def of(*ids: int) -> list[Run]:
        return chain((list(ids), False), ([8], True))

    chains = [of(1, 1, 1, 2), of(5, 5, 5, 1), of(1, 1, 1, 3), of(5, 5, 5, 5), of(1, 1, 1, 4), of(5, 1, 1, 1, 1, 1)]
    assert groups(chains, ANY) == [[0, 2, 4], [5], [1, 3]] or groups(chains, ANY) == [[0, 2, 4], [1, 3], [5]]
    assert sorted(map(len, groups(chains, Limits(2, 10**6)))) == [1, 1, 2, 2]
    # 5 tokens, then 2 new ones, with a copy of the last shared one for each expectation: at most 7.
    assert groups(chains[::2], Limits(100, 7)) == [[0, 1], [2]]
    assert groups(chains[::2], Limits(100, 9)) == [[0, 1, 2]]
    assert groups(chains[::2], Limits(100, 3)) == [[0], [1], [2]]  # longer than any tree may be: alone


def test_a_trajectory_joins_where_that_costs_less():
    # 20 new tokens besides 100, 80 of which are shared, in a tree of 100: 20 (1 + 220 / c) against 100 (1 + 50 / c).
    assert Limits(9, 10**6, 200).saves_time(tree=100, whole=100, shared=80)
    # 70 new ones: 70 (1 + 270 / 200) = 164.5 against 125.
    assert not Limits(9, 10**6, 200).saves_time(tree=100, whole=100, shared=30)
    assert Limits(9, 10**6).saves_time(tree=100, whole=100, shared=30)
    assert not Limits(9, 10**6).saves_time(tree=100, whole=100, shared=24)  # less than a quarter


@settings(max_examples=200, deadline=None)
@given(CHAINS)
def test_every_target_sees_its_own_past_and_nothing_else(chains):
    layout = flatten(tree(chains))
    sees = tree_mask.visible(torch.tensor([layout.reach]))[0].numpy()
    ids, places = np.array(layout.input_ids), np.array(layout.position_ids)
    expected, first = [], 0
    for one in chains:
        own = flatten(one)
        for position, target, weight, turn in zip(own.positions, own.targets, own.weights, own.turns, strict=True):
            expected.append((first + turn, position, tuple(own.input_ids[: position + 1]), target, weight))
        first += max(own.turns) + 1
    found = []
    for position, target, weight, turn in zip(
        layout.positions, layout.targets, layout.weights, layout.turns, strict=True
    ):
        past = sees[position]
        assert list(places[past]) == list(range(past.sum()))
        found.append((turn, int(places[position]), tuple(ids[past].tolist()), target, weight))
    assert sorted(found) == sorted(expected)
    wanted = {}
    for position, target in zip(layout.positions, layout.targets, strict=True):
        assert wanted.setdefault(position, target) == target
    assert len(layout.input_ids) <= sum(len(flatten(one).input_ids) for one in chains)


# --- losses and gradients -------------------------------------------------------------------------------------------

SIZE = {"initializer_range": 0.3}


def llama(vocabulary: int = VOCABULARY) -> PreTrainedModel:
    torch.manual_seed(0)
    shape = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=vocabulary, hidden_size=32, intermediate_size=48, **shape, **SIZE)
    ).eval()


def gpt2() -> PreTrainedModel:
    torch.manual_seed(0)
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, **shape, **SIZE)).eval()


@pytest.fixture(scope="module", params=[llama, gpt2])
def model(request) -> PreTrainedModel:
    return request.param()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CHAINS)
def test_losses_and_gradients_are_those_of_each_turn_alone(model, chains):
    expected = by_turn(model, chains)
    found = losses(model, [flatten(tree(chains))])
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(gradient(model, found.mean()), gradient(model, expected.mean()), atol=1e-5)


def test_trees_and_chains_of_different_lengths_share_a_batch(model):
    alone = chain(([1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], False), ([2], True))
    layouts = [flatten(tree(ALIKE)), flatten(alone), flatten(tree(ALIKE[:2]))]
    expected = by_turn(model, [*ALIKE, alone, *ALIKE[:2]])
    for batch_size in (1, 2, 3):
        assert torch.allclose(losses(model, layouts, batch_size), expected, atol=1e-5)


def test_the_fused_head_gives_the_same_losses():
    from trl.trainer.utils import add_fused_lm_head

    model, layout = llama(), flatten(tree(ALIKE))
    plain = losses(model, [layout])
    add_fused_lm_head(model, outputs=("log_probs",))
    batch = sft.Collator(0)(list(sft.dataset([layout])))
    nll = sft.target_nll(model, batch, fused=True)
    assert torch.allclose(sft.turn_losses(nll, batch["weights"], batch["turns"], 4), plain, atol=1e-5)


# --- whole trajectories ----------------------------------------------------------------------------------------------


QUERIES = [
    conversation(Call("getPaperDetails", {"id": str(number)}), Call("finish", {"answer": "x"}), query=f"Find {number}")
    for number in (12345678, 12345679, 7)
]


def packed(encoder: Encoder, items: list[Trajectory], packing: str, limits: Limits | None = None):
    report = PackingReport()
    settings = PackingSettings(packing, 9.0, 4000, limits=limits)
    return list(pack(items, encoder, settings, report)), report


def test_conversations_over_the_same_tools_cost_little_more_than_one(byte_level):
    encoder = Encoder(byte_level)
    model = llama(len(byte_level))
    items = [TRAJECTORY, *QUERIES]
    turns, apart = packed(encoder, items, "turn")
    (together,), report = packed(encoder, items, "prefix_tree")
    expected, found = losses(model, turns), losses(model, [together])
    assert torch.allclose(found.sort().values, expected.sort().values, atol=1e-5)
    assert torch.allclose(gradient(model, found.mean()), gradient(model, expected.mean()), atol=1e-5)
    assert (report.samples, report.turns, report.trajectories) == (1, apart.turns, 4)
    one = packed(encoder, items[:1], "trajectory")[1].tokens
    assert one < report.tokens < 1.6 * one < report.tokens_apart / 2
    assert report.tokens == report.tokens_in_trees == len(together.input_ids)


def test_auto_measures_what_is_shared(byte_level):
    encoder = Encoder(byte_level)
    layouts, report = packed(encoder, QUERIES, "auto")
    assert report.packing == "prefix_tree" and len(layouts) == 1
    others = [replace(item, tools=(tool,)) for item, tool in zip(QUERIES, TOOLS, strict=True)]
    layouts, report = packed(encoder, others, "auto")
    assert report.packing == "trajectory" and layouts == packed(encoder, others, "trajectory")[0]
    assert report.tokens == report.tokens_apart and report.tokens_in_trees > 0.7 * report.tokens_apart


def test_a_tree_holds_as_much_as_it_may(byte_level):
    encoder = Encoder(byte_level)
    layouts, report = packed(encoder, [TRAJECTORY, *QUERIES], "prefix_tree", Limits(2, 4000))
    assert len(layouts) == 2 and report.turns == 9
    least = packed(encoder, QUERIES, "trajectory")[1].tokens // 3 + 5
    layouts, report = packed(encoder, QUERIES, "prefix_tree", Limits(16, least))
    assert all(len(layout.input_ids) <= least for layout in layouts) and report.turns == 6


# --- flex attention -------------------------------------------------------------------------------------------------


def some_reach() -> torch.Tensor:
    """Return two rows of 437 tokens: a tree whose branches end within blocks, and a shorter chain with padding."""
    branches = [Run([1] * 200, -1, []), *(Run([2] * length, 0, []) for length in (3, 70, 130)), Run([3] * 34, 3, [])]
    return tree_mask.padded([flatten(branches).reach, flatten([Run([1] * 300, -1, [])]).reach], 437)


def test_block_masks_hide_what_the_dense_mask_hides():
    reach = some_reach()
    seen, blocks = tree_mask.visible(reach), tree_mask.blocks(reach)
    at = torch.arange(437)
    b, q, k = torch.arange(2)[:, None, None], at[:, None], at
    assert torch.equal(blocks.mask_mod(b, None, q, k), seen)
    assert blocks.shape == (2, 1, 437, 437)

    def marked(counts: torch.Tensor, lists: torch.Tensor) -> torch.Tensor:
        marks = torch.zeros(lists.shape, dtype=torch.bool)
        for at in np.ndindex(*counts.shape):
            marks[at][lists[at][: counts[at]].long()] = True
        return marks[:, 0].repeat_interleave(128, 1).repeat_interleave(128, 2)[:, :437, :437]

    partial, full = (
        marked(blocks.kv_num_blocks, blocks.kv_indices),
        marked(blocks.full_kv_num_blocks, blocks.full_kv_indices),
    )
    assert not (partial & full).any()
    assert seen[full].all() and not seen[~(partial | full)].any()
    assert full.any() and not (partial | full).all()


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_a_model_with_flex_attention_gives_the_losses_and_gradients_of_the_dense_mask(monkeypatch):
    """Uncompiled on the CPU, where torch refuses a backward pass that works: everything but the GPU kernel."""
    from torch.nn.attention import flex_attention as flex
    from transformers.integrations import flex_attention as library

    monkeypatch.setattr(flex, "_validate_device", lambda *tensors: None)
    monkeypatch.setattr(library, "WrappedFlexAttention", lambda training: lambda: flex.flex_attention)
    model, found = llama(), {}
    for attention in ("sdpa", "eager", "flex_attention"):
        model.set_attn_implementation(attention)
        loss = losses(model, [flatten(tree(ALIKE)), flatten(ALIKE[0])], batch_size=2)
        found[attention] = loss.detach(), gradient(model, loss.mean())
    for attention in ("eager", "flex_attention"):
        for one, other in zip(found[attention], found["sdpa"], strict=True):
            assert (one - other).abs().max() < 1e-5


def test_flex_attention_is_refused_on_a_cpu_in_one_line():
    model = llama()
    assert tree_mask.dense_until(model) == 6 * 32
    tree_mask.check(model)
    model.set_attn_implementation("flex_attention")
    assert tree_mask.dense_until(model) == math.inf
    with pytest.raises(TltrainError, match="flex_attention does not train on a CPU"):
        tree_mask.check(model)
