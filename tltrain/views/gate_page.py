"""The result of stage=gate: the verdict in one sentence, tables on the terminal, and `gate.html` for a manager.

The page needs neither network nor script. Every text on it is untrusted: it is escaped, and invisible characters are
replaced (`html_page.render`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

from tltrain.evaluation.gate import Comparison, Verdict
from tltrain.evaluation.metrics import SINGLE_TURN
from tltrain.evaluation.predictions import Prediction
from tltrain.formats.calls import render_call
from tltrain.runtime import terminal
from tltrain.trajectory import Message, Sample
from tltrain.views import html_page, tables

ASSETS = Path(__file__).parent / "assets"
TEXT = 700
"""Maximum characters of one text on the page."""
NAMES: Final[Mapping[str, str]] = {
    "current": "model in service",
    "base": "base model",
    "sft": "standard SFT",
    "new": "new model",
}
LEVELS: Final[Mapping[str, str]] = {
    "ts": "names the right tool",
    "pi": "names the right tool and the right parameters",
    "cf": "makes the logged call, with its values,",
}
SHORT: Final[Mapping[str, str]] = {"ts": "right tool", "pi": "and parameters", "cf": "and values"}


def verdict(found: Comparison, passed: bool, reference: str, metric: str, certain: bool) -> str:
    """State the comparison's result and the gate's verdict in a few sentences."""
    other, difference = NAMES[reference], found.difference
    words = {
        Verdict.ABOVE: "is better than" if found.threshold >= 0 else "is good enough compared with",
        Verdict.BELOW: "is not good enough compared with" if found.threshold else "is worse than",
        Verdict.NOT_CERTAIN: "is not certainly better than" if found.threshold >= 0 else "may be too much worse than",
    }[found.verdict]
    asked = f"above {found.threshold:+g} points"
    wanted = f"a difference {asked} beyond chance" if certain else f"a measured difference {asked}"
    return (
        f"The new model {words} the {other}: it {LEVELS[metric]} in {found.new:.1f} % of {difference.n} held-out "
        f"questions, the other in {found.reference:.1f} %. The difference is {difference.value:+.1f} points "
        f"(95 % interval {difference.low:+.1f} to {difference.high:+.1f}, p = {found.p:.4f}). "
        f"The gate asks for {wanted}: {'passed' if passed else 'not passed'}."
    )


def show(metrics: Mapping[str, Any], folder: Path) -> None:
    """Print the models' numbers, the new model's lead, kinds of error, and the verdict."""
    models, leads = metrics["details"]["models"], metrics["details"]["leads"]
    title = f"{metrics['questions']} questions of {metrics['held_out_conversations']} held-out conversations, % right"
    rows = [
        [NAMES[name], *(_interval(model["levels"][level]) for level in SINGLE_TURN)] for name, model in models.items()
    ]
    terminal.table(f"{title} [95 % interval]", ["", "TS", "PI", "CF"], rows)
    rows = [
        [
            f"new model - {NAMES[name]}",
            *(f"{_interval(lead[level], '+')} p {lead[level]['p']:.4f}" for level in SINGLE_TURN),
        ]
        for name, lead in leads.items()
    ]
    terminal.table("Difference in points [95 % interval]", ["", "TS", "PI", "CF"], rows)
    tables.print_kinds({NAMES[name]: model["rows"] for name, model in models.items()})
    for line in filter(None, (metrics["verdict"], metrics["too_few"], *(f"{each}." for each in metrics["caveats"]))):
        terminal.console.print(line, markup=False)
    terminal.console.print(f"Exit status {metrics['exit_status']}. Written to {folder}: gate.html", markup=False)


def _interval(numbers: Mapping[str, float], sign: str = "") -> str:
    low, high = (f"{numbers[end]:{sign}.0f}" for end in ("low", "high"))
    return f"{numbers['value']:{sign}.1f} [{low}, {high}]"


# --- the page ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flip:
    """A question that only one of two models answers rightly."""

    id: str
    asked: str
    golden: str
    reference: Prediction
    new: Prediction


def flips(
    samples: Sequence[Sample], reference: Sequence[Prediction], new: Sequence[Prediction], metric: str
) -> tuple[list[Flip], list[Flip]]:
    """Return the questions that the new model answers worse than the reference and those that it answers better."""
    worse: list[Flip] = []
    better: list[Flip] = []
    for sample, theirs, ours in zip(samples, reference, new, strict=True):
        if ours.scores[metric] != theirs.scores[metric]:
            side = better if ours.scores[metric] > theirs.scores[metric] else worse
            golden = "\n".join(map(render_call, sample.goldens))
            side.append(Flip(sample.id, asked(sample), golden, theirs, ours))
    return worse, better


def asked(sample: Sample) -> str:
    """Return the end of the models' prompt: the user's last message and everything after it."""
    last = max((at for at, message in enumerate(sample.messages) if message.role == "user"), default=0)
    return "\n".join(_lines(sample.messages[last:]))


def _lines(messages: Sequence[Message]) -> Iterator[str]:
    who = {"user": "Customer", "assistant": "Assistant", "tool": "Tool"}
    for message in messages:
        calls = [
            f"{made.call.name} {json.dumps(dict(made.call.arguments), ensure_ascii=False)}" for made in message.calls
        ]
        yield f"{who[message.role]}: {' '.join([*filter(None, [message.text]), *calls])}"


def page(
    metrics: Mapping[str, Any], samples: Sequence[Sample], results: Mapping[str, Sequence[Prediction]], most: int
) -> str:
    """Render the page.

    Args:
        results: each model's answers to the samples, in the samples' order. most: maximum flips shown per side.
    """
    models = metrics["details"]["models"]
    worse, better = flips(samples, results[metrics["reference"]], results["new"], metrics["metric"])
    kinds = dict.fromkeys(kind for model in models.values() for kind, count in model["rows"].items() if count)
    return html_page.render(
        ASSETS / "gate.html.j2",
        {"interval": _interval, "cut": _cut},
        css=Markup((ASSETS / "inspect.css").read_text(encoding="utf-8")),
        policy=html_page.policy(),
        metrics=metrics,
        models=models,
        leads=metrics["details"]["leads"],
        names=NAMES,
        levels=SHORT,
        kinds=list(kinds),
        sides=[("Right before, wrong now", worse), ("Wrong before, right now", better)],
        most=most,
    )


def _cut(text: str) -> str:
    """Shorten a long text, stating how many characters are missing."""
    return text if len(text) <= TEXT else f"{text[:TEXT]} … ({len(text) - TEXT:,} more characters)"
