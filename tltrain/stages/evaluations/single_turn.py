"""stage=eval with one call per sample: let a model answer a benchmark, or read saved answers, and score them.

    python -m tltrain stage=eval benchmark=rotbench benchmark.path=FOLDER model.path=outputs/pkt/TIME/model
    python -m tltrain stage=eval benchmark=bfcl source=endpoint source.url=http://localhost:8000/v1 source.model=NAME
    python -m tltrain stage=eval benchmark=bfcl source=golden    # the ceiling; source=random: the floor
    python -m tltrain stage=eval benchmark=rotbench benchmark.path=FOLDER stage.predictions=answers.jsonl

Writes `predictions.jsonl` (`records.Prediction`: one line per sample with the raw text, the parsed call, the golden
calls, the grade and its reason) and `metrics.json`: `SET/ts`, `/pi`, `/cf` in percent and `/n`; for RoTBench under both
scorings, `SET/official/ts` and `SET/fixed/ts`; if samples ask for several calls (BFCL's parallel sets,
`benchmark=openai`) `SET/any/ts`, which is `SET/ts` and compares the first call of the answer with any golden call, and
`SET/every/ts`, which compares all calls with all golden calls; for BFCL `SET/ast`, its own checker's verdict on the
whole answer; under `details` counts, 95 % intervals, and the same by scenario and by seen and unseen queries. For a
local model, `SET/key_tokens` is the mean number of key tokens (PKT) of a golden call, and `prompt_tokens_per_sample`
and `tokens_prefilled_per_sample` tell how much it read (prompts share common prefixes). If the paper has numbers for
the benchmark, `table.md` shows both.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tltrain import tracking
from tltrain.config import Scoring
from tltrain.data import TRAINED_ON, bfcl, query_key, trained_on
from tltrain.data.reading import records as read_records
from tltrain.errors import TltrainError
from tltrain.evaluation import benchmarks, key_tokens, scoring
from tltrain.evaluation.intervals import Percentage, percentage
from tltrain.evaluation.records import PREDICTIONS, Prediction, to_line
from tltrain.formats.calls import read_calls
from tltrain.grading import Grade, Outcome, grade
from tltrain.runtime import runs, terminal
from tltrain.sources import open_source
from tltrain.stages.evaluations import robustness, words
from tltrain.tokens.encoder import Encoder
from tltrain.training import pricing
from tltrain.trajectory import Sample
from tltrain.views import evaluation_tables

log = logging.getLogger(__name__)


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the evaluation in `folder` and return what it wrote to `metrics.json`."""
    metrics, predictions = evaluate(cfg)
    runs.write_lines(folder / PREDICTIONS, map(to_line, predictions))
    if robustness.applies(cfg):
        robustness.draw(metrics, preferred_scoring(cfg), folder / "robustness.png")
    published = evaluation_tables.published_single_turn(metrics)
    evaluation_tables.write_published(folder, published)
    with tracking.job(cfg, folder) as tracker:
        tracker.evaluation(metrics, folder / PREDICTIONS, Prediction.COLUMNS, (one.row() for one in predictions))
    runs.finish(folder, cfg, metrics)
    evaluation_tables.show_single_turn(metrics, preferred_scoring(cfg))
    if robustness.applies(cfg):
        evaluation_tables.show_robustness(metrics)
    evaluation_tables.show_published(published)
    terminal.console.print(f"Written to {folder}", markup=False)
    return metrics


def evaluate(cfg: DictConfig) -> tuple[dict[str, Any], list[Prediction]]:
    """Return the metrics, and every answer with its grade."""
    price = pricing.configured(cfg.reward, cfg.stage.matching)
    sets = benchmarks.load(cfg.benchmark, cfg.seed)
    samples = [sample for members in sets.values() for sample in members]
    if not samples:
        raise TltrainError("the benchmark has no samples: see benchmark.size, benchmark.levels, benchmark.categories")
    answers = answer(cfg, samples)
    metrics: dict[str, Any] = {
        "model": answers.model,
        "source": None if cfg.stage.predictions is not None else cfg.source.name,
        "predictions": cfg.stage.predictions,
        "too_long": answers.too_long,
        **answers.reading,
        "details": {},
    }
    predictions: list[Prediction] = []
    graded: dict[str, tuple[list[Sample], list[Grade]]] = {}
    for name, members in sets.items():
        members, seen_by = mark_seen(members, answers.model)
        here = slice(len(predictions), len(predictions) + len(members))
        texts, endings = answers.texts[here], answers.finish_reasons[here] or [""] * len(members)
        said = answers.native[here] or [{}] * len(members)
        read = [words.judged_text(cfg, text, sample.tools) for text, sample in zip(texts, members, strict=True)]
        grades = judge(cfg, read, members)
        graded[name] = (members, grades)
        numbers = details(cfg, name, read, grades, members) | {"seen_is": seen_by}
        if answers.encoder is not None and (keys := key_tokens.count(answers.encoder, members)) is not None:
            numbers["key_tokens"] = asdict(keys)
        if any(endings):
            numbers["finish_reasons"] = dict(Counter(filter(None, endings)))
        metrics["details"][name] = numbers
        metrics |= headline(cfg, name, numbers)
        rewards = [pricing.of_answer(price, *each) for each in zip(members, read, grades, strict=True)]
        metrics[f"{name}/reward"] = round(sum(rewards) / len(rewards), 4)
        predictions += [
            replace(Prediction.graded(name, sample, text, grade, reward), finish_reason=ending, said=own)
            for sample, text, grade, reward, ending, own in zip(
                members, texts, grades, rewards, endings, said, strict=True
            )
        ]
    if robustness.applies(cfg):
        robustness.add_drops(cfg, graded, metrics)
    outcomes = [grade.outcome for _, grades in graded.values() for grade in grades]
    words.tell(cfg, outcomes.count(Outcome.WORDS_BEFORE_CALL), len(outcomes))
    return metrics, predictions


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers, in the order of the samples.

    Attributes:
        model: the model's path or name; None for saved answers.
        too_long: number of prompts that were too long; their answers are empty.
        reading: `prompt_tokens_per_sample` and other numbers of a source's prompts and answers.
        finish_reasons: why each answer ended; empty if the source does not know.
        native: what each answer said in its own format; empty in the TL format.
        encoder: how the model's calls are tokenized; None if that is not known.
    """

    texts: list[str]
    model: str | None = None
    too_long: int = 0
    reading: Mapping[str, Any] = field(default_factory=dict)
    finish_reasons: Sequence[str] = ()
    native: Sequence[Mapping[str, Any]] = ()
    encoder: Encoder | None = None


def answer(cfg: DictConfig, samples: Sequence[Sample]) -> Answers:
    """Return saved answers (`stage.predictions`), or those of the configured source."""
    if cfg.stage.predictions is not None:
        return Answers(read_predictions(Path(cfg.stage.predictions), len(samples)))
    with open_source(cfg) as source:
        texts = [text or "" for text in source(samples)]  # None: the prompt is too long
        reasons = source.endings.last if hasattr(source, "endings") else ()
        native = getattr(source, "native_answers", ())
        encoder = getattr(source, "encoder", None)
        return Answers(texts, source.name, source.too_long, source.reading(), reasons, native, encoder)


def read_predictions(path: Path, expected: int) -> list[str]:
    """Read saved answers, one `{"prediction": text}` per line, in the benchmark's order."""
    texts = []
    for number, record in read_records(path):
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
    """Set `meta["seen"]` of each sample, and return what it is based on.

    A query is seen if the model's own record of its training has it. Without a record, on RoTBench, it is seen if it is
    among the third-turn trajectories, on which models are usually trained.
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
    """Grade each sample. On RoTBench the wording of an answer to the user is not compared (see `scoring`)."""
    values = cfg.stage.matching.name
    if cfg.benchmark.name in benchmarks.ALL_ASKED_FOR:
        return scoring.any_call(texts, samples, values)
    if cfg.benchmark.name in ("rotbench", "toolworld"):
        return scoring.rotbench_fixed(texts, samples, values)
    return [grade(text, sample.goldens, sample.tools, values) for text, sample in zip(texts, samples, strict=True)]


def details(
    cfg: DictConfig, name: str, texts: Sequence[str], grades: list[Grade], samples: list[Sample]
) -> dict[str, Any]:
    """Return all numbers of one set by scoring: overall, by scenario, and by seen and unseen queries."""
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
    """Return as `ast` the share of answers that BFCL's own checker accepts, if it applies."""
    if cfg.benchmark.name != "bfcl":
        return {}
    right = bfcl.official_verdicts([read_calls(text) for text in texts], cfg.benchmark.path, name.removeprefix("bfcl_"))
    return {} if right is None else {"ast": percentage(right, cfg.seed).to_json()}


def _plain(percentages: dict[str, Percentage]) -> dict[str, dict[str, Any]]:
    return {metric: number.to_json() for metric, number in percentages.items()}


def preferred_scoring(cfg: DictConfig) -> str:
    """Return the headline's scoring if there are several: RoTBench has a key for it."""
    return cfg.benchmark.get("scoring", Scoring.fixed).name


def headline(cfg: DictConfig, name: str, details: dict[str, Any]) -> dict[str, float]:
    """Return the flat metrics of one set."""
    flat: dict[str, float] = {}
    scorings = details["scoring"]
    first = scoring.first_scoring(scorings, preferred_scoring(cfg))
    for kind, numbers in scorings.items():
        for metric, number in numbers["all"].items():
            if kind == first:
                flat[f"{name}/{metric}"] = number["percent"]
            if len(scorings) > 1:
                flat[f"{name}/{kind}/{metric}"] = number["percent"]
    if "ast" in details:
        flat[f"{name}/ast"] = details["ast"]["percent"]
    if "key_tokens" in details:
        flat[f"{name}/key_tokens"] = details["key_tokens"]["per_call"]
    return flat | {f"{name}/n": scorings[first]["all"]["ts"]["n"]}
