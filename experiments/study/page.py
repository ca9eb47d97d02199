"""The page of results, in Markdown: every table of the study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.study import histories, markdown
from experiments.study.design import Study
from experiments.study.documents import beside_the_paper, findings
from experiments.study.markdown import difference, signed
from experiments.study.mechanisms import controls, mechanisms
from experiments.study.summary import Summary
from tltrain.evaluation.recorded_calls import MEASURES
from tltrain.report.wording import p_value

NOTHING = "No row of the study has been run yet."


def page(summary: Summary | None, study: Study, tuned: Mapping[str, Any] | None = None) -> str:
    """The page of results, in Markdown.

    Args:
        tuned: the content of `tuned.yaml`; None where nothing is tuned.
    """
    choices = _tuning(tuned) if tuned is not None else []
    head = [
        "# The study",
        "",
        "Written by `python -m experiments.study.analyze` from the rows in `experiments/study/rows`. What was decided",
        "before the first row: [the protocol](../../study/PROTOCOL.md). What was done otherwise:",
        "[departures](departures.md). The protocol does not name the tables that are called exploratory.",
        "",
        *(findings(summary, study) or [NOTHING]),
        "",
    ]
    if summary is None:
        return "\n".join([*head, *choices])
    sections = [
        ["![Differences with intervals](forest.svg)"],
        _hypotheses_table(summary, study),
        beside_the_paper(summary, study, "Beside the paper"),
        mechanisms(summary, "Behind the numbers (exploratory)"),
        controls(summary, study, "Controls and remedies (secondary)"),
        _arms_table(summary, study),
        _recorded_table(summary),
        _secondary_table(summary, study),
        _margins_table(summary),
        _changes_table(summary),
        _ends_table(summary),
        _ppo_table(summary),
        _costs_table(summary),
        _made_by(summary),
    ]
    return "\n".join([*head, *(line for section in sections if section for line in (*section, "")), *choices])


def _hypotheses_table(summary: Summary, study: Study) -> list[str]:
    lines = []
    for one in summary["hypotheses"].values():
        tested = not one["verdict"].startswith("descriptive")
        for name, part in one["measures"].items():
            each = " ".join(signed(value) for value in part["differences"].values())
            over = f"[{signed(part['question_low'])}, {signed(part['question_high'])}]"
            more = [part[key] for key in ("detectable_holm", "more_seeds", "more_questions")]
            lines.append(
                [
                    f"{one['title']}: {study.measures[name].title}",
                    difference(part),
                    each,
                    over,
                    p_value(part["p"], 4) if tested else "–",
                    p_value(one["p_holm"], 4) if tested else "–",
                    *("–" if value is None else f"{value:.1f}" for value in more),
                    one["verdict"],
                ]
            )
    heads = ["", "difference [t, 95 %]", "by seed", "over questions", "p", "p, Holm", "detectable"]
    more = ["with twice the seeds", "with twice the questions", "verdict"]
    table = markdown.table("Hypotheses", [*heads, *more], lines)
    return table and [
        *table,
        "",
        "Detectable: the smallest difference that is found with a power of 80 % at a level of 1.25 %, which Holm asks",
        "of the smallest p of four.",
    ]


def _margins_table(summary: Summary) -> list[str]:
    said = {True: "not inferior", False: "inferior by the margin, or too wide to tell", None: "one seed cannot tell"}
    lines = [
        [
            f"{one['arm']} − {one['baseline']}",
            signed(one["low"]) if isinstance(one["low"], float) else "–",
            f"-{one['margin']:g}",
            said[one["not_inferior"]],
        ]
        for one in summary["margins"]
    ]
    heads = ["arms", "lower end of the interval", "margin", "so"]
    return markdown.table("Public sets: not worse by a margin, in the pooled mean", heads, lines)


def _tuning(tuned: Mapping[str, Any]) -> list[str]:
    """What the settings were chosen from, and what the pilot says of the variance."""
    lines = []
    for step in tuned["evidence"]:
        for number, candidate in enumerate(step["candidates"]):
            words = " ".join(f"`{word.rpartition('.args.')[2]}`" for word in candidate["words"])
            taken = "taken" if number == step["chosen"] else ""
            lines.append([f"{step['step']}: {words}", step["measure"], f"{candidate[step['measure']]}", taken])
    found = markdown.table(
        "Tuning, on validation tools, one run each", ["step: candidate", "measure", "value", ""], lines
    )
    sizes = list(dict.fromkeys(size for one in tuned["pilot"] for size in one["detectable_with_five_seeds"]))
    variance = [
        [
            one["measure"],
            signed(one["value"]),
            " ".join(signed(value) for value in one["differences"]),
            *(f"{one[name]:.1f}" for name in ("variance_of_seeds", "variance_of_a_question")),
            *(f"{one['detectable_with_five_seeds'][size]:.1f}" for size in sizes),
        ]
        for one in tuned["pilot"]
    ]
    heads = ["measure", "difference", "by seed", "variance of seeds", "of a question"]
    heads += [f"detectable, five seeds, {size} questions" for size in sizes]
    return [*found, "", *markdown.table("Pilot, on validation tools: PKT − SFT, in points", heads, variance), ""]


def _made_by(summary: Summary) -> list[str]:
    """Where the study stands, and what made its rows."""
    lines = ["## Rows", ""]
    lines += [f"- {name}: {one['stand']} of {one['rows']} rows" for name, one in summary["planned"].items()]
    for name in ("machines", "versions"):
        each = "; ".join(", ".join(f"{key} {value or 'none'}" for key, value in one.items()) for one in summary[name])
        lines.append(f"- {name}: {each}")
    lines.append(f"- commits: {', '.join(summary['commits'])}")
    if few := summary["few_calls"]:
        listed = ", ".join(f"{row} ({calls:,})" for row, calls in few.items())
        lines.append(f"- fewer sampled calls than the protocol promises, which makes them departures: {listed}")
    return lines


def _arms_table(summary: Summary, study: Study) -> list[str]:
    names = [name for name in study.measures if any(name in arm["measures"] for arm in summary["arms"].values())]
    lines = []
    for arm, one in summary["arms"].items():
        cells = []
        for name in names:
            number = one["measures"].get(name)
            spread = "" if number is None or number["deviation"] is None else f" ± {number['deviation']:.1f}"
            cells.append("" if number is None else f"{number['mean']:.1f}{spread}")
        lines.append([arm, str(len(one["seeds"])), *cells])
    return markdown.table(
        "Arms, mean ± deviation over seeds", ["arm", "seeds", *(study.measures[n].title for n in names)], lines
    )


def _recorded_table(summary: Summary) -> list[str]:
    """Means over seeds of what teacher forcing says, and how many key tokens a golden call of each set has."""
    arms = {name: one["metrics"] for name, one in summary["arms"].items()}
    names = [name for name in MEASURES if any(f"recorded/{name}" in metrics for metrics in arms.values())]
    lines = [
        [arm, *(f"{metrics[key]:.3f}" if (key := f"recorded/{name}") in metrics else "" for name in names)]
        for arm, metrics in arms.items()
        if any(f"recorded/{name}" in metrics for name in names)
    ]
    table = markdown.table("Recorded calls, means over seeds", ["arm", *(MEASURES[name] for name in names)], lines)
    keys = {key: value for metrics in arms.values() for key, value in metrics.items() if key.endswith("/key_tokens")}
    listed = ", ".join(f"{key.partition('/')[0]} {value:.2f}" for key, value in sorted(keys.items()))
    return [*table, *([""] if table else []), f"Key tokens a golden call, by set: {listed or '–'}."]


def _secondary_table(summary: Summary, study: Study) -> list[str]:
    tested = {
        (one["arm"], one["baseline"], name) for one in summary["hypotheses"].values() for name in one["measures"]
    }  # their p is in the table of hypotheses, or withheld there
    lines = [
        [
            f"{one['arm']} − {one['baseline']}",
            study.measures[one["measure"]].title,
            difference(one),
            f"[{signed(one['question_low'])}, {signed(one['question_high'])}]",
            "–" if one["low"] is None else p_value(one["p"]),
            str(len(one["differences"])),
        ]
        for one in summary["secondary"]
        if (one["arm"], one["baseline"], one["measure"]) not in tested
    ]
    heads = ["arms", "measure", "difference [t, 95 %]", "over questions", "p, not corrected", "seeds"]
    return markdown.table("All other comparisons (secondary)", heads, lines)


def _changes_table(summary: Summary, most: int = 6) -> list[str]:
    """What became of the baseline's answers: where an idea helps or harms, by kind of mistake."""
    lines = [
        [
            f"{one['arm']} − {one['baseline']}",
            one["set"],
            f"{one['same']:,} of {one['asked']:,}",
            " → ".join(f"{reward:.2f}" for reward in one["reward"]),
            "; ".join(
                f"{_in_words(before)} → {_in_words(after)} {count:,}" for before, after, count in one["grades"][:most]
            ),
        ]
        for one in summary["changed"]
    ]
    heads = ["arms", "questions", "grade as before", "mean reward", "most frequent changes of grade, baseline → arm"]
    return markdown.table("Changed answers, over all seeds (exploratory)", heads, lines)


def _ends_table(summary: Summary) -> list[str]:
    """What VA is made of: conversations that end by an answer, by the limit of calls, or otherwise."""
    lines = []
    for arm, one in summary["arms"].items():
        asked = sum(own["conversations"] for own in one["ends"].values())
        for end, own in one["ends"].items():
            shares = [own["conversations"] / asked, own["success"] / own["conversations"]]
            calls_made = max(own["calls"], 1)  # a conversation can end before its first call
            shares += [own["no_error"] / own["conversations"], own["de"] / calls_made, own["ce"] / calls_made]
            calls = f"{own['calls'] / own['conversations']:.1f}"
            lines.append([arm, end, f"{own['conversations']:,}", calls, *(f"{100 * share:.1f}" for share in shares)])
    heads = ["arm", "ended by", "conversations", "calls a conversation", "% of all", "% of these with the task solved"]
    more = ["% without a tool error", "DE, of their calls", "CE, of their calls"]
    return markdown.table("How conversations end, over all seeds (exploratory)", [*heads, *more], lines)


def _ppo_table(summary: Summary) -> list[str]:
    """Whether PPO raised its own reward, on the prompts that it was trained on."""
    lines = [
        [
            f"{one['arm']}, {one['part']} of {histories.PARTS}",
            str(one["seeds"]),
            *(f"{one[key]:.3f}" if key in one else "" for key in histories.SHOWN),
        ]
        for one in summary["ppo"]
    ]
    heads = ["arm, part of its rollouts", "seeds", *histories.SHOWN.values()]
    return markdown.table("PPO's rollouts, on training prompts (exploratory)", heads, lines)


def _in_words(grade: str) -> str:
    """A grade's name in words."""
    return grade.replace("_", " ")


def _costs_table(summary: Summary) -> list[str]:
    lines = []
    for arm, one in summary["arms"].items():
        for seed, costs in one["costs"].items():
            stages = costs["stages"]
            counted = {
                key: sum(stage.get(key) or 0 for stage in stages.values())
                for key in ("updates", "target_tokens", "sampled_tokens", "sampled_calls")
            }
            seconds = sum(stage.get("processor_seconds") or 0 for stage in stages.values())
            lines.append(
                [
                    f"{arm}, {seed}",
                    *(f"{value:,}" for value in counted.values()),
                    f"{seconds:,.0f}",
                    f"{costs['processor_seconds']:,.0f}",
                ]
            )
    heads = ["row", "updates", "target tokens", "sampled tokens", "sampled calls"]
    more = ["processor seconds of its trainings, shared ones too", "processor seconds of its own runs"]
    return markdown.table("Costs", [*heads, *more], lines)
