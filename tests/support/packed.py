"""Pack trajectories for training, and as prompts for reinforcement learning."""

from __future__ import annotations

from tltrain.tokens.encoder import Encoder
from tltrain.tokens.layout import Layout
from tltrain.tokens.packing import PackingReport, PackingSettings, pack
from tltrain.tokens.prompts import NO_LIMIT, PromptReport, PromptTree, prompt_trees
from tltrain.trajectory import Trajectory


def packed(
    encoder: Encoder,
    *items: Trajectory,
    packing="trajectory",
    w_max=9.0,
    max_length=10**6,
    truncation="drop_oldest_turns",
    **settings,
) -> tuple[list[Layout], PackingReport]:
    report = PackingReport()
    chosen = PackingSettings(packing, w_max, max_length, truncation, **settings)
    return list(pack(items, encoder, chosen, report)), report


def prompt_trees_of(
    encoder: Encoder,
    *items: Trajectory,
    packing="trajectory",
    max_length=10**6,
    truncation="drop_oldest_turns",
    answers=NO_LIMIT,
) -> tuple[list[PromptTree], PromptReport]:
    report = PromptReport()
    words = {"packing": packing, "max_length": max_length, "truncation": truncation, "answers": answers}
    return list(prompt_trees(items, encoder, report=report, **words)), report
