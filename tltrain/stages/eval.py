"""stage=eval: answer a benchmark with a model, or take answers that are there, and score them.

    python -m tltrain stage=eval benchmark=rotbench benchmark.path=FOLDER model.path=outputs/pkt/TIME/model
    python -m tltrain stage=eval benchmark=rotbench benchmark.path=FOLDER stage.predictions=answers.jsonl

Writes `predictions.jsonl` (a line a sample: prompt id, raw text, parsed call, golden calls, grade, reason) and
`metrics.json`: `SET/ts`, `/pi`, `/cf` in percent and `/n`; for RoTBench under both scorings, `SET/official/ts` and
`SET/fixed/ts`; under `details` the counts, 95 % intervals, and the same by scenario and by seen and unseen queries.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tltrain import benchmarks, runs, scoring, terminal
from tltrain.data import query_key, trajectories
from tltrain.data.reading import ReadReport, records
from tltrain.errors import TltrainError
from tltrain.grading import Grade, RewardTable
from tltrain.trajectory import ANY, Call, Sample

log = logging.getLogger(__name__)


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the stage into `folder`; returns what it wrote to `metrics.json`."""
    table = RewardTable.from_config(OmegaConf.to_container(cfg.reward))
    sets = benchmarks.load(cfg.benchmark, cfg.seed)
    samples = [sample for members in sets.values() for sample in members]
    if not samples:
        raise TltrainError("the benchmark has no samples: see benchmark.size and benchmark.levels")
    if cfg.stage.predictions is not None:
        predictions, model_path, too_long = read_predictions(Path(cfg.stage.predictions), len(samples)), None, 0
    else:
        predictions, model_path, too_long = answer(cfg, samples)

    metrics: dict[str, Any] = {
        "model": model_path,
        "predictions": cfg.stage.predictions,
        "too_long": too_long,
        "details": {},
    }
    lines, start = [], 0
    for name, members in sets.items():
        members, seen_by = mark_seen(members, model_path)
        texts = predictions[start : start + len(members)]
        start += len(members)
        grades = judge(cfg, texts, members)
        metrics["details"][name] = details(cfg, grades, members) | {"seen_is": seen_by}
        metrics |= headline(cfg, name, metrics["details"][name])
        metrics[f"{name}/reward"] = round(sum(grade.reward(table) for grade in grades) / len(grades), 4)
        lines += [
            prediction_line(name, sample, text, grade, table)
            for sample, text, grade in zip(members, texts, grades, strict=True)
        ]
    runs.write_lines(folder / "predictions.jsonl", lines)
    runs.finish(folder, cfg, metrics)
    show(metrics, cfg, folder)
    return metrics


def answer(cfg: DictConfig, samples: list[Sample]) -> tuple[list[str], str, int]:
    """The model's answers, where the model came from, and how many prompts are too long for it (their answer: "")."""
    with terminal.status("loading torch and transformers"):
        import torch

        from tltrain import generation, models
    from tltrain.stages.shared import corpus
    from tltrain.tokens import Encoder

    device, bf16 = models.device_and_dtype(cfg.hardware)
    path = models.resolve(
        cfg.model, cfg.cache.dir, lambda: corpus(list(trajectories(cfg.data, cfg.seed, ReadReport())))
    )
    encoder = Encoder(models.load_tokenizer(path, cfg.model))
    model = models.load_model(path, cfg.model, torch.bfloat16 if bf16 else torch.float32, device)
    prompts = [encoder.prompt(sample) for sample in terminal.track(samples, "tokenizing")]
    texts = generation.generate(
        model,
        encoder,
        prompts,
        max_new_tokens=cfg.stage.max_new_tokens,
        batch_size=cfg.stage.get("batch_size", 1),  # stage=predict asks one question
        description=f"answering {cfg.benchmark.name}",
    )
    too_long = sum(not generation.fits(model, len(prompt), cfg.stage.max_new_tokens) for prompt in prompts)
    if too_long:
        log.warning(
            "%d of %d prompts are too long for the model's context of %d tokens: they count as not answered",
            too_long,
            len(prompts),
            generation.context(model),
        )
    return texts, path, too_long


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
    record = Path(model_path) / "trained_on.json" if model_path else None
    if record is not None and record.is_file():
        keys = set(json.loads(record.read_text(encoding="utf-8")))
        marked = [replace(s, meta={**s.meta, "seen": query_key(s.query) in keys}) for s in samples]
        return marked, "the model's training queries"
    if all("query_in_third_turn" in sample.meta for sample in samples):
        marked = [replace(s, meta={**s.meta, "seen": s.meta["query_in_third_turn"]}) for s in samples]
        return marked, "the third-turn queries of the same level"
    return [replace(s, meta={**s.meta, "seen": False}) for s in samples], "nothing: no record of training"


def judge(cfg: DictConfig, texts: Sequence[str], samples: list[Sample]) -> list[Grade]:
    """One grade a sample. On RoTBench the words of an answer to the user are not compared (see `scoring`)."""
    return scoring.rotbench_fixed(texts, samples, cfg.stage.matching.name)


def details(cfg: DictConfig, grades: list[Grade], samples: list[Sample]) -> dict[str, Any]:
    """Every number of one set: by scoring, and within that overall, by scenario, and by seen and unseen queries."""
    scorings: dict[str, tuple[Sequence[scoring.Judged], float | None]] = {"fixed": (grades, None)}
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
    }


def _plain(metrics: dict[str, scoring.Metric]) -> dict[str, dict[str, float]]:
    return {level: {key: round(value, 4) for key, value in asdict(metric).items()} for level, metric in metrics.items()}


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
    return flat | {f"{name}/n": found["scoring"][chosen]["all"]["ts"]["n"]}


def chosen_scoring(cfg: DictConfig, found: dict[str, Any]) -> str:
    """The scoring whose numbers stand first: `benchmark.scoring` where there are two."""
    return cfg.benchmark.scoring.name if cfg.benchmark.scoring.name in found["scoring"] else "fixed"


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
    return {
        "name": call.name,
        "arguments": {key: "<any>" if value is ANY else value for key, value in call.arguments.items()},
    }


def show(metrics: dict[str, Any], cfg: DictConfig, folder: Path) -> None:
    """The table on the terminal."""
    rows = []
    for name, found in metrics["details"].items():
        for kind, numbers in found["scoring"].items():
            label = f" ({kind})" if len(found["scoring"]) > 1 else ""
            rows.append(_row(name + label, numbers["all"]))
            groups = {f"{key} queries": value for key, value in sorted(numbers["by_seen"].items())}
            if kind == chosen_scoring(cfg, found):
                groups |= numbers["by_scenario"]
            rows += [_row(f"  {key}{label}", value) for key, value in groups.items() if len(groups) > 1]
    terminal.table("Evaluation, % of samples [95 % interval]", ["benchmark", "n", "TS", "PI", "CF"], rows)
    for name, found in metrics["details"].items():
        counts = ", ".join(f"{key.replace('_', ' ')} {n}" for key, n in found["outcomes"].items() if n)
        terminal.console.print(f"{name}: {counts}", markup=False)
    terminal.console.print(f"Written to {folder}", markup=False)


def _row(label: str, metric: dict[str, dict[str, float]]) -> list[object]:
    return [
        label,
        metric["ts"]["n"],
        *(
            f"{metric[level]['percent']:.1f} [{metric[level]['low']:.0f}, {metric[level]['high']:.0f}]"
            for level in scoring.LEVELS
        ),
    ]
