"""What the fork server imports once, so that each run of a test begins in milliseconds."""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed would look for others
sys.modules.setdefault("wandb", None)  # type: ignore[arg-type]  # as `tltrain.tracking.prepared` does

import deepspeed  # noqa: E402, F401
import hydra._internal.core_plugins.basic_launcher  # noqa: E402, F401
import matplotlib.pyplot  # noqa: E402, F401
import transformers  # noqa: E402
import transformers.models.llama.modeling_llama  # noqa: E402, F401
import trl  # noqa: E402, F401

import tltrain.__main__  # noqa: E402
import tltrain.lora  # noqa: E402
import tltrain.report.plots  # noqa: E402
import tltrain.stages.eval  # noqa: E402
import tltrain.stages.irm  # noqa: E402
import tltrain.stages.pipeline  # noqa: E402
import tltrain.stages.supervised  # noqa: E402
import tltrain.training.group  # noqa: E402
import tltrain.training.ppo  # noqa: E402
import tltrain.training.sft  # noqa: E402, F401
