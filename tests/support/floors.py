"""The floors of the package: its files and packages directly below `tltrain/`, from the ground up."""

from __future__ import annotations

FLOORS = (
    ("errors", "trajectory", "config", "pkt"),
    ("formats", "runtime", "toolworld"),
    ("mae", "grading", "tokens"),
    ("data", "inference", "models", "tracking"),
    ("environments",),
    ("evaluation",),
    ("views", "training", "sources"),
    ("report", "entry", "plan"),
    ("sweeps",),
    ("stages",),
    ("__main__",),
)
"""From the ground up. A package may import those of lower floors and itself."""
