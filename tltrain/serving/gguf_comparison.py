"""Compare llama.cpp's tokens and answers with those of training and transformers. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

NEAR_TIE = {"f32": 0.05, "f16": 0.2, "bf16": 0.5}
"""Precision -> largest lead of the likelier of two tokens, in nats, at which only rounding decides between them. Any
other precision computes with weights other than those of transformers, so its answers are only counted."""


@dataclass(frozen=True)
class Answered:
    """One prompt.

    Attributes:
        prompt: how its ids differ from those of training; empty if they do not.
        lead: nats by which transformers' token leads llama.cpp's where their answers first differ; None if they agree.
    """

    id: str
    prompt: str = ""
    lead: float | None = None


@dataclass(frozen=True)
class Comparison:
    """The result for all prompts.

    Attributes:
        prompts_equal: those with exactly the ids of training. answers_equal: those with transformers' greedy answer.
        near_ties: other answers that first differ where two tokens are almost equally likely.
        largest_lead: of all answers, in nats. precision: of the file. by: the package that ships llama.cpp.
    """

    asked: int
    prompts_equal: int
    answers_equal: int
    near_ties: int
    largest_lead: float
    precision: str
    by: str
    problems: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Return whether all ids are equal and, with unquantized weights, no answer differs by more than rounding."""
        same = self.answers_equal + self.near_ties == self.asked or self.precision not in NEAR_TIE
        return self.prompts_equal == self.asked and same

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as plain values."""
        return {"passed": self.passed, **asdict(self), "problems": list(self.problems)}

    def line(self) -> str:
        """Return the result in one line."""
        said = f"{self.prompts_equal} of {self.asked} prompts and {self.answers_equal} answers equal"
        return f"{said}, {self.near_ties} part at a near tie ({self.precision}, {self.by})"


def compared(found: Sequence[Answered], precision: str, by: str) -> Comparison:
    """Count the prompts."""
    tie = NEAR_TIE.get(precision)
    leads = [one.lead for one in found if one.lead is not None]
    far = [
        f"prompt {one.id}: the answers part by {one.lead:.2f} nats"
        for one in found
        if tie is not None and one.lead is not None and one.lead > tie
    ]
    return Comparison(
        asked=len(found),
        prompts_equal=sum(not one.prompt for one in found),
        answers_equal=len(found) - len(leads),
        near_ties=sum(tie is not None and lead <= tie for lead in leads),
        largest_lead=round(max(leads, default=0.0), 4),
        precision=precision,
        by=by,
        problems=tuple([f"prompt {one.id}: {one.prompt}" for one in found if one.prompt] + far)[:5],
    )


def until_end(ids: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Return the ids before the first end token."""
    return list(ids[: next((at for at, each in enumerate(ids) if each in ends), len(ids))])


def parting(ours: Sequence[int], theirs: Sequence[int]) -> int | None:
    """Return the position at which two answers first differ; None if they are equal."""
    if list(ours) == list(theirs):
        return None
    pairs = enumerate(zip(ours, theirs, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(ours), len(theirs)))


def section(
    file: str, size: int, by: str, precision: str, made: Comparison | None, why_not: str, more: Mapping[str, str]
) -> str:
    """Return the model card's section about the GGUF file.

    Args:
        file, size: its name and size in bytes. by: the converter. made: None if nothing was compared, for `why_not`.
        more: further files of the folder -> their purpose.
    """
    lines = [
        "## GGUF",
        "",
        f"`{file}` ({precision}, {size / 1e6:,.0f} MB) was converted by llama.cpp's `convert_hf_to_gguf.py` ({by}).",
        *(f"`{name}` {what}" for name, what in more.items()),
        "",
    ]
    if made is None:
        return "\n".join([*lines, f"**Not verified**: {why_not}."])
    said = "**Verified**" if made.passed else "**Differs**"
    lines += [
        f"{said} with llama.cpp ({made.by}), against the tokens of training and transformers' greedy answers:",
        "",
        f"| | of {made.asked:,} |",
        "| --- | ---: |",
        f"| prompts with exactly the tokens of training | {made.prompts_equal:,} |",
        f"| greedy answers with exactly the tokens of transformers | {made.answers_equal:,} |",
    ]
    if made.precision in NEAR_TIE:
        tie = NEAR_TIE[made.precision]
        lines.append(f"| answers that part where two tokens are within {tie:g} nats | {made.near_ties:,} |")
    return "\n".join([*lines, *(f"\n{problem}" for problem in made.problems if not made.passed)])
