"""Key-value caches checked by hand: growth without copies, rows repeated, joined and removed."""

from __future__ import annotations

import torch
from transformers import Cache, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM
from transformers.cache_utils import DynamicLayer

from tltrain.inference import kv_cache
from tltrain.inference.kv_cache import GrowingLayer

SIZES = {"vocab_size": 20, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2}


def states(rows: int, count: int) -> torch.Tensor:
    """Return random states [rows, 2, count, 4]."""
    return torch.randn(rows, 2, count, 4)


def layer_of(*rows: list[int]) -> GrowingLayer:
    """Make a layer with one head of size 1: its keys as given, its values the same plus 100."""
    keys = torch.tensor(rows, dtype=torch.float32)[:, None, :, None]
    return GrowingLayer(keys, keys + 100)


def rows_of(cache: Cache) -> list[list[float]]:
    """Return the keys of the only layer, after checking its values."""
    (layer,) = cache.layers
    assert torch.equal(layer.values, torch.where(layer.keys == 0, layer.values, layer.keys + 100))
    return layer.keys[:, 0, :, 0].tolist()


def test_a_growing_layer_is_a_dynamic_layer():
    torch.manual_seed(0)
    ours, theirs = GrowingLayer(), DynamicLayer()
    for count in (5, 1, 1, 40, *[1] * 70):
        keys, values = states(3, count), states(3, count)
        for found, expected in zip(ours.update(keys, values), theirs.update(keys, values), strict=True):
            assert torch.equal(found, expected)
        assert ours.get_seq_length() == theirs.get_seq_length()
        if ours.get_seq_length() == 60:
            for layer in (ours, theirs):
                layer.batch_select_indices(torch.tensor([2, 0]))
            assert torch.equal(ours.keys, theirs.keys)
            break
    for layer in (ours, theirs):
        layer.crop(-10)
    keys, values = states(2, 3), states(2, 3)
    assert torch.equal(ours.update(keys, values)[1], theirs.update(keys, values)[1])
    assert ours.keys.shape == (2, 2, 53, 4)


def test_steps_write_into_the_room_there_is():
    layer, addresses = GrowingLayer(), []
    for _ in range(1 + 2 * GrowingLayer.ROOM):
        layer.update(states(1, 1), states(1, 1))
        addresses.append(layer.keys.data_ptr())
    assert len(set(addresses[: GrowingLayer.ROOM])) == 1
    assert len(set(addresses)) <= 3


def test_other_tensors_in_its_place_are_not_overwritten():
    layer = GrowingLayer()
    layer.update(states(2, 3), states(2, 3))
    before, other = layer.keys.clone(), states(1, 3)
    kept, layer.keys, layer.values = layer.keys, other, other
    new = states(1, 1)
    assert torch.equal(layer.update(new, new)[0], torch.cat([other, new], dim=2))
    assert torch.equal(kept, before)


def test_repeated_rows_grow_apart_and_leave_the_first_alone():
    one = Cache(layers=[layer_of([1, 2])])
    three = kv_cache.expand_row(one, 3)
    three.update(*[torch.tensor([7.0, 8.0, 9.0])[:, None, None, None] + more for more in (0, 100)], 0)
    assert rows_of(three) == [[1, 2, 7], [1, 2, 8], [1, 2, 9]]
    assert rows_of(one) == [[1, 2]]
    assert rows_of(kv_cache.expand_row(one, 2)) == [[1, 2], [1, 2]]


def test_gathered_rows_end_together():
    parts = [
        (Cache(layers=[layer_of([1, 2, 3], [4, 5, 6])]), [1]),
        (Cache(layers=[layer_of([7], [8])]), [0, 1]),
        (Cache(layers=[layer_of([0, 0, 0, 9], [0, 0, 0, 10], [0, 0, 11, 12])]), [2, 1]),
    ]
    found = kv_cache.stack_rows(parts, 3)
    assert rows_of(found) == [[4, 5, 6], [0, 0, 7], [0, 0, 8], [0, 11, 12], [0, 0, 10]]
    address = found.layers[0].keys.data_ptr()
    new = torch.arange(20.0, 25.0)[:, None, None, None]
    found.update(new, new + 100, 0)
    assert rows_of(found)[0] == [4, 5, 6, 20] and rows_of(found)[4] == [0, 0, 10, 24]
    assert found.layers[0].keys.data_ptr() == address
    assert rows_of(parts[0][0]) == [[1, 2, 3], [4, 5, 6]]


def test_only_layers_that_keep_everything_can_be_taken_apart():
    assert len(kv_cache.empty(LlamaForCausalLM(LlamaConfig(**SIZES))).layers) == 3
    assert kv_cache.empty(MistralForCausalLM(MistralConfig(**SIZES, sliding_window=4, num_key_value_heads=2))) is None
