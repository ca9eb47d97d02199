"""stage=eval with one call per sample: let a model answer a benchmark, or read saved answers, and score them.

    python -m tltrain stage=eval benchmark=rotbench benchmark.path=FOLDER model.path=outputs/pkt/TIME/model
    python -m tltrain stage=eval benchmark=bfcl source=endpoint source.url=http://localhost:8000/v1 source.model=NAME
    python -m tltrain stage=eval benchmark=bfcl source=golden    # the ceiling; source=random: the floor
    python -m tltrain stage=eval benchmark=rotbench benchmark.path=FOLDER stage.predictions=answers.jsonl

Writes `predictions.jsonl` (`predictions.Prediction`: one line per sample with the raw text, the parsed call, the golden
calls, the grade and its reason) and `metrics.json`: `SET/ts`, `/pi`, `/cf` in percent and `/n`; for RoTBench under both
scorings, `SET/official/ts` and `SET/fixed/ts`; if samples ask for several calls (BFCL's parallel sets,
`benchmark=openai`) `SET/any/ts`, which compares the first call of the answer with any golden call, `SET/each/ts`, the
mean over the golden calls, each with a call of its own, and `SET/every/ts`, which asks for all calls and no others. Of
these `SET/ts` is `any` in the TL format, whose answers are one call, and `each` where answers may make several calls;
there `SET/missing_calls` and `SET/superfluous_calls` count those too few and too many. For BFCL `SET/ast` is its own
checker's verdict on the whole answer. Questions to which no call is right (BFCL's irrelevance sets,
`benchmark=when2call`, an empty `tool_calls` of `benchmark=openai`) are in none of these: `SET/abstention` is the share
of them that is answered without a call, `SET/abstention_n` their number, and `SET/no_call` counts the opposite error,
questions that ask for a call and are answered in words. Under `details` are counts, 95 % intervals, and the same by
scenario and by seen and unseen queries. For a local model, `SET/key_tokens` is the mean number of key tokens (PKT) of a
golden call, and `prompt_tokens_per_sample` and `tokens_prefilled_per_sample` tell how much it read (prompts share
common prefixes). If the paper has numbers for the benchmark, `table.md` shows both.
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
from tltrain.errors import TltrainError
from tltrain.evaluation import benchmarks, key_tokens, scoring
from tltrain.evaluation.intervals import Percentage, percentage
from tltrain.evaluation.predictions import PREDICTIONS, Prediction
from tltrain.evaluation.records import to_line
from tltrain.formats.calls import split_calls
from tltrain.formats.families import AUTO, TL_NAMES
from tltrain.grading import AnswerGrade, Grade, Outcome, abstention, grade
from tltrain.runtime import runs, terminal
from tltrain.sources import open_source
from tltrain.stages.evaluations import robustness, saved_answers, words
from tltrain.tokens.encoder import Encoder
from tltrain.training import pricing
from tltrain.trajectory import Call, Sample
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
    some_abstain = any(sample.abstain for sample in samples)
    graded: dict[str, tuple[list[Sample], Sequence[Grade | AnswerGrade]]] = {}
    for name, members in sets.items():
        members = [replace(s, meta={**s.meta, "query": s.query}) for s in members]  # which the report shows
        members, seen_by = mark_seen(members, answers.model)
        here = slice(len(predictions), len(predictions) + len(members))
        texts, endings = answers.texts[here], answers.finish_reasons[here] or [""] * len(members)
        said = answers.native[here] or [{}] * len(members)
        read = [words.judged_text(cfg, text, sample.tools) for text, sample in zip(texts, members, strict=True)]
        grades = judge(cfg, read, members, answers.several_calls)
        graded[name] = (members, grades)
        numbers = details(cfg, name, read, grades, members) | {"seen_is": seen_by}
        if some_abstain and not all(sample.abstain for sample in members):
            numbers["no_call"] = scoring.unasked_words(read, members)
        if answers.encoder is not None and (keys := key_tokens.count(answers.encoder, members)) is not None:
            numbers["key_tokens"] = {key: value for key, value in asdict(keys).items() if key != "not_counted"}
            for what, count in keys.not_counted.items():
                log.warning("%s/key_tokens: %d golden calls are not counted: %s", name, count, what)
        if any(endings):
            numbers["finish_reasons"] = dict(Counter(filter(None, endings)))
        metrics["details"][name] = numbers
        metrics |= headline(cfg, name, numbers)
        rewards = [pricing.of_answer(price, *each) for each in zip(members, read, grades, strict=True)]
        if priced := [reward for reward in rewards if reward is not None]:
            metrics[f"{name}/reward"] = round(sum(priced) / len(priced), 4)
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
        several_calls: whether an answer may make several calls, all of which then count: in native formats, and those
            of a server that is asked with native tools. An answer in the TL format is one call.
    """

    texts: list[str]
    model: str | None = None
    too_long: int = 0
    reading: Mapping[str, Any] = field(default_factory=dict)
    finish_reasons: Sequence[str] = ()
    native: Sequence[Mapping[str, Any]] = ()
    encoder: Encoder | None = None
    several_calls: bool = False


def answer(cfg: DictConfig, samples: Sequence[Sample]) -> Answers:
    """Return saved answers (`stage.predictions`), or those of the configured source."""
    native = cfg.format.name not in (*TL_NAMES, AUTO)
    if cfg.stage.predictions is not None:
        found = saved_answers.read(cfg, Path(cfg.stage.predictions), samples)
        said = [one.said for one in found] if any(one.said for one in found) else ()
        return Answers([one.text for one in found], native=said, several_calls=native or bool(said))
    with open_source(cfg) as source:
        texts = [text or "" for text in source(samples)]  # None: the prompt is too long
        reasons = source.endings.last if hasattr(source, "endings") else ()
        said = [{} if said is None else said.to_json() for said in getattr(source, "native_answers", ())]
        encoder = getattr(source, "encoder", None)
        several_calls = getattr(source, "several_calls", native)
        return Answers(texts, source.name, source.too_long, source.reading(), reasons, said, encoder, several_calls)


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


def judge(
    cfg: DictConfig, texts: Sequence[str], samples: list[Sample], several_calls: bool = False
) -> Sequence[Grade | AnswerGrade]:
    """Grade each sample. On RoTBench the wording of an answer to the user is not compared (see `scoring`).

    Args:
        several_calls: whether all calls of an answer count; if not, only the first. For a question to which no call is
            right, every call counts.
    """
    if any(sample.abstain for sample in samples):
        pairs = list(zip(texts, samples, strict=True))
        asked = [(text, sample) for text, sample in pairs if not sample.abstain]
        calls = iter(judge(cfg, [text for text, _ in asked], [sample for _, sample in asked], several_calls))
        return [abstention(sample, text) if sample.abstain else next(calls) for text, sample in pairs]
    values, to_user = cfg.stage.matching.name, cfg.benchmark.name in ("rotbench", "toolworld")
    if several_calls:
        return scoring.each_call(texts, samples, values, words_to_user=not to_user)
    if cfg.benchmark.name in benchmarks.FIRST_CALL:
        return scoring.any_call(texts, samples, values)
    if to_user:
        return scoring.rotbench_fixed(texts, samples, values)
    return [grade(text, sample.goldens, sample.tools, values) for text, sample in zip(texts, samples, strict=True)]


def details(
    cfg: DictConfig, name: str, texts: Sequence[str], grades: Sequence[Grade | AnswerGrade], samples: list[Sample]
) -> dict[str, Any]:
    """Return all numbers of one set by scoring: overall, by scenario, and by seen and unseen queries.

    Questions to which no call is right are in no scoring, but under `abstention`, and in the counts of grades.
    """
    if any(sample.abstain for sample in samples):
        return _with_abstention(cfg, name, texts, grades, samples)
    values = cfg.stage.matching.name
    whole = [one for one in grades if isinstance(one, AnswerGrade)]
    scorings: dict[str, tuple[Sequence[scoring.Judged], float | None]] = {"fixed": (grades, None)}
    if any(sample.parallel for sample in samples):
        scorings = {"each": (grades, None), "any": (scoring.any_call(texts, samples, values), None)}
        if not whole:
            scorings = {"any": (grades, None), "each": (scoring.each_call(texts, samples, values), None)}
        scorings["every"] = (scoring.every_call(texts, samples, values), None)
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
        "contradicts_documentation": sum(
            sum(one.de for one in grade.of_calls) if isinstance(grade, AnswerGrade) else grade.de for grade in grades
        ),
        **({"calls": call_counts(whole)} if whole else {}),
        **official_accuracy(cfg, name, texts),
    }


def _with_abstention(
    cfg: DictConfig, name: str, texts: Sequence[str], grades: Sequence[Grade | AnswerGrade], samples: list[Sample]
) -> dict[str, Any]:
    """Return the `details` of the questions that ask for a call, and under `abstention` the numbers of the others."""
    triples = list(zip(texts, grades, samples, strict=True))
    asked = [each for each in triples if not each[2].abstain]
    others = [each for each in triples if each[2].abstain]
    scenarios: dict[Any, list[Grade | AnswerGrade]] = {}
    for _, one, sample in others:
        scenarios.setdefault(sample.meta.get("scenario"), []).append(one)
    found: dict[str, Any] = {"scoring": {}, "contradicts_documentation": 0}
    if asked:
        found = details(cfg, name, *([each[i] for each in asked] for i in range(3)))  # type: ignore[arg-type]
    return found | {
        "outcomes": scoring.count_outcomes(grades),
        "rows": scoring.count_rows(grades),
        "abstention": {
            "all": scoring.abstention_rate((one for _, one, _ in others), cfg.seed).to_json(),
            "by_scenario": {
                key: scoring.abstention_rate(members, cfg.seed).to_json() for key, members in scenarios.items()
            },
        },
    }


def call_counts(grades: Sequence[AnswerGrade]) -> dict[str, int]:
    """Count the golden calls, and the calls of answers: all, and those too few and too many."""
    missing = sum(one.outcome is Outcome.MISSING_CALL for grade in grades for one in grade.grades)
    return {
        "golden": sum(len(grade.grades) for grade in grades),
        "made": sum(len(grade.of_calls) for grade in grades),
        "missing": missing,
        "superfluous": sum(len(grade.superfluous) for grade in grades),
    }


def official_accuracy(cfg: DictConfig, name: str, texts: Sequence[str]) -> dict[str, Any]:
    """Return as `ast` the share of answers that BFCL's own checker accepts, if it applies."""
    if cfg.benchmark.name != "bfcl":
        return {}
    answers = [[one if isinstance(one, Call) else _UNREADABLE for one in split_calls(text)] for text in texts]
    right = bfcl.official_verdicts(answers, cfg.benchmark.path, name.removeprefix("bfcl_"))
    return {} if right is None else {"ast": percentage(right, cfg.seed).to_json()}


_UNREADABLE = Call("(not a call)")
"""Stands for a call that cannot be read, which makes an answer wrong."""


def _plain(percentages: dict[str, Percentage]) -> dict[str, dict[str, Any]]:
    return {metric: number.to_json() for metric, number in percentages.items()}


def preferred_scoring(cfg: DictConfig) -> str:
    """Return the headline's scoring if there are several: RoTBench has a key for it."""
    return cfg.benchmark.get("scoring", Scoring.fixed).name


def headline(cfg: DictConfig, name: str, details: dict[str, Any]) -> dict[str, float]:
    """Return the flat metrics of one set."""
    flat: dict[str, float] = {}
    scorings = details["scoring"]
    first = scoring.first_scoring(scorings, preferred_scoring(cfg)) if scorings else None
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
    for kind in ("missing", "superfluous") if "calls" in details else ():
        flat[f"{name}/{kind}_calls"] = details["calls"][kind]
    n = scorings[first]["all"]["ts"]["n"] if first is not None else 0
    if "abstention" in details:
        abstained = details["abstention"]["all"]
        flat |= {f"{name}/abstention": abstained["percent"], f"{name}/abstention_n": abstained["n"]}
        n += abstained["n"]
    if "no_call" in details:
        flat[f"{name}/no_call"] = details["no_call"]
    return flat | {f"{name}/n": n}
