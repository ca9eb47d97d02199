"""What the fork server imports once, so that each run of a test begins in milliseconds."""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.modules.setdefault("wandb", None)  # type: ignore[arg-type]  # as `tltrain.tracking.prepared` does

import matplotlib.pyplot  # noqa: E402, F401
import transformers  # noqa: E402, F401
import trl  # noqa: E402, F401

import tltrain.__main__  # noqa: E402
import tltrain.stages.eval  # noqa: E402
import tltrain.stages.irm  # noqa: E402
import tltrain.stages.pipeline  # noqa: E402
import tltrain.stages.supervised  # noqa: E402
import tltrain.training.ppo  # noqa: E402
import tltrain.training.sft  # noqa: E402, F401
