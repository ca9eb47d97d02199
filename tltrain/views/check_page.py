"""`check.html`: what a data set contains, on one page that needs neither network nor script.

Every text on it is untrusted: it is escaped, and invisible characters are replaced (`html_page.render`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

from tltrain.views import html_page

ASSETS = Path(__file__).parent / "assets"
LEARNED: Final[Mapping[str, str]] = {
    "kept": "learned",
    "dropped_error": "not: answered with an error",
    "dropped_no_answer": "not: no answer, although the conversation goes on",
    "not_learned_by_source": "not: marked by the data",
}
"""Counts of `tltrain.data.judged.MaeReport` -> their labels."""


def page(metrics: Mapping[str, Any]) -> str:
    """Render the page from the content of `metrics.json`."""
    return html_page.render(
        ASSETS / "check.html.j2",
        css=Markup((ASSETS / "inspect.css").read_text(encoding="utf-8")),
        policy=html_page.policy(),
        metrics=metrics,
        numbers=numbers(metrics),
        learned=LEARNED,
        share=share,
    )


def numbers(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a data set's counts with their labels, in the order of the page."""
    tools, source = metrics["tools"], metrics["data"]
    rows: list[tuple[str, Any]] = [("format", source["format"])]
    if "recognised" in source:
        rows.append(("looks like", f"data={source['recognised']}, since {source['shown_by']}"))
    if "files" in source:
        rows.append(("files", f"{source['files']:,} ({source['bytes'] / 1e6:,.1f} MB)"))
    rows += [
        ("records read", metrics["records_read"]),
        ("records that cannot be read", metrics["records_skipped"]),
        ("conversations", metrics["conversations"]),
        ("calls", metrics["calls"]),
        ("words of the assistant without a call", metrics["replies"]),
        ("tools' answers", metrics["answers"]),
        ("failing calls, stage.rule=paper", metrics["error_calls"]["paper"]),
        ("failing calls, stage.rule=strict", metrics["error_calls"]["strict"]),
        ("tools on offer", tools["on_offer"]),
        ("tools that are never called", tools["never_called"]),
        ("copies of a conversation", metrics["duplicates"]["conversations"]),
        ("further conversations with the same question", metrics["duplicates"]["questions"]),
    ]
    return [(name, f"{value:,}" if isinstance(value, int) else str(value)) for name, value in rows]


def share(finding: Mapping[str, Any]) -> tuple[str, str]:
    """Return a finding's count with its unit, and its share if the total is known."""
    count = finding["count"]
    unit = finding["unit"].removesuffix("s") if count == 1 else finding["unit"]
    return f"{count:,} {unit}", f"{count / finding['of']:.1%}" if finding["of"] else ""
