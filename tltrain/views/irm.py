"""Show a run of stage=irm: rewards and grades as a picture, held-out questions before and after as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tltrain.evaluation.metrics import ABSTENTION as ABSTAINED
from tltrain.evaluation.metrics import METRICS, SINGLE_TURN
from tltrain.grades import ABSTENTION, SAMPLED_OUTCOMES
from tltrain.runtime import runs, terminal
from tltrain.views.plots import conversation_curves, reward_curves

PICTURE = "rewards.png"


def show(cfg: DictConfig, folder: Path, metrics: dict[str, Any]) -> None:
    """Draw `rewards.png` (the mean reward and the shares of grades over steps) and print the table."""
    steps = [entry for entry in runs.history(folder) if "reward" in entry]
    if steps and cfg.stage.rollout.name == "conversation":
        _show_conversations(cfg, folder, steps)
    elif steps:
        reward_curves(
            folder / PICTURE,
            [entry["step"] for entry in steps],
            [entry["reward"] for entry in steps],
            {
                outcome: shares
                for outcome in SAMPLED_OUTCOMES
                if any(shares := [entry.get(f"grade/{outcome}", 0.0) for entry in steps]) or outcome not in ABSTENTION
            },
            f"Sampled calls, stage=irm ({cfg.stage.algorithm.name})",
        )
    if metrics["stopped"]:
        terminal.errors.print(f"stopped early: {metrics['stopped']}", markup=False)
    if metrics["before"]["n"]:
        levels = [*SINGLE_TURN, *([ABSTAINED] if ABSTAINED in metrics["before"] else [])]
        rows = [
            [when, f"{found['reward']:.3f}", *(f"{found[level]:.1f}" if level in found else "" for level in levels)]
            for when, found in ((when, metrics[when]) for when in ("before", "after"))
        ]
        n = metrics["before"]["n"]
        columns = ["", "reward", *(f"{METRICS[level].name} %" for level in levels)]
        terminal.table(f"{n} held-out questions, {metrics['steps']} steps", columns, rows)
    terminal.console.print(f"Written to {folder / 'model'}", markup=False)


def _show_conversations(cfg: DictConfig, folder: Path, steps: Sequence[Mapping[str, Any]]) -> None:
    """Draw reward, success and mistakes of conversations over steps, and print the numbers of a few steps."""
    errors = sorted({name for entry in steps for name in entry if name.startswith("error/")})
    wanted = {"success": "success", "finish": "conversation/finish"} | {name.partition("/")[2]: name for name in errors}
    conversation_curves(
        folder / PICTURE,
        [entry["step"] for entry in steps],
        [entry["reward"] for entry in steps],
        {label: [entry.get(name, 0.0) for entry in steps] for label, name in wanted.items()},
        f"Conversations, stage=irm ({cfg.stage.algorithm.name})",
    )
    chosen = sorted({round(part * (len(steps) - 1) / 4) for part in range(5)})
    rows = [
        [
            str(steps[at]["step"]),
            f"{steps[at]['reward']:.3f}",
            f"{100 * steps[at]['success']:.1f}" if "success" in steps[at] else "",
            f"{steps[at]['turns']:.1f}",
            f"{100 * sum(steps[at].get(name, 0.0) for name in errors):.1f}",
            f"{steps[at]['kl']:.3f}" if "kl" in steps[at] else "",
        ]
        for at in chosen
    ]
    columns = ["step", "reward", "success %", "answers", "calls with an error %", "KL"]
    terminal.table("Conversations", columns, rows)
