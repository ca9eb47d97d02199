"""stage=analyze: where training calls fail, how well models predict key tokens, and which errors models make.

    python -m tltrain stage=analyze data=rotbench data.path=FOLDER                       a dataset
    python -m tltrain stage=analyze data=... model.path=outputs/pkt/TIME/model           a model on a dataset
    python -m tltrain stage=analyze data=... stage.models=[base,outputs/pkt/TIME/model]  several models
    python -m tltrain stage=analyze stage.results=[outputs/eval/A,outputs/eval/B]        answers of models

The stage analyses what the command line names: `data=...`; models (`model=`, `model.path=` or `stage.models=[...]`,
where `base` is the one that `model=` configures), always on the data; result folders of stage=eval. By default it
analyses the configured model on the configured data. Models are scored on the calls that MAE keeps (`stage.mae`);
calls of queries that they were trained on are counted, and left out with `stage.unseen=true`.

Writes `analysis.md` with all tables, its pictures, and `metrics.json`: `data/errors`, % of training calls;
`MODEL/PART/accuracy` and `/loss` for the parts of a call (`key`, `other`, `first`, ...); `MODEL/call/any`,
`/first_right`, `/keys_right`, % of such calls that are entirely right; under `details` all numbers with intervals.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from tltrain.data import query_key, trained_on, trajectories
from tltrain.data.judged import MaeReport, judge_of, judged_trajectories, log_reading, read_metrics
from tltrain.data.reading import ReadReport
from tltrain.data.rules import named_rule, rule_name
from tltrain.entry.unread import BASE, analyzed
from tltrain.errors import TltrainError
from tltrain.evaluation import analysis
from tltrain.evaluation.analysis import ErrorCounts
from tltrain.evaluation.predictions import count_grades, read_graded
from tltrain.formats.tool_errors import Rule
from tltrain.grades import CALL_OUTCOMES, Outcome
from tltrain.runtime import runs, terminal
from tltrain.trajectory import Trajectory
from tltrain.views import analysis_tables as report
from tltrain.views.analysis_tables import ResultTable

log = logging.getLogger(__name__)


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the stage in `folder` and return what it wrote to `metrics.json`."""
    data, models = analyzed(cfg.stage, HydraConfig.get().overrides.task)
    metrics: dict[str, Any] = {"details": {}}
    shown: list[ResultTable] = []
    if data:
        counts, read = ErrorCounts(counting_rule(cfg)), ReadReport()
        source = counting(terminal.track(trajectories(cfg.data, cfg.seed, read), "reading trajectories"), counts)
        items: list[Trajectory] = []
        count = 0
        for item in source:
            count += 1
            if models:  # only models need the trajectories again
                items.append(item)
        if not sum(counts.all.calls):
            raise TltrainError(f"data={cfg.data.name}: there are no training calls in {count} trajectories")
        log_reading(read, folder)
        metrics |= read_metrics(read)
        shown += analyse_data(cfg, counts, metrics, folder)
        if models:
            shown += analyse_models(cfg, items, models, metrics, folder)
    if cfg.stage.results:
        shown += analyse_results(cfg.stage.results, metrics, folder)
    runs.write_lines(folder / "analysis.md", [report.markdown("Analysis", shown)])
    runs.finish(folder, cfg, metrics)
    for table in shown:
        terminal.table(table.title, table.columns, table.rows)
        if table.note:
            terminal.console.print(f"{table.note}\n", markup=False)
    terminal.console.print(f"Written to {folder / 'analysis.md'}", markup=False)
    return metrics


def counting_rule(cfg: DictConfig) -> Rule:
    """Return the rule of `stage.rule`, whether or not `stage.mae` applies it to the models' calls."""
    return named_rule(cfg, cfg.stage.rule.name)


def counting(items: Iterable[Trajectory], counts: ErrorCounts) -> Iterator[Trajectory]:
    """Yield the trajectories unchanged and count them."""
    for item in items:
        counts.add(item)
        yield item


# --- the dataset ------------------------------------------------------------------------------------------------------


def analyse_data(cfg: DictConfig, counts: ErrorCounts, metrics: dict[str, Any], folder: Path) -> list[ResultTable]:
    """Return the dataset's tables, draw its picture, and add its numbers to `metrics`."""
    groups = {"": {f"data={cfg.data.name}": counts.all}, **counts.by()}
    details: dict[str, dict[str, dict[str, Any]]] = {
        key or "all": {
            value: {
                "trajectories": len(group.calls),
                "calls": sum(group.calls),
                "answered": sum(group.answered),
                "errors": sum(group.errors),
                "kinds": dict(group.kinds.most_common()),
                "percent": {name: share.to_json() for name, share in group.shares(cfg.seed).items()},
            }
            for value, group in values.items()
        }
        for key, values in groups.items()
    }
    (everything,) = details.pop("all").values()
    metrics["details"]["data"] = {
        "source": cfg.data.name,
        "rule": rule_name(cfg),
        "dropped_no_answer": counts.no_answer,
        "all": everything,
        "by": details,
    }
    metrics |= {"data/calls": everything["calls"], "data/errors": everything["percent"]["calls"]["value"]}
    if "answered" in everything["percent"]:
        metrics["data/errors_of_answered"] = everything["percent"]["answered"]["value"]
    if not counts.all.kinds:
        return [report.errors(groups, rule_name(cfg), cfg.seed)]
    from tltrain.views import analysis_plots  # matplotlib takes a second to load

    analysis_plots.errors(folder / "data_errors.png", groups, rule_name(cfg))
    return [report.errors(groups, rule_name(cfg), cfg.seed), report.kinds(counts.all)]


# --- models -----------------------------------------------------------------------------------------------------------


def analyse_models(
    cfg: DictConfig, items: list[Trajectory], asked_for: Sequence[str], metrics: dict[str, Any], folder: Path
) -> list[ResultTable]:
    """Return the models' tables, draw their pictures, and add their numbers to `metrics`."""
    with terminal.status("loading torch and transformers"):
        from tltrain.models import loading
    from tltrain.models.loading import corpus
    from tltrain.views import analysis_plots

    base = []
    if BASE in asked_for:
        base = [loading.resolve(cfg.model, cfg.cache.dir, lambda: corpus(items, cfg.format), cfg.format)]
    paths = [base[0] if path == BASE else path for path in asked_for]
    labels = zip(asked_for, analysis.labels(paths), strict=True)
    names = [cfg.model.name if path == BASE else label for path, label in labels]
    if len(set(names)) < len(names):
        raise TltrainError(f"stage.models: expected different models, found {', '.join(asked_for)}")
    learned = list(judged_trajectories(items, judge_of(cfg), MaeReport()))
    seen = [queries_of(path) for path in paths]
    if cfg.stage.unseen:
        known = frozenset().union(*seen)
        learned = [item for item in learned if query_key(item.query) not in known]
    found = {}
    for name, path, queries in zip(names, paths, seen, strict=True):
        details = score(cfg, path, name, learned)
        details["trajectories_trained_on"] = sum(query_key(item.query) in queries for item in learned)
        if details["trajectories_trained_on"]:
            log.warning(
                "%s was trained on %d of these %d trajectories' queries: stage.unseen=true leaves them out",
                name,
                details["trajectories_trained_on"],
                len(learned),
            )
        found[name] = details
    tokens, calls = ({name: details[what] for name, details in found.items()} for what in ("tokens", "calls"))
    analysis_plots.tokens(folder / "key_tokens.png", tokens)
    analysis_plots.calls(folder / "calls.png", calls)
    metrics["details"]["models"] = {
        name: details
        | {
            what: {key: {kind: one.to_json() for kind, one in both.items()} for key, both in details[what].items()}
            for what in ("tokens", "calls")
        }
        for name, details in found.items()
    }
    for name, details in metrics["details"]["models"].items():
        for part, both in details["tokens"].items():
            metrics |= {f"{name}/{part}/{kind}": both[kind]["value"] for kind in both}
        metrics |= {f"{name}/call/{asked}": both["call"]["value"] for asked, both in details["calls"].items()}
    return [report.tokens(tokens), report.calls(calls)]


def queries_of(path: str) -> frozenset[str]:
    """Return the digests of what one of our models was trained on, its queries among them."""
    return frozenset(trained_on(path))


def score(cfg: DictConfig, path: str, name: str, items: list[Trajectory]) -> dict[str, Any]:
    """Score one model: `tokens` and `calls` of `evaluation.analysis`, and counts of trajectories too long for it."""
    import torch

    from tltrain.evaluation import teacher_forcing
    from tltrain.inference import generation
    from tltrain.models import devices, encoders, loading
    from tltrain.tokens.packing import PackingReport

    device, bf16 = devices.device_and_dtype(cfg.hardware)
    encoder = encoders.load_own_encoder(path, cfg.model, cfg.format)
    model = loading.load_model(path, cfg.model, torch.bfloat16 if bf16 else torch.float32, device)
    packing = PackingReport()
    scores = list(teacher_forcing.score(model, encoder, terminal.track(items, f"scoring {name}"), packing))
    for line in packing.losses(generation.context(model) or sys.maxsize):
        log.warning("%s: %s", name, line)
    if not scores:
        raise TltrainError(f"{path}: none of the {len(items)} trajectories has a call to score (see stage.mae, unseen)")
    return {
        "path": path,
        "tokens": analysis.tokens(scores, cfg.seed),
        "calls": analysis.calls(scores, cfg.seed),
        "trajectories_truncated": packing.truncated,
        "trajectories_too_long": packing.too_long,
    }


# --- results of stage=eval ------------------------------------------------------------------------------------------


def analyse_results(paths: Sequence[str], metrics: dict[str, Any], folder: Path) -> list[ResultTable]:
    """Return the kinds of error in the predictions of result folders, and add the counts to `metrics`."""
    from tltrain.views import analysis_plots

    if len(set(paths)) < len(paths):
        raise TltrainError(f"stage.results: expected different folders, found {', '.join(paths)}")
    labels = analysis.labels(list(paths))
    results = {label: read_graded(Path(path), "stage.results") for path, label in zip(paths, labels, strict=True)}
    counts: dict[str, dict[str, int]] = {}
    for name in dict.fromkeys(one.set for predictions in results.values() for one in predictions):
        for label, predictions in results.items():
            if members := [prediction for prediction in predictions if prediction.set == name]:
                counts[f"{label} {name}"] = count_grades(members)
    metrics["details"]["results"] = counts
    outcomes = {name: by_outcome(rows) for name, rows in counts.items()}
    analysis_plots.predictions(folder / "prediction_kinds.png", outcomes)
    return report.predictions(counts)


def by_outcome(rows: dict[str, int]) -> dict[str, int]:
    """Convert counts by row of the reward table to counts by outcome; all wrong parameters are one outcome."""
    outcomes = dict.fromkeys((outcome.value for outcome in CALL_OUTCOMES), 0)
    for row, count in rows.items():
        outcome = row if row in set(Outcome) else Outcome.PARAMETERS.value
        outcomes[outcome] = outcomes.get(outcome, 0) + count
    return outcomes
