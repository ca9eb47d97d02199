"""The layers of the package: its files and packages directly below `tltrain/`, lowest first."""

from __future__ import annotations

FLOORS = (
    ("errors",),
    ("trajectory", "config", "pkt"),
    ("formats", "runtime", "toolworld"),
    ("mae", "grades", "tokens"),
    ("grading", "data", "inference", "models", "tracking"),
    ("environments",),
    ("evaluation",),
    ("views", "training", "sources"),
    ("report", "entry", "plan", "serving"),
    ("sweeps",),
    ("stages",),
    ("__main__",),
)
"""Layers, lowest first. A package may import itself and those of lower layers."""
