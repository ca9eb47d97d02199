"""Arguments of TRL's group trainers: which are accepted by name, and which are refused before torch is loaded."""

from __future__ import annotations

import pytest

from tests.support.composition import composed, mistake
from tltrain.training.arguments import configured_arguments

GRPO = ("stage=irm", "stage.algorithm=grpo")
OPTIONS = {
    "loss_type": "dr_grpo",
    "importance_sampling_level": "sequence",
    "use_vllm": True,
    "vllm_mode": "server",
    "vllm_server_base_url": "http://localhost:8000",
    "vllm_server_timeout": 60.0,
    "vllm_gpu_memory_utilization": 0.4,
    "vllm_tensor_parallel_size": 2,
    "vllm_max_model_length": 4096,
    "vllm_enable_sleep_mode": True,
    "vllm_importance_sampling_correction": False,
    "scale_rewards": "none",
    "epsilon_high": 0.28,
    "mask_truncated_completions": True,
}


def words(options: dict, place: str = "stage.args") -> list[str]:
    return [
        f"+{place}.{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in options.items()
    ]


def test_losses_gspo_and_vllm_pass_by_their_names():
    cfg = composed(*GRPO, *words(OPTIONS))
    assert configured_arguments(cfg).items() >= OPTIONS.items()
    rloo = {name: value for name, value in OPTIONS.items() if name.startswith(("use_vllm", "vllm_server"))}
    assert configured_arguments(composed("stage=irm", "stage.algorithm=rloo", *words(rloo))).items() >= rloo.items()


def test_a_loss_of_the_algorithms_own_node_and_of_a_pipeline_passes():
    cfg = composed(*GRPO, "+stage.algorithm_args.grpo.loss_type=bnpo")
    assert configured_arguments(cfg)["loss_type"] == "bnpo"
    cfg = composed("stage=pipeline", "stage.rl.algorithm=grpo", "+stage.rl.args.loss_type=dapo")
    assert cfg.stage.rl.args.loss_type == "dapo"


@pytest.mark.parametrize(
    ("line", "given"),
    [
        (
            "stage.args.loss_type: expected one of grpo, dr_grpo, dapo, bnpo, cispo, sapo, luspo, vespo, found 'dopo'",
            (*GRPO, "+stage.args.loss_type=dopo"),
        ),
        (
            "stage.args.importance_sampling_level: expected one of token, sequence, found 'word'",
            (*GRPO, "+stage.args.importance_sampling_level=word"),
        ),
        ("stage.args.vllm_modus: trl.GRPOConfig has no such argument", (*GRPO, "+stage.args.vllm_modus=server")),
        (
            "stage.args.loss_type: trl.RLOOConfig has no such",
            ("stage=irm", "stage.algorithm=rloo", "+stage.args.loss_type=grpo"),
        ),
        ("stage.args.loss_type: this is set by stage.w_max", ("stage=pkt", "+stage.args.loss_type=nll")),
        (
            "stage.args.loss_type: this is set by stage.w_max",
            ("stage=irm", "stage.algorithm=rejection", "+stage.args.loss_type=nll"),
        ),
        (
            "stage.loss_mean=responses means TRL's loss_type=grpo, but stage.args.loss_type=dapo is another loss",
            (*GRPO, "stage.loss_mean=responses", "+stage.args.loss_type=dapo"),
        ),
    ],
)
def test_what_cannot_be_is_one_line(line, given):
    found = mistake(*given)
    assert found.startswith(line) and "\n" not in found


def test_the_same_loss_may_be_said_twice():
    composed(*GRPO, "stage.loss_mean=responses", "+stage.args.loss_type=grpo")
