"""stage=eval: have a benchmark answered, or take answers that are there, and score them.

    python -m tltrain stage=eval benchmark=rotbench benchmark.path=FOLDER model.path=outputs/pkt/TIME/model
    python -m tltrain stage=eval benchmark=bfcl source=endpoint source.url=http://localhost:8000/v1 source.model=NAME
    python -m tltrain stage=eval benchmark=bfcl source=golden    # the ceiling; source=random: the floor
    python -m tltrain stage=eval benchmark=rotbench benchmark.path=FOLDER stage.predictions=answers.jsonl
    python -m tltrain stage=eval stage.compare=[outputs/eval/TIME_A,outputs/eval/TIME_B]

Writes `predictions.jsonl` (a line a sample: prompt id, raw text, parsed call, golden calls, grade, reason) and
`metrics.json`: `SET/ts`, `/pi`, `/cf` in percent and `/n`; for RoTBench under both scorings, `SET/official/ts` and
`SET/fixed/ts`; where samples ask for several calls (BFCL's parallel sets, `benchmark=openai`) under `SET/any/ts`, the
first call of the answer against any golden call, which is `SET/ts`, and `SET/every/ts`, all calls against all; for BFCL
`SET/ast`, what its own checker says of the whole answer; under `details` the counts, 95 % intervals, and the same by
scenario and by seen and unseen queries; of a local model `prompt_tokens_per_sample` and `tokens_prefilled_per_sample`,
which it had to read, what prompts share once. Where the paper has numbers for the benchmark, `table.md` has both.

`stage.compare` sets two such folders side by side, see `tltrain.stages.compare`; whole conversations whose tools run
(`benchmark=toolworld_multi` and others with `benchmark.multi=true`) are in `tltrain.stages.conversations`; several
levels of RoTBench leave `robustness.png`, see `tltrain.stages.robustness`; `benchmark=general` is lm-eval's, see
`tltrain.stages.general`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tltrain import tracking
from tltrain.data import TRAINED_ON, bfcl, query_key, trained_on
from tltrain.data.reading import records
from tltrain.errors import TltrainError
from tltrain.evaluation import benchmarks, scoring
from tltrain.evaluation.metrics import SINGLE_TURN
from tltrain.formats.calls import read_calls
from tltrain.grading import Grade, RewardTable, grade
from tltrain.runtime import runs, terminal
from tltrain.sources import open_source
from tltrain.stages.evaluations import compare, conversations, robustness
from tltrain.trajectory import ANY, Call, OneOf, Sample
from tltrain.views import tables

log = logging.getLogger(__name__)


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the stage into `folder`; returns what it wrote to `metrics.json`."""
    if cfg.stage.compare:
        return compare.run(cfg, folder)
    if cfg.benchmark.multi:
        return conversations.run(cfg, folder)
    if cfg.benchmark.name == "general":  # no calls of tools: lm-eval asks and scores
        from tltrain.stages.evaluations import general

        return general.run(cfg, folder)
    table = RewardTable.from_config(OmegaConf.to_container(cfg.reward))
    sets = benchmarks.load(cfg.benchmark, cfg.seed)
    samples = [sample for members in sets.values() for sample in members]
    if not samples:
        raise TltrainError("the benchmark has no samples: see benchmark.size, benchmark.levels, benchmark.categories")
    if cfg.stage.predictions is not None:
        predictions, model_path, too_long = read_predictions(Path(cfg.stage.predictions), len(samples)), None, 0
        reading = {}
    else:
        with open_source(cfg) as source:
            predictions = [text or "" for text in source(samples)]  # of a prompt that is too long there is none
            model_path, too_long = source.name, source.too_long
            reading = source.reading()

    metrics: dict[str, Any] = {
        "model": model_path,
        "source": None if cfg.stage.predictions is not None else cfg.source.name,
        "predictions": cfg.stage.predictions,
        "too_long": too_long,
        **reading,
        "details": {},
    }
    lines, start = [], 0
    graded: dict[str, tuple[list[Sample], list[Grade]]] = {}
    for name, members in sets.items():
        members, seen_by = mark_seen(members, model_path)
        texts = predictions[start : start + len(members)]
        start += len(members)
        grades = judge(cfg, texts, members)
        graded[name] = (members, grades)
        found = details(cfg, name, texts, grades, members) | {"seen_is": seen_by}
        metrics["details"][name] = found
        metrics |= headline(cfg, name, found)
        metrics[f"{name}/reward"] = round(sum(grade.reward(table) for grade in grades) / len(grades), 4)
        lines += [
            prediction_line(name, sample, text, grade, table)
            for sample, text, grade in zip(members, texts, grades, strict=True)
        ]
    runs.write_lines(folder / "predictions.jsonl", lines)
    if robustness.applies(cfg):
        robustness.run(cfg, graded, metrics, folder)
    published = beside_the_paper(metrics)
    if published:
        runs.write_lines(folder / "table.md", [tables.markdown(title, WITH_PAPER, rows) for title, rows in published])
    with tracking.job(cfg, folder) as tracker:
        tracker.evaluation(metrics, folder / "predictions.jsonl")
    runs.finish(folder, cfg, metrics)
    show(metrics, cfg)
    if robustness.applies(cfg):
        robustness.show(metrics)
    for title, rows in published:
        terminal.table(title, WITH_PAPER, rows)
    terminal.console.print(f"Written to {folder}", markup=False)
    return metrics


def read_predictions(path: Path, expected: int) -> list[str]:
    """Saved answers, `{"prediction": text}` a line, in the benchmark's order."""
    texts = []
    for number, record in records(path):
        if not isinstance(record, dict) or not isinstance(record.get("prediction"), str):
            raise TltrainError(f'{path}, record {number}: expected {{"prediction": text}}, found {str(record)[:80]}')
        texts.append(record["prediction"])
    if len(texts) != expected:
        raise TltrainError(
            f"{path}: expected {expected} predictions, one for each sample of the benchmark in its order, "
            f"found {len(texts)}"
        )
    return texts


def mark_seen(samples: list[Sample], model_path: str | None) -> tuple[list[Sample], str]:
    """The samples with `meta["seen"]`: whether their query was trained on, by the model's own record where it has one,
    else (RoTBench) whether it is among the third-turn trajectories, on which models are usually trained.
    """
    if model_path and (Path(model_path) / TRAINED_ON).is_file():
        keys = set(trained_on(model_path))
        marked = [replace(s, meta={**s.meta, "seen": query_key(s.query) in keys}) for s in samples]
        return marked, "the model's training queries"
    if all("query_in_third_turn" in sample.meta for sample in samples):
        marked = [replace(s, meta={**s.meta, "seen": s.meta["query_in_third_turn"]}) for s in samples]
        return marked, "the third-turn queries of the same level"
    return [replace(s, meta={**s.meta, "seen": False}) for s in samples], "nothing: no record of training"


def judge(cfg: DictConfig, texts: Sequence[str], samples: list[Sample]) -> list[Grade]:
    """One grade a sample. On RoTBench the words of an answer to the user are not compared (see `scoring`)."""
    values = cfg.stage.matching.name
    if cfg.benchmark.name in benchmarks.ALL_ASKED_FOR:
        return scoring.any_call(texts, samples, values)
    if cfg.benchmark.name in ("rotbench", "toolworld"):
        return scoring.rotbench_fixed(texts, samples, values)
    return [grade(text, sample.goldens, sample.tools, values) for text, sample in zip(texts, samples, strict=True)]


def details(
    cfg: DictConfig, name: str, texts: Sequence[str], grades: list[Grade], samples: list[Sample]
) -> dict[str, Any]:
    """Every number of one set: by scoring, and within that overall, by scenario, and by seen and unseen queries."""
    several = cfg.benchmark.name in benchmarks.ALL_ASKED_FOR and any(len(sample.goldens) > 1 for sample in samples)
    scorings: dict[str, tuple[Sequence[scoring.Judged], float | None]]
    scorings = {"any" if several else "fixed": (grades, None)}
    if several:
        scorings["every"] = (scoring.every_call(texts, samples, cfg.stage.matching.name), None)
    if cfg.benchmark.name == "rotbench":
        official = scoring.rotbench_official([grade.prediction for grade in grades], samples)
        scorings["official"] = (official, len(samples) / 7)
    return {
        "scoring": {
            name: {
                "all": _plain(scoring.score(judged, cfg.seed)),
                "by_scenario": {
                    key: _plain(value)
                    for key, value in scoring.score_by(judged, samples, "scenario", cfg.seed, scenario_size).items()
                },
                "by_seen": {
                    "seen" if key else "unseen": _plain(value)
                    for key, value in scoring.score_by(judged, samples, "seen", cfg.seed).items()
                },
            }
            for name, (judged, scenario_size) in scorings.items()
        },
        "outcomes": scoring.count_outcomes(grades),
        "rows": scoring.count_rows(grades),
        "contradicts_documentation": sum(grade.de for grade in grades),
        **official_accuracy(cfg, name, texts),
    }


def official_accuracy(cfg: DictConfig, name: str, texts: Sequence[str]) -> dict[str, Any]:
    """`ast`: how many answers BFCL's own checker accepts, where it has an opinion."""
    if cfg.benchmark.name != "bfcl":
        return {}
    right = bfcl.official([read_calls(text) for text in texts], cfg.benchmark.path, name.removeprefix("bfcl_"))
    return {} if right is None else {"ast": _rounded(scoring.metric(right, cfg.seed))}


def _rounded(metric: scoring.Metric) -> dict[str, float]:
    return {key: round(value, 4) for key, value in asdict(metric).items()}


def _plain(metrics: dict[str, scoring.Metric]) -> dict[str, dict[str, float]]:
    return {level: _rounded(metric) for level, metric in metrics.items()}


def headline(cfg: DictConfig, name: str, found: dict[str, Any]) -> dict[str, float]:
    """The flat metrics of one set."""
    flat: dict[str, float] = {}
    chosen = chosen_scoring(cfg, found)
    for kind, numbers in found["scoring"].items():
        for level, metric in numbers["all"].items():
            if kind == chosen:
                flat[f"{name}/{level}"] = metric["percent"]
            if len(found["scoring"]) > 1:
                flat[f"{name}/{kind}/{level}"] = metric["percent"]
    if "ast" in found:
        flat[f"{name}/ast"] = found["ast"]["percent"]
    return flat | {f"{name}/n": found["scoring"][chosen]["all"]["ts"]["n"]}


def chosen_scoring(cfg: DictConfig, found: dict[str, Any]) -> str:
    """The scoring whose numbers stand first: `benchmark.scoring` where RoTBench has two, else the one by calls."""
    wanted = cfg.benchmark.scoring.name
    return wanted if wanted in found["scoring"] else next(iter(found["scoring"]))


def prediction_line(name: str, sample: Sample, text: str, grade: Grade, table: RewardTable) -> str:
    """One line of `predictions.jsonl`."""
    return json.dumps(
        {
            "set": name,
            "id": sample.id,
            "prediction": text,
            "call": _call(grade.prediction),
            "goldens": [_call(golden) for golden in sample.goldens],
            "grade": grade.row,
            "ts": grade.ts,
            "pi": grade.pi,
            "cf": grade.cf,
            "reward": grade.reward(table),
            "reason": grade.reason,
            "meta": {key: value for key, value in sample.meta.items() if isinstance(value, str | int | float | bool)},
        },
        ensure_ascii=False,
    )


def _call(call: Call | None) -> dict[str, Any] | None:
    if call is None:
        return None
    return {"name": call.name, "arguments": _json(dict(call.arguments))}


def _json(value: Any) -> Any:
    """A value of a golden call in JSON: `"<any>"`, `{"<one of>": [...]}`, and what is optional marked so."""
    if value is ANY:
        return "<any>"
    if isinstance(value, OneOf):
        return {"<one of>": [_json(one) for one in value.values], **({"<optional>": True} if value.optional else {})}
    if isinstance(value, dict):
        return {key: _json(inner) for key, inner in value.items()}
    return [_json(inner) for inner in value] if isinstance(value, list | tuple) else value


WITH_PAPER = ["who", "TS", "PI", "CF"]


def beside_the_paper(metrics: dict[str, Any]) -> list[tuple[str, list[list[str]]]]:
    """Title and rows of a table for each set the paper has numbers for: this run, once a scoring, then the paper's."""
    with_paper = []
    for name, found in metrics["details"].items():
        scorings = {kind: numbers["all"] for kind, numbers in found["scoring"].items()}
        published = tables.published(name, next(iter(scorings.values()))["ts"]["n"])
        ours = [
            [
                "this run" + (f" ({kind})" if len(scorings) > 1 else ""),
                *(f"{numbers[level]['percent']:.2f}" for level in SINGLE_TURN),
            ]
            for kind, numbers in scorings.items()
        ]
        if published:
            with_paper.append((f"{name} beside the paper, %", ours + published))
    return with_paper


def show(metrics: dict[str, Any], cfg: DictConfig) -> None:
    """The tables on the terminal: what is right, and how calls are wrong."""
    rows, official = [], any("ast" in found for found in metrics["details"].values())
    for name, found in metrics["details"].items():
        for kind, numbers in found["scoring"].items():
            label = f" ({kind})" if len(found["scoring"]) > 1 else ""
            first = kind == chosen_scoring(cfg, found)
            rows.append(_row(name + label, numbers["all"]))
            if official:
                rows[-1].append(_percent(found["ast"]) if first and "ast" in found else "")
            seen = {f"{key} queries": value for key, value in sorted(numbers["by_seen"].items())}
            for groups in (seen, numbers["by_scenario"] if first else {}):
                rows += [_row(f"  {key}{label}", value) for key, value in groups.items() if len(groups) > 1]
    columns = ["benchmark", "n", "TS", "PI", "CF", *(["BFCL's AST"] if official else [])]
    terminal.table("Evaluation, % of samples [95 % interval]", columns, rows)
    tables.show_kinds({name: found["rows"] for name, found in metrics["details"].items()})


def _row(label: str, metric: dict[str, dict[str, float]]) -> list[object]:
    return [label, metric["ts"]["n"], *(_percent(metric[level]) for level in SINGLE_TURN)]


def _percent(metric: dict[str, float]) -> str:
    return f"{metric['percent']:.1f} [{metric['low']:.0f}, {metric['high']:.0f}]"
