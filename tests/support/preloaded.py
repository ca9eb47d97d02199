"""Libraries that the fork server imports once, so that each test run starts in milliseconds."""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")  # otherwise DeepSpeed would search for accelerators
sys.modules.setdefault("wandb", None)  # type: ignore[arg-type]  # as `tltrain.tracking.prepared` does

import deepspeed  # noqa: E402, F401
import hydra._internal.core_plugins.basic_launcher  # noqa: E402, F401
import matplotlib.pyplot  # noqa: E402, F401
import transformers  # noqa: E402
import transformers.models.llama.modeling_llama  # noqa: E402, F401
import trl  # noqa: E402, F401
