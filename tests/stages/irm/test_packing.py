"""Models that cannot process trees take one call per row."""

from __future__ import annotations

import pytest
from transformers import Lfm2Config, Lfm2ForCausalLM, LlamaConfig, LlamaForCausalLM

from tests.support.composition import composed
from tests.support.small_rollouts import SIZES
from tltrain.stages import irm


@pytest.mark.parametrize("algorithm", ["ppo", "rejection"])
def test_a_model_whose_layers_mix_branches_takes_one_call_a_row_with_one_line(caplog, algorithm):
    cfg = composed("stage=irm", f"stage.algorithm={algorithm}")
    layers = {"layer_types": ["conv"] * SIZES["num_hidden_layers"]}
    mixing = Lfm2ForCausalLM(Lfm2Config(**SIZES, vocab_size=50, **layers))
    caplog.set_level("INFO")
    found = irm.with_possible_packing(cfg, mixing)
    if algorithm == "rejection":  # which has a sample for each answer then
        assert found is cfg and not caplog.records
        return
    assert (cfg.stage.packing.name, found.stage.packing.name) == ("trajectory", "turn")
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("stage.packing=turn instead of trajectory: Lfm2ForCausalLM has layers (conv)")


def test_others_keep_their_trees(caplog):
    cfg = composed("stage=irm")
    assert irm.with_possible_packing(cfg, LlamaForCausalLM(LlamaConfig(**SIZES, vocab_size=50))) is cfg
    turns = composed("stage=irm", "stage.packing=turn")
    assert irm.with_possible_packing(turns, None) is turns and not caplog.records
