"""From numbers to words: the page of results in Markdown, and the lines of the study in the documents."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.study import histories, paper
from experiments.study.design import Study
from experiments.study.summary import Summary
from tltrain.errors import TltrainError
from tltrain.evaluation.recorded_calls import MEASURES

MARKS = "<!-- the study: written by experiments/study/analyze.py -->", "<!-- end of the study -->"
PAPER_MARKS = (
    "<!-- the study beside the paper: written by experiments/study/analyze.py -->",
    "<!-- end of the table -->",
)
NOTHING = "No row of the study has been run yet."


def signed(value: float | None, digits: int = 1) -> str:
    """A number with its sign; a dash where there is none."""
    return "–" if value is None else f"{value:+.{digits}f}"


def difference(part: Mapping[str, Any]) -> str:
    """A difference with its interval over seeds, which one seed does not have: `+4.2 [+1.0, +7.4]`, `+4.2`."""
    interval = "" if part["low"] is None else f" [{signed(part['low'])}, {signed(part['high'])}]"
    return signed(part["value"]) + interval


def findings(summary: Summary | None, study: Study) -> list[str]:
    """The lines of README and docs: one for each hypothesis, one on what they are of, one on how to run it again.

    None as long as no row stands.
    """
    if summary is None:
        return []
    lines = [_finding(one, study) for one in summary["hypotheses"].values()]
    seeds = max((one["seeds"] for one in summary["hypotheses"].values()), default=0)
    lines.append(
        f"- SmolLM2-135M on generated tools never trained on; {len(summary['rows'])} rows, at most {_seeds(seeds)}; "
        f"points with 95 % intervals (t over paired seeds){_spread(summary, study)}."
    )
    lines.append(
        "- Again: `experiments/study/run.sh`, `python -m experiments.study.analyze`. The protocol "
        f"({summary['protocol'][:8]}) is older than the rows."
    )
    return lines


def _spread(summary: Summary, study: Study) -> str:
    """How far the seeds of one arm lie apart at most, in a measure of the hypotheses: what one seed is worth."""
    names = dict.fromkeys(name for one in study.hypotheses.values() for name in one.measures)
    found = [
        (one["measures"][name]["deviation"], name)
        for one in summary["arms"].values()
        for name in names
        if name in one["measures"] and one["measures"][name]["deviation"] is not None
    ]
    if not found:
        return ""
    deviation, name = max(found)
    return f"; an arm's own seeds deviate by up to {deviation:.1f} ({study.measures[name].title})"


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def beside_the_paper(summary: Summary | None, study: Study, title: str = "") -> list[str]:
    """The table of what the paper reports beside what was found here; nothing as long as no row stands."""
    lines = [
        [
            f"{one['title']}: {study.measures[name].title}",
            f"{part['baseline_mean']:.1f} → {part['arm_mean']:.1f}, {difference(part)}",
            "; ".join(
                f"{each.set} {each.baseline:.1f} → {each.arm:.1f}, {signed(each.arm - each.baseline)}"
                for each in paper.published(hypothesis, study.measures[name])
            ),
        ]
        for hypothesis, one in (summary["hypotheses"] if summary else {}).items()
        for name, part in one["measures"].items()
    ]
    return _table(title, ["", "here, SmolLM2-135M", "the paper, CodeLLaMA-2-7B, one run"], lines)


def _finding(one: Mapping[str, Any], study: Study) -> str:
    """What a hypothesis says: both arms, their difference, what could have been seen, and the verdict."""
    parts = [
        f"{study.measures[name].title} {part['baseline_mean']:.1f} → {part['arm_mean']:.1f}, {difference(part)}"
        for name, part in one["measures"].items()
    ]
    if not parts:
        return f"- **{one['title']}**: no row has been run yet."
    detectable = [part["detectable_holm"] for part in one["measures"].values()]
    seen = "" if None in detectable else f"; detectable: {' and '.join(f'{value:.1f}' for value in detectable)}"
    return f"- **{one['title']}**: {'; '.join(parts)}{seen}; {_judged(one)}."


def _judged(one: Mapping[str, Any]) -> str:
    """The verdict, behind the p that it rests on; a descriptive comparison rests on none."""
    if one["verdict"].startswith("descriptive"):
        return str(one["verdict"])
    p = "p < 0.001" if one["p_holm"] < 0.001 else f"p = {one['p_holm']:.3f}"
    return f"{p} after Holm: {one['verdict']}"


def block(lines: Sequence[str], picture: str = "", marks: tuple[str, str] = MARKS) -> str:
    """The lines between their marks, and the picture below them.

    Args:
        picture: its path from the document's folder; without one there is none.
    """
    shown = ["", f"![Differences to the baselines, with intervals]({picture})"] if picture else []
    return "\n".join([marks[0], *(["", *lines, *shown, ""] if lines else []), marks[1]])


def with_block(text: str, lines: Sequence[str], name: str, picture: str = "", marks: tuple[str, str] = MARKS) -> str:
    """A document's text with these lines, and a picture, between its marks.

    Raises:
        TltrainError: it has no marks.
    """
    pattern = re.compile(re.escape(marks[0]) + ".*?" + re.escape(marks[1]), re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise TltrainError(f"{name}: expected the lines of the study once between `{marks[0]}` and `{marks[1]}`")
    return pattern.sub(lambda _: block(lines, picture, marks), text)


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


def _table(title: str, heads: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """A table under its title, if it has one; words to the left, numbers to the right; nothing without a line."""
    cells = [list(line) for line in lines]
    if not cells:
        return []
    numbers = [all(re.match(r"[-+–]?[\d.]*(\W|$)", line[at]) for line in cells) and at > 0 for at in range(len(heads))]
    return [
        *([f"## {title}", ""] if title else []),
        f"| {' | '.join(heads)} |",
        "|" + "|".join(" ---: " if number else " --- " for number in numbers) + "|",
        *(f"| {' | '.join(line)} |" for line in cells),
    ]


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
                    f"{part['p']:.4f}" if tested else "–",
                    f"{one['p_holm']:.4f}" if tested else "–",
                    *("–" if value is None else f"{value:.1f}" for value in more),
                    one["verdict"],
                ]
            )
    heads = ["", "difference [t, 95 %]", "by seed", "over questions", "p", "p, Holm", "detectable"]
    more = ["with twice the seeds", "with twice the questions", "verdict"]
    table = _table("Hypotheses", [*heads, *more], lines)
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
    return _table("Public sets: not worse by a margin, in the pooled mean", heads, lines)


def _tuning(tuned: Mapping[str, Any]) -> list[str]:
    """What the settings were chosen from, and what the pilot says of the variance."""
    lines = []
    for step in tuned["evidence"]:
        for number, candidate in enumerate(step["candidates"]):
            words = " ".join(f"`{word.rpartition('.args.')[2]}`" for word in candidate["words"])
            taken = "taken" if number == step["chosen"] else ""
            lines.append([f"{step['step']}: {words}", step["measure"], f"{candidate[step['measure']]}", taken])
    found = _table("Tuning, on validation tools, one run each", ["step: candidate", "measure", "value", ""], lines)
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
    return [*found, "", *_table("Pilot, on validation tools: PKT − SFT, in points", heads, variance), ""]


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
    return _table(
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
    table = _table("Recorded calls, means over seeds", ["arm", *(MEASURES[name] for name in names)], lines)
    keys = {key: value for metrics in arms.values() for key, value in metrics.items() if key.endswith("/key_tokens")}
    listed = ", ".join(f"{key.partition('/')[0]} {value:.2f}" for key, value in sorted(keys.items()))
    return [*table, *([""] if table else []), f"Key tokens a golden call, by set: {listed or '–'}."]


def _secondary_table(summary: Summary, study: Study) -> list[str]:
    lines = [
        [
            f"{one['arm']} − {one['baseline']}",
            study.measures[one["measure"]].title,
            difference(one),
            f"[{signed(one['question_low'])}, {signed(one['question_high'])}]",
            "–" if one["low"] is None else f"{one['p']:.3f}",
            str(len(one["differences"])),
        ]
        for one in summary["secondary"]
    ]
    heads = ["arms", "measure", "difference [t, 95 %]", "over questions", "p, not corrected", "seeds"]
    return _table("All comparisons (secondary)", heads, lines)


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
    return _table("Changed answers, over all seeds (exploratory)", heads, lines)


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
    return _table("How conversations end, over all seeds (exploratory)", [*heads, *more], lines)


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
    return _table("PPO's rollouts, on training prompts (exploratory)", heads, lines)


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
    return _table("Costs", [*heads, *more], lines)
