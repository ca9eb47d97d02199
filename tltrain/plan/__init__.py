"""What a stage will take before it runs: memory of each process, time, and whether it fits.

shapes      a model's configuration -> numbers of its architecture (no weights are read)
memory      these, the setup and the batch -> bytes at each moment of a training step
compute     the same and the tokens -> floating point operations and seconds
configured  our configuration -> setup and batch; `announce`, the line that a training begins with
"""

from tltrain.plan.configured import announce

__all__ = ["announce"]
