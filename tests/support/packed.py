"""Trajectories packed for training, and as the prompts that reinforcement learning asks."""

from __future__ import annotations

from tltrain.tokens.encoder import Encoder
from tltrain.tokens.layout import Layout
from tltrain.tokens.packing import PackingReport, PackingSettings, pack
from tltrain.tokens.prompts import PromptReport, PromptTree, prompt_trees
from tltrain.trajectory import Trajectory


def packed(
    encoder: Encoder,
    *items: Trajectory,
    packing="trajectory",
    w_max=9.0,
    max_length=10**6,
    truncation="drop_oldest_turns",
) -> tuple[list[Layout], PackingReport]:
    report = PackingReport()
    return list(pack(items, encoder, PackingSettings(packing, w_max, max_length, truncation), report)), report


def prompt_trees_of(
    encoder: Encoder, *items: Trajectory, packing="trajectory", max_length=10**6, truncation="drop_oldest_turns"
) -> tuple[list[PromptTree], PromptReport]:
    report = PromptReport()
    found = prompt_trees(items, encoder, packing=packing, max_length=max_length, truncation=truncation, report=report)
    return list(found), report
