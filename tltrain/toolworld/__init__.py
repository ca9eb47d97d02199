"""Toolworld: synthetic tool-use trajectories, made by really running tools.

Over a hundred small tools in 22 domains run on this machine alone, without network or clock. A task's plan calls them
the way a perfect assistant would; wrong calls are put before some of the right ones, answered by what the tool or
Python really says. Same seed, same bytes; the domains of the test split are never seen in training.

`generate` makes trajectories, `samples` benchmark questions; a `World` runs the tools of
one conversation. Where to look: `registry` (what a tool and a task are), `domains/` (all of them), `scripts` (golden
conversations), `mistakes` (wrong calls), `generate` (both put together).
"""

from __future__ import annotations

from tltrain.toolworld.generate import generate, samples
from tltrain.toolworld.mistakes import KINDS
from tltrain.toolworld.world import Answer, World

__all__ = ["KINDS", "Answer", "World", "generate", "samples"]
