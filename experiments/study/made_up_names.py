"""Where made-up names leave the names on offer: at a choice between names, or while one is copied.

    python -m experiments.study.made_up_names WORK ...    of the rows that were run in these folders; prints a table
    python -m experiments.study.made_up_names WORK ... > experiments/results/study/made_up_names.md

A row says of an answer that its tool is not on offer; the name itself is in the run alone. Token by token, such a name
follows some name on offer and then leaves them all: at its first token, at a token where names on offer diverge (a key
token, if the name is golden), or where one name alone was left and only had to be copied.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from omegaconf import OmegaConf

from experiments.study import markdown, rows
from experiments.study.design import ROWS
from experiments.study.mechanisms import SETS
from experiments.study.rows import RowFile
from tltrain.errors import TltrainError
from tltrain.evaluation import benchmarks
from tltrain.evaluation.predictions import PREDICTIONS, Prediction
from tltrain.evaluation.records import read_lines
from tltrain.grades import Outcome

if TYPE_CHECKING:
    from tltrain.tokens.encoder import Encoder

FIRST, CHOICE, COPY = "first", "choice", "copy"
LEAVES = {FIRST: "at its first token", CHOICE: "at a choice between names", COPY: "where one name was left"}
EXPLAINED = [
    "# Where made-up names leave the names on offer",
    "",
    "Written by `python -m experiments.study.made_up_names WORK`; WORK is the folder of the runs, which is not part of",
    "the repository. Token by token, a name that is not on offer agrees with some name on offer and then with none.",
    "*Left the golden name*: until then it agreed with the golden name, perhaps among others. *At a choice between",
    "names*: several names on offer that go on differently still agreed. *Where one name was left*: it only had to be",
    "copied.",
    "",
]


class Departure(NamedTuple):
    """How a name leaves the names on offer: `where` (of `LEAVES`), and whether it followed the golden name so far."""

    where: str
    golden: bool


def departure(name: Sequence[int], offered: Iterable[Sequence[int]], golden: Sequence[int]) -> Departure:
    """Return where a name leaves the names on offer.

    Args:
        name: the token ids of a name that is not on offer, up to the `(` behind it; so are the others.
        golden: those of the golden call's name.
    """
    heads = [tuple(head) for head in offered]
    at = max((_shared(name, head) for head in heads), default=0)
    following = {head[at] for head in heads if head[:at] == tuple(name[:at]) and len(head) > at}
    where = FIRST if at == 0 else CHOICE if len(following) > 1 else COPY
    return Departure(where, _shared(name, golden) == at)


def _shared(a: Sequence[int], b: Sequence[int]) -> int:
    """The length of the common beginning."""
    return next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def departures(evaluation: Path, encoder: Encoder) -> Iterator[Departure]:
    """Those of the made-up names in a finished evaluation."""
    cfg = OmegaConf.load(evaluation / "config.yaml")
    samples = {sample.id: sample for members in benchmarks.load(cfg.benchmark, cfg.seed).values() for sample in members}

    def head(name: str) -> list[int]:
        return encoder.encode([encoder.format.call_head(name)])[0].ids

    for answer in read_lines(evaluation / PREDICTIONS, Prediction.from_json):
        if answer.grade == Outcome.TOOL_HALLUCINATION and answer.call is not None:
            offered = [head(tool.name) for tool in samples[answer.id].tools]
            yield departure(head(answer.call["name"]), offered, head(answer.goldens[0]["name"]))


def runs_of(found: Iterable[RowFile], works: Sequence[Path]) -> list[tuple[RowFile, Path]]:
    """Each row with the run that it is of, in the first of these folders that has it; without one it is left out."""
    places = [(row, [run for work in works if rows.made(row, run := rows.run_of(row, work))]) for row in found]
    return [(row, runs[0]) for row, runs in places if runs]


def table(found: Sequence[tuple[RowFile, Path]]) -> list[str]:
    """The table of rows and their runs: a line for each arm and set, with sums over seeds."""
    from tltrain.models.encoders import load_encoder

    counts: dict[tuple[str, str], Counter[Departure]] = {}
    asked: Counter[tuple[str, str]] = Counter()
    seeds: Counter[tuple[str, str]] = Counter()
    for row, run in found:
        cfg = OmegaConf.load(run / "config.yaml")
        (model, *_) = sorted(run.glob("model_*/model"))
        encoder = load_encoder(str(model), cfg.model, cfg.format)
        for name, place in rows.evaluations(run):
            if name in SETS:
                counts.setdefault((name, row.arm), Counter()).update(departures(place, encoder))
                asked[name, row.arm] += len(row.lines[name])
                seeds[name, row.arm] += 1
    lines = []
    for (name, arm), own in sorted(counts.items(), key=lambda item: list(SETS).index(item[0][0])):
        total = own.total()
        wheres = [sum(count for one, count in own.items() if one.where == where) for where in LEAVES]
        golden = sum(count for one, count in own.items() if one.golden)
        numbers = [seeds[name, arm], asked[name, arm], total, golden, total - golden, *wheres]
        lines.append([f"{SETS[name]}: `{arm}`", *(f"{number:,}" for number in numbers)])
    heads = ["", "seeds", "answers", "names that are not on offer", "left the golden name", "left another name"]
    return [*EXPLAINED, *markdown.table("", [*heads, *LEAVES.values()], lines)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, nargs="+", help="folders of the runs: what run.sh was given as --work")
    parser.add_argument("--rows", type=Path, default=ROWS, help="folder of rows, such as a dry run's")
    options = parser.parse_args(arguments)
    try:
        found = runs_of(rows.read_all(options.rows), options.work)
        if not found:
            raise TltrainError(f"{', '.join(map(str, options.work))}: no run of a row of {options.rows}")
        print("\n".join(table(found)))
    except TltrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
