"""Estimate before a stage runs how much memory each process needs, how long it takes, and whether it fits.

shapes      sizes of an architecture, from a model's configuration (reads no weights)
memory      bytes held at each moment of a training step, from these sizes, the setup and the batch
compute     floating point operations and seconds, from the same and the number of tokens
configured  setup and batch from our configuration; `announce` logs the plan when a training begins
"""

from tltrain.plan.configured import announce

__all__ = ["announce"]
