"""The paper's metrics: their keys in `metrics.json`, their names, and their meaning."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """One metric, in percent of samples, calls or conversations."""

    key: str
    name: str
    meaning: str
    lower_is_better: bool = False


ABSTENTION = "abstention"
"""The metric of questions to which no call is right; the other metrics do not apply to them."""
METRICS = {
    info.key: info
    for info in (
        MetricInfo("ts", "TS", "tool selection: the right tool"),
        MetricInfo("pi", "PI", "parameter identification: TS and the right parameters"),
        MetricInfo("cf", "CF", "content filling: PI and every value right"),
        MetricInfo(ABSTENTION, "abstention", "of questions to which no call is right: answered without a call"),
        MetricInfo("de", "DE", "documentation errors: calls that contradict the tools' documentation", True),
        MetricInfo(
            "ce",
            "CE",
            "calling errors: calls that the tool answered with an error (toolworld says so, elsewhere a rule)",
            True,
        ),
        MetricInfo("va", "VA", "valid answers: conversations that end in a valid answer"),
        MetricInfo("success", "success", "conversations whose outcome the environment's checker accepts"),
    )
}
SINGLE_TURN = ("ts", "pi", "cf")
CONVERSATION = ("de", "ce", "va", "success")
