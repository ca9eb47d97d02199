"""The names of metrics, the same in every run, and their x-axes.

train/*             stage=sft, pkt        over train/global_step (optimizer steps)
    loss key_token_loss other_token_loss  nats per token: weighted by turns; unweighted, key and other tokens
    mean_weight key_token_share           of target tokens
    grad_norm learning_rate epoch tokens_per_second num_tokens
held_out/*          stage=sft, pkt        over train/global_step: loss key_token_loss other_token_loss mean_weight
                                          key_token_share of the held-out trajectories
irm/*               stage=irm             over irm/step (optimizer steps)
    reward kl kl_coefficient entropy      means over sampled calls; kl in nats per response, of
                                          RLOO and GRPO for single calls TRL's mean per token
    grade/OUTCOME                         share of sampled calls: cut format_error words_before_call missing_call
                                          tool_hallucination wrong_tool parameters wrong_value correct
                                          called_anyway abstained
    trailing_text no_end_token            share of sampled calls
    sampling_logprob_difference           PPO: mean over response tokens, absolute; ..._max: the largest
    policy_loss value_loss policy_clip_fraction value_clip_fraction explained_variance value advantage
    loss grad_norm learning_rate epoch    PPO; RLOO and GRPO also log TRL's own metrics under irm/
    response_length ended samples response_tokens tokens_per_second
    seconds seconds_generation seconds_scoring seconds_update
    seconds_prefill                       PPO: part of generation
    seconds_reference seconds_policy seconds_critic seconds_backward seconds_optimizer   PPO: parts of the update
    update_padding                        PPO: share of the update's tokens
    samples_table                         a table: sampled and golden calls, with grade and reward
  with stage.rollout=conversation, in place of grade/* and no_end_token (trailing_text is a share of calls):
    reward reward/PART turns              means over conversations; PART: outcome documentation tool_error golden calls
                                          trailing_text own; turns: answers of the policy
    success                               share of the conversations whose outcome is known
    conversation/END conversations        shares: finish turn_limit too_long environment_error; their number
    error/KIND                            shares of calls: format_error words_before_call tool_hallucination parameters
                                          tool
    seconds_sampling                      part of generation; the rest is the environment's
total/*             stage=sft, pkt, irm   once: runtime (s) samples_per_second steps_per_second flos loss
eval/SET/*          stage=eval            once: ts pi cf ast (percent) n reward key_tokens; SCORING/ts where there are
                                          several; missing_calls superfluous_calls of answers of several calls;
                                          abstention (percent) abstention_n where no call is right, no_call
    grade/ROW                             share of answers in a row of the reward table, or called_anyway abstained
    de ce va success calls                of whole conversations
    golden_loss failing_loss key_accuracy key_loss margin preferred   of recorded calls
eval/held_out_before/*, eval/held_out_after/*   stage=irm: reward ts pi cf n of the held-out questions,
                                          abstention abstention_n where these are priced
eval/predictions                          a table: prompt, answer, golden calls, grade, reward
mae/*               stage=mae             once: trajectories calls kept dropped_error dropped_no_answer
                                          dropped_at_random not_learned_by_source; error_kind/KIND
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from tltrain.config.rewards import RewardTable
from tltrain.grades import ABSTENTION, SAMPLED_OUTCOMES

STEPS = {"train": "train/global_step", "held_out": "train/global_step", "irm": "irm/step"}
"""The x-axis of each group's metrics; metrics of other groups are single numbers."""

_LOSSES = ("loss", "key_token_loss", "other_token_loss", "mean_weight", "key_token_share")
_OPTIMIZER = ("grad_norm", "learning_rate", "epoch", "tokens_per_second")
_PPO = ("policy_loss", "value_loss", "policy_clip_fraction", "value_clip_fraction", "explained_variance", "value")
_SECONDS = ("seconds", "seconds_generation", "seconds_scoring", "seconds_update", "seconds_prefill")
_UPDATE = (
    *("update_padding", "seconds_reference", "seconds_policy", "seconds_critic", "seconds_backward"),
    "seconds_optimizer",
)
TRAIN = tuple(f"train/{name}" for name in (*_LOSSES, *_OPTIMIZER, "num_tokens"))
HELD_OUT = tuple(f"held_out/{name}" for name in _LOSSES)
IRM = tuple(
    f"irm/{name}"
    for name in (
        *("reward", "kl", "kl_coefficient", "entropy", "loss", "advantage", "samples", "response_tokens"),
        *("response_length", "ended", *_OPTIMIZER, *_PPO, *_SECONDS, *_UPDATE),
        *("trailing_text", "no_end_token", "sampling_logprob_difference", "sampling_logprob_difference_max"),
        *(f"grade/{outcome}" for outcome in SAMPLED_OUTCOMES),
    )
)
CONVERSATIONS = tuple(
    f"irm/{name}"
    for name in (
        *(f"reward/{part}" for part in ("outcome", "documentation", "tool_error", "golden", "calls")),
        *("reward/trailing_text", "reward/own"),
        *(f"conversation/{end}" for end in ("finish", "turn_limit", "too_long", "environment_error")),
        *(
            f"error/{kind}"
            for kind in ("format_error", "words_before_call", "tool_hallucination", "parameters", "tool")
        ),
        *("success", "turns", "conversations", "seconds_sampling"),
    )
)
TOTAL = tuple(f"total/{name}" for name in ("runtime", "samples_per_second", "steps_per_second", "flos", "loss"))
TABLES = ("irm/samples_table", "eval/predictions")
MAE = tuple(
    f"mae/{name}"
    for name in (
        *("trajectories", "calls", "kept", "dropped_error", "dropped_no_answer", "dropped_at_random"),
        "not_learned_by_source",
    )
)
_ROWS = "|".join([*(row.name for row in fields(RewardTable)), *ABSTENTION])
_EVAL = (
    *("ts", "pi", "cf", "ast", "n", "reward", "de", "ce", "va", "success", "calls", "key_tokens"),
    *("missing_calls", "superfluous_calls", "abstention", "abstention_n", "no_call"),
    *("golden_loss", "failing_loss", "key_accuracy", "key_loss", "margin", "preferred"),
)
_PATTERNS = (rf"eval/\w+/(\w+/)?({'|'.join(_EVAL)}|grade/({_ROWS}))", r"mae/error_kind/\w+")


def is_known(name: str) -> bool:
    """Return whether any stage logs a metric or table under this name."""
    fixed = {*TRAIN, *HELD_OUT, *IRM, *CONVERSATIONS, *TOTAL, *TABLES, *MAE, *STEPS.values()}
    return name in fixed or any(re.fullmatch(pattern, name) for pattern in _PATTERNS)


def of_logs(logs: Mapping[str, Any], stage: str, step: int) -> dict[str, Any]:
    """Rename a Trainer's logs to our names and add the step for the x-axis.

    Args:
        logs: from a transformers callback; numbers on held-out data begin with `held_out_` or `eval_`, those of the
            whole training run with `train_`.
        stage: `cfg.stage.name`. step: the trainer's global step.
    """
    group = "irm" if stage == "irm" else "train"
    renamed: dict[str, Any] = {}
    for name, value in logs.items():
        if name.startswith(("held_out_", "eval_")):
            renamed[f"held_out/{name.removeprefix('held_out_').removeprefix('eval_')}"] = value
        elif name.startswith("train_") or name == "total_flos":
            renamed[f"total/{name.partition('_')[2]}"] = value
        else:
            renamed[f"{group}/{name}"] = value
    return {STEPS[group]: step, **renamed}


def of_evaluation(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of stage=eval's `metrics.json` under our names."""
    flat = {f"eval/{name}": value for name, value in metrics.items() if "/" in name}
    for name, found in metrics["details"].items():
        whole = sum(found["rows"].values()) or 1
        flat |= {f"eval/{name}/grade/{row}": count / whole for row, count in found["rows"].items()}
    return flat


def of_held_out_evaluation(when: str, found: Mapping[str, Any]) -> dict[str, float]:
    """Return stage=irm's numbers on held-out questions `when` (before, after) training; empty without questions."""
    if not found["n"]:
        return {}
    told = ("reward", "ts", "pi", "cf", "n", "abstention", "abstention_n")
    return {f"eval/held_out_{when}/{name}": found[name] for name in told if name in found}


def of_mae(counts: Mapping[str, Any]) -> dict[str, int]:
    """Return the counts of stage=mae under our names."""
    kinds = {f"mae/error_kind/{kind}": count for kind, count in counts["error_kinds"].items()}
    return {name: counts[name.partition("/")[2]] for name in MAE} | kinds
