"""Arguments that belong to a library (`stage.args`, `model.args`, ...): they have the library's names and types.

They are read from the library's source text, since importing it would take seconds.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Any

from tltrain.config import Bounds
from tltrain.config.keys import largest
from tltrain.errors import TltrainError, suggestion
from tltrain.runtime import redact

TRAINING_ARGUMENTS = (("transformers", "training_args.py", "TrainingArguments"),)
_TRL = (("trl", "trainer/base_config.py", "_BaseConfig"), *TRAINING_ARGUMENTS)
ARGUMENTS = {
    "trl.SFTConfig": (("trl", "trainer/sft_config.py", "SFTConfig"), *_TRL),
    "trl.RLOOConfig": (("trl", "trainer/rloo_config.py", "RLOOConfig"), *_TRL),
    "trl.GRPOConfig": (("trl", "trainer/grpo_config.py", "GRPOConfig"), *_TRL),
    "transformers.TrainingArguments": TRAINING_ARGUMENTS,
}
"""The libraries' argument classes: (package, file, class) of each class and its bases."""
LLAMA_CONFIG = (("transformers", "models/llama/configuration_llama.py", "LlamaConfig"),)

OURS = {
    "output_dir": "hydra.run.dir",
    "seed": "seed",
    "data_seed": "seed",
    "packing": "stage.packing",
    "report_to": "tracking",
    "use_cpu": "hardware",
    "bf16": "hardware.bf16",
    "deepspeed": "hardware.deepspeed",
    "fsdp": "hardware.fsdp",
    "fsdp_config": "hardware.fsdp",
    "run_name": "hydra.run.dir",
    "assistant_only_loss": "stage=sft (only the assistant's turns are ever learned)",
    "completion_only_loss": "stage=sft (only the assistant's turns are ever learned)",
    "loss_type": "stage.w_max (each token's loss is weighted)",
    "padding_free": "stage.packing",
    "dataset_kwargs": "data",
    "remove_unused_columns": "data",
    "model_init_kwargs": "model",
    "chat_template_path": "model",
    "eos_token": "model",
    "pad_token": "model",
    "dataset_text_field": "data",
    "truncation_mode": "stage.truncation",
    "push_to_hub": "stage=export stage.hub=OWNER/NAME (after the training)",
    "hub_model_id": "stage=export stage.hub=OWNER/NAME (after the training)",
    "hub_private_repo": "stage=export stage.private=true|false",
    "hub_token": "the environment variable HF_TOKEN",
    "beta": "stage.kl",
    "temperature": "stage.temperature",
    "max_completion_length": "stage.max_new_tokens",
    "reward_weights": "reward",
}
"""Arguments of the libraries that are set elsewhere in our configuration, and where."""
NOT_OURS = {"trl.GRPOConfig": ("loss_type",)}
"""Arguments of a class that are allowed although `OURS` has their name, which means another argument there."""
LOSS_TYPES = ("grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo")
AMONG = {"trl.GRPOConfig": {"loss_type": LOSS_TYPES, "importance_sampling_level": ("token", "sequence")}}
"""Allowed values of arguments that a library checks only when it computes the first loss."""
_COUNT, _SHARE, _NOT_NEGATIVE, _INTERVAL = Bounds(least=1), Bounds(least=0, below=1), Bounds(least=0), Bounds(above=0)
BOUNDS = {
    **dict.fromkeys(
        (
            "per_device_train_batch_size",
            "per_device_eval_batch_size",
            "gradient_accumulation_steps",
            "max_length",
            "eval_accumulation_steps",
            "generation_batch_size",
            "num_generations",
            "num_iterations",
            "steps_per_generation",
        ),
        _COUNT,
    ),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "label_smoothing_factor"), _SHARE),
    **dict.fromkeys(
        ("learning_rate", "weight_decay", "adam_epsilon", "max_grad_norm", "warmup_steps", "num_train_epochs"),
        _NOT_NEGATIVE,
    ),
    **dict.fromkeys(("logging_steps", "save_steps", "eval_steps"), _INTERVAL),
    "max_steps": Bounds(least=-1),
    "dataset_num_proc": Bounds(least=1, most=1024),
    "dataloader_num_workers": Bounds(least=0, most=1024),
}
"""Bounds of arguments whose values out of range would end in a traceback, or train on nothing."""


@cache
def library_fields(sources: tuple[tuple[str, str, str], ...]) -> dict[str, str]:
    """Map the field names of a library's dataclass to their annotations, read from its source without importing it.

    Args:
        sources: (package, file, class) of the class and its bases; the first that has a field decides.
    """
    fields: dict[str, str] = {}
    for package, file, name in sources:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise TltrainError(f"the package {package} is not installed: pip install {package}")
        tree = ast.parse((Path(next(iter(spec.submodule_search_locations))) / file).read_text(encoding="utf-8"))
        body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
        for node in body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                fields.setdefault(node.target.id, ast.unparse(node.annotation))
    return fields


PYTHON_TYPES = {
    "float": (float, int),
    "int": (int,),
    "bool": (bool,),
    "str": (str,),
    "dict": (dict,),
    "list": (list,),
    "None": (type(None),),
}


def check_arguments(arguments: dict[str, Any], where: str, kind: str = "trl.SFTConfig") -> None:
    """Raise a TltrainError unless all are arguments of `kind` (in `ARGUMENTS`), have its types and are not `OURS`."""
    fields = library_fields(ARGUMENTS[kind])
    for name, value in arguments.items():
        key = f"{where}.{name}"
        if name not in fields:
            raise TltrainError(f"{key}: {kind} has no such argument{suggestion(name, fields)}")
        if name in OURS and name not in NOT_OURS.get(kind, ()):
            found = re.match(r"(stage.*?)\.(?:args|algorithm_args)\b", where)  # a pipeline's stages are nodes of it
            node = found[1] if found else "stage"
            raise TltrainError(f"{key}: this is set by {OURS[name].replace('stage.', f'{node}.')}")
        if redact.container({name: value}) != {name: value}:
            raise TltrainError(
                f"{key}: libraries write their arguments into files (training_args.bin), so do not put a secret here: "
                "set the environment variable from which the library reads it"
            )
        allowed = [PYTHON_TYPES.get(part.strip().partition("[")[0].strip()) for part in fields[name].split("|")]
        known: list[type] = [t for types in allowed if types for t in types]
        if not all(allowed):  # an enumeration or another class of the library, given by name
            known += [str, dict, type(None)]
        if not isinstance(value, tuple(known)) or (isinstance(value, bool) and bool not in known):
            raise TltrainError(f"{key}: expected {fields[name]}, found {value!r}")
        if (among := AMONG.get(kind, {}).get(name)) is not None and value not in among:
            raise TltrainError(f"{key}: expected one of {', '.join(among)}, found {value!r}")
        if name in BOUNDS and value is not None:
            check_bounds(value, BOUNDS[name], key)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            check_bounds(value, Bounds(), key)


def check_bounds(value: Any, bounds: Bounds, key: str, hint: str = "") -> None:
    """Raise a TltrainError unless `value`, the value of `key`, is a number within `bounds`."""
    if value in bounds:
        return
    large = isinstance(value, int | float) and abs(value) > largest(value)
    limit = f", at most {largest(value):.0e}" if large and bounds.most is None and bounds.below is None else ""
    raise TltrainError(f"{key}: expected {bounds}{limit}, found {value}{hint and f'; {hint}'}")
