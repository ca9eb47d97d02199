"""Show a run of stage=mae: how many calls are learned, and a picture of the errors behind dropped calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from omegaconf import DictConfig

from tltrain.data.rules import rule_name
from tltrain.runtime import terminal

COUNTS = ("calls", "kept", "dropped_error", "dropped_no_answer", "dropped_at_random", "not_learned_by_source")


def show(cfg: DictConfig, folder: Path, metrics: dict[str, Any]) -> None:
    """Draw `error_kinds.png` if there are errors, and print the counts."""
    if metrics["error_kinds"]:
        from tltrain.views.plots import bar_chart  # matplotlib takes a second to load

        path = folder / "error_kinds.png"
        bar_chart(path, metrics["error_kinds"], "Training calls dropped, by kind of error", "calls")
    calls = max(metrics["calls"], 1)
    rows = [[name.replace("_", " "), metrics[name], f"{metrics[name] / calls:.1%}"] for name in COUNTS]
    terminal.table("MAE", ["calls", "number", "share"], rows)
    if metrics["rules_differ"]:
        show_difference(metrics["rules_differ"], metrics["rule"], rule_name(cfg, "strict"))
    if metrics["written"]:
        show_written(metrics["written"], metrics["dropped_with_message"], metrics["settings"])
    terminal.console.print(f"Written to {folder / metrics['file']}", markup=False)


def show_written(written: dict[str, Any], with_message: int, settings: str) -> None:
    """Print what a trainer's file contains, what was left out of it, and which settings the trainer needs."""
    learned, others = written["messages_learned"], written["messages_not_learned"]
    lines = [f"{written['samples']:,} samples: {learned:,} messages are learned, {others:,} are not."]
    for count, one, several in (
        (
            with_message,
            "good call is left out for another call of its message",
            "good calls are left out for another call of their message",
        ),
        (
            written["nothing_learned"],
            "conversation is left out, as nothing in it is learned",
            "conversations are left out, as nothing in them is learned",
        ),
        (
            written["messages_cut"],
            "message after the last learned one is left out",
            "messages after the last learned one are left out",
        ),
        *(
            (count, f"learned message is left out: {why}", f"learned messages are left out: {why}")
            for why, count in written["left_out"].items()
        ),
    ):
        if count:
            lines.append(f"{count:,} {one if count == 1 else several}.")
    for line in (*lines, f"Settings: {settings}"):
        terminal.console.print(line, markup=False)


ADVICE: Final = {
    "paper": "Use stage.rule=strict for your own data; the paper's rule is for comparison with the paper.",
    "strict": "This run uses stage.rule=strict.",
}


def show_difference(found: dict[str, Any], rule: str, strict: str) -> None:
    """Print how many answers are errors under only one of MAE's two rules, if any, with examples.

    Args:
        rule: name of the rule of this run. strict: name of the second rule, `strict` or that of a user's own.
    """
    differ, answers = found["only_paper"] + found["only_strict"], max(found["answers"], 1)
    if not differ:
        return
    terminal.console.print(
        f"The rules paper and {strict} differ on {differ} of {found['answers']} answers ({differ / answers:.1%}): "
        f"{found['only_strict']} are an error under {strict} only, {found['only_paper']} under paper only.",
        markup=False,
    )
    for example in found["examples"]:
        under = "strict" if example["paper"] is None else "paper"
        kind = example[under].replace("_", " ")
        terminal.console.print(
            f"  {strict if under == 'strict' else under} only ({kind}): {example['answer']}", markup=False
        )
    if rule in ADVICE:  # controls have no advice
        terminal.console.print(ADVICE[rule], markup=False)
