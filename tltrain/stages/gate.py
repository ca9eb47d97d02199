"""stage=gate: train on logged conversations, and decide whether the new model is better than the one in service.

    python -m tltrain +experiment=own_logs data=openai data.path=chats.jsonl
    python -m tltrain +experiment=own_logs data=openai data.path=chats.jsonl stage.current=FOLDER stage.threshold=5

Conversations are held out (`tltrain.data.split`); their logged calls that worked, by MAE's rule, are the golden calls
of the questions. The base model, the one in service (`stage.current`), one trained with standard SFT and the new one
(MAE + PKT, with `stage.irm=true` also IRM) are asked the same questions. Stages are built as in `stage=pipeline`, each
once; only a server is asked again each time.

Writes `train.jsonl`, `held_out.jsonl` (`benchmark=openai` reads it), `gate.html`, a folder for each stage, and
`metrics.json`: `passed`, `verdict`, `exit_status` (0, or 3 if the new model does not pass), `difference`, `low`,
`high` and `p` of the metric that decides, each model's TS, PI and CF, and all comparisons under `details`.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tltrain import sources, tracking
from tltrain.data import TRAINED_ON, native, questions, trained_on, trajectories
from tltrain.data.judged import MaeReport, judge_of, judged_trajectories, log_reading, read_metrics
from tltrain.data.reading import ReadReport
from tltrain.data.rules import rule_name
from tltrain.data.split import LogSplit, opening_key, split
from tltrain.entry import checks, choices, launch
from tltrain.entry.composed import choice_of, part, resolved
from tltrain.errors import TltrainError
from tltrain.evaluation import gate
from tltrain.evaluation.metrics import SINGLE_TURN
from tltrain.evaluation.predictions import Prediction, count_grades, read_graded
from tltrain.models import trained_format
from tltrain.runtime import runs, stage_names, terminal
from tltrain.stages.evaluations.compare import check_same
from tltrain.stages.pipeline import StageBuilder
from tltrain.sweeps.stage_cache import Entry
from tltrain.trajectory import Sample, Trajectory
from tltrain.views import gate_page

log = logging.getLogger(__name__)

TRAIN, HELD_OUT = "train.jsonl", "held_out.jsonl"
ENDPOINT = "endpoint"
"""The value of `stage.current` that means the server of `source=endpoint`."""
OTHER_FORMAT = 128
"""Tokens of an answer, beside twice the limit, in another format than the base model's: the limit is measured in the
base model's, where a call may be much shorter, and an answer that is cut off counts as wrong."""
OWN = {"supervised": ("mae", "rule", "w_max", "key_tokens"), "rl": ("mae", "rule"), "eval": ("max_new_tokens",)}
"""Keys of each node that the gate sets itself."""


@dataclass(frozen=True)
class Question:
    """A held-out question, and the number of its group of conversations that depend on one another."""

    sample: Sample
    group: int


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the stage in `folder` and return what it wrote to `metrics.json`."""
    start = time.monotonic()
    check(cfg)
    read, judged = ReadReport(), MaeReport()
    items = list(terminal.track(trajectories(cfg.data, cfg.seed, read), "reading"))
    log_reading(read, folder)
    sides = split(items, cfg.stage.holdout, cfg.seed, customer=cfg.stage.customer, time=cfg.stage.time)
    drawn = len(sides.held_out)
    sides, caveats = unknown(cfg, sides)
    for line in caveats:
        log.warning("gate: %s", line)
    held_out = list(judged_trajectories(sides.held_out, judge_of(judging(cfg)), judged))
    asked, limit = questions_of(cfg, held_out, sides.groups)
    write(folder, sides, asked)
    with closing(StageBuilder(cfg, folder, place_of)) as builder:
        results = build(cfg, builder, limit)
        costs = [asdict(cost) for cost in builder.costs]
    metrics = {
        **judge(cfg, results, [question.group for question in asked]),
        "caveats": caveats,
        "new": cfg.stage.new,
        "held_out_conversations": len(sides.held_out),
        "held_out_but_known": drawn - len(sides.held_out),
        "training_conversations": len(sides.train),
        "questions": len(asked),
        "rule": rule_name(cfg),
        "calls_not_asked": judged.calls - judged.kept,
        "max_new_tokens": limit,
        **read_metrics(read),
        "stages": costs,
        "seconds": round(time.monotonic() - start, 1),
        "seed": cfg.seed,
    }
    with runs.writing(folder / "gate.html") as file:
        file.write(gate_page.page(metrics, [question.sample for question in asked], results, cfg.stage.flips))
    with tracking.job(cfg, folder) as tracker:
        tracker.metrics({f"gate/{key}": value for key, value in metrics.items() if isinstance(value, int | float)})
    runs.finish(folder, cfg, metrics)
    gate_page.show(metrics, folder)
    return metrics


def place_of(node: str) -> stage_names.Node:
    """Return the place of a stage's keys in the gate's configuration."""
    return stage_names.Node("gate", node, OWN[node])


# --- before anything is trained --------------------------------------------------------------------------------------


def check(cfg: DictConfig) -> None:
    """Check all parts before the first one runs.

    Raises:
        TltrainError: a part is invalid, or a model that is to be asked is missing.
    """
    stage = cfg.stage
    if (stage.current == ENDPOINT) != (cfg.source.name == ENDPOINT):
        raise TltrainError(
            "stage.current=endpoint and source=endpoint belong together: source.url and source.model say which server "
            f"is in service, found stage.current={stage.current} and source={cfg.source.name}"
        )
    for key in ("current", "new"):
        if stage[key] is not None and stage[key] != ENDPOINT:
            checks.check_model_path(stage[key], f"stage.{key}")
    if stage.current == ENDPOINT:
        sources.check(part(cfg, resolved(stage.eval)))
    for node, configured in (
        ("supervised", supervised(cfg, mae=True)),
        ("rl", resolved(stage.rl)),
        ("eval", resolved(stage.eval)),
    ):
        with stage_names.named(place_of(node)):
            checks.check(part(cfg, configured))


def unknown(cfg: DictConfig, sides: LogSplit) -> tuple[LogSplit, list[str]]:
    """Leave out the held-out conversations that the new model knows from its training, by the record in its folder.

    What the others know only makes the gate stricter with the new model, so it is only told.

    Returns:
        the sides, and a line for each thing that limits what the verdict says.

    Raises:
        TltrainError: the new model knows all of them.
    """
    stage, caveats = cfg.stage, []
    origin = ("stage.new", stage.new) if stage.new is not None else ("model.path", cfg.model.path)
    others = [("stage.current", stage.current), *([("model.path", cfg.model.path)] if stage.new is not None else [])]
    if stage.new is not None and not (Path(stage.new) / TRAINED_ON).is_file():
        caveats.append(
            f"stage.new={stage.new} has no {TRAINED_ON}, so nobody can tell whether it was trained on the held-out "
            "conversations; if it was, the verdict says nothing"
        )
    of = f"of the {len(sides.held_out)} held-out conversations"
    for key, path in others:
        if count := sum(known(path, sides.held_out)):
            caveats.append(f"{key}={path} was trained on {count} {of}, so the gate is strict with the new model")
    knows = known(origin[1], sides.held_out)
    named = "=".join(map(str, origin))
    if all(knows):
        raise TltrainError(
            f"{named} was trained on all {len(knows)} held-out conversations, so its answers would show nothing: give "
            "logs that it was not trained on, or leave the key out to train a new model on the other conversations"
        )
    if any(knows):
        caveats.append(f"{named} was trained on {sum(knows)} {of}, which are therefore not asked about")
    left = [at for at, knew in enumerate(knows) if not knew]
    held_out = [sides.held_out[at] for at in left]
    return replace(sides, held_out=held_out, groups=[sides.groups[at] for at in left]), caveats


def known(path: str | None, items: Sequence[Trajectory]) -> list[bool]:
    """Return for each conversation whether the model in a folder was trained on it; False without a record."""
    keys = frozenset() if path is None or path == ENDPOINT else frozenset(trained_on(path))
    return [opening_key(item) in keys for item in items]


def judging(cfg: DictConfig) -> DictConfig:
    """Return the configuration that judges calls: MAE says which are golden."""
    return part(cfg, {"name": "mae", "rule": cfg.stage.rule, "mae": True}, "mae")


def questions_of(cfg: DictConfig, held_out: Sequence[Trajectory], groups: Sequence[int]) -> tuple[list[Question], int]:
    """Return the questions, each once, and the maximum number of tokens of an answer.

    Args:
        held_out: the conversations, judged. groups: the number of each one's group.

    Raises:
        TltrainError: no held-out conversation has a call that worked.
    """
    from tltrain.models import encoders, loading
    from tltrain.tokens import prompts

    name = loading.resolve(
        cfg.model,
        cfg.cache.dir,
        lambda: loading.corpus(list(trajectories(cfg.data, cfg.seed, ReadReport())), cfg.format),
        cfg.format,
    )
    encoder = encoders.load_encoder(name, cfg.model, cfg.format)
    found: dict[str, Question] = {}
    for item, group in zip(held_out, groups, strict=True):
        for _, sample in prompts.questions(item, encoder.several_calls):
            key = json.dumps(questions.record(sample) | {"id": ""}, sort_keys=True)
            found.setdefault(key, Question(sample, group))
    if not found:
        raise TltrainError(
            f"none of the {len(held_out)} held-out conversations has a call that worked: stage=check shows the calls "
            "that did not; stage.holdout=0.5 holds more out"
        )
    return list(found.values()), prompts.answer_limit(encoder.answer_lengths(held_out), cfg.stage.max_new_tokens, None)


def write(folder: Path, sides: LogSplit, asked: Sequence[Question]) -> None:
    """Write both sides. The conversations to train on have no verdict of MAE: each training run makes its own."""
    runs.write_lines(folder / TRAIN, map(native.dumps, sides.train), data=True)
    lines = (native.json_line(questions.record(each.sample), each.sample.id) for each in asked)
    runs.write_lines(folder / HELD_OUT, lines, data=True)
    log.info(
        "gate: %d conversations to train on; %d held out, with %d questions",
        *(len(sides.train), len(sides.held_out), len(asked)),
    )


# --- training and asking ----------------------------------------------------------------------------------------------


def supervised(cfg: DictConfig, mae: bool) -> dict[str, Any]:
    """Return the supervised stage's configuration: MAE and PKT together, or neither."""
    stage = resolved(cfg.stage.supervised) | {"mae": mae}
    return stage if mae else stage | {"name": "sft", "w_max": None, "key_tokens": "paper"}


def build(cfg: DictConfig, builder: StageBuilder, limit: int) -> dict[str, list[Prediction]]:
    """Ask the models, train those that are not there yet, and return each one's answers, the new one's last.

    Models that may fail to answer are asked before anything is trained.
    """
    folder = builder.folder
    on_logs = cfg.copy()
    on_logs.data = choices.bound(
        "data",
        OmegaConf.create(
            {
                "name": "tltrain",
                "path": str(folder / TRAIN),
                "holdout": cfg.data.holdout,
                "learn_replies": cfg.data.get("learn_replies", False),
            }
        ),
    )
    ask = Asking(on_logs, builder, limit)
    if cfg.stage.current is not None:
        ask("current", cfg.stage.current)
    ask("base", cfg.model.path)
    if cfg.stage.new is not None:
        ask("new", cfg.stage.new)
        return ask.results
    if cfg.stage.sft:
        sft = builder.stage("model_sft", part(on_logs, supervised(cfg, mae=False)), resumable=True)
        ask("sft", str(sft.folder / "model"), after=[sft])
    model = builder.stage("model_pkt", part(on_logs, supervised(cfg, mae=True)), resumable=True)
    if cfg.stage.irm:
        trained = on_logs.copy()
        trained.model.path = str(model.folder / "model")
        model = builder.stage("model_irm", part(trained, resolved(cfg.stage.rl)), after=[model], resumable=True)
    ask("new", str(model.folder / "model"), after=[model])
    return ask.results


class Asking:
    """Asks models the held-out questions; `results` has their graded answers by name."""

    def __init__(self, cfg: DictConfig, builder: StageBuilder, limit: int) -> None:
        self.cfg, self.builder = cfg, builder
        self.stage = resolved(cfg.stage.eval) | {"max_new_tokens": limit}
        self.wider = limit if cfg.stage.max_new_tokens is not None else 2 * limit + OTHER_FORMAT
        self.results: dict[str, list[Prediction]] = {}

    def __call__(self, name: str, path: str | None, after: Sequence[Entry] = ()) -> None:
        """Ask a model; `path` is its folder or hub id, `ENDPOINT`, or None for the base model."""
        own = part(self.cfg, self.stage)
        file = {"name": "openai", "path": str(self.builder.folder / HELD_OUT)}
        own.benchmark = choices.bound("benchmark", OmegaConf.create(file), choice="openai")
        place = self.builder.folder / f"eval_{name}"
        if path == ENDPOINT:
            own.stage.max_new_tokens = self.wider
            own.source.cache = False  # an answer from before the server's model was changed would mislead
            if place.is_symlink():  # to an entry of the cache, which must not be written to
                place.unlink()
            place.mkdir(exist_ok=True)
            terminal.errors.rule(place.name, align="left")
            with stage_names.named(place_of("eval")):
                launch.run_stage(own, place)
        else:
            own.source = choice_of("source", "model")
            own.model.path = path
            known = None if path is None else trained_format.read(path)
            if known is not None and known != str(own.format.name):
                own.format = choice_of("format", known)
                own.stage.max_new_tokens = self.wider
            place = self.builder.stage(place.name, own, after=after).folder
        found = [of_each_call(one) for one in read_graded(place, f"stage.{name}")]
        for other, answers in self.results.items():
            check_same([self.builder.folder / f"eval_{other}", place], answers, found)
        self.results[name] = found


def of_each_call(found: Prediction) -> Prediction:
    """Return an answer of one call graded as an answer that may make several calls is: as a share of the golden calls.

    Otherwise a model in the TL format would have a whole point for a question of two calls by making one of them.
    """
    count = len(found.goldens)
    if found.calls or count < 2:
        return found
    return replace(found, scores={level: float(value) / count for level, value in found.scores.items()})


# --- the verdict ------------------------------------------------------------------------------------------------------


def judge(cfg: DictConfig, results: Mapping[str, Sequence[Prediction]], groups: Sequence[int]) -> dict[str, Any]:
    """Return the verdict, each model's numbers, and the new model's lead over each of the others."""
    reference = "current" if "current" in results else "base"
    scores = {
        name: {level: [float(one.scores[level]) for one in answers] for level in SINGLE_TURN}
        for name, answers in results.items()
    }
    models: dict[str, Any] = {
        name: {
            "levels": {level: gate.share(values, groups, cfg.seed).to_json() for level, values in levels.items()},
            "rows": count_grades(results[name]),
        }
        for name, levels in scores.items()
    }
    leads: dict[str, Any] = {}
    decisive = None
    for name in results:
        if name == "new":
            continue
        leads[name] = {}
        for level in SINGLE_TURN:
            asked = cfg.stage.threshold if (name, level) == (reference, cfg.stage.metric.name) else 0.0
            found = gate.compare(scores[name][level], scores["new"][level], groups, asked, cfg.seed)
            leads[name][level] = found.difference.to_json() | {"p": round(found.p, 4), "verdict": found.verdict.value}
            if (name, level) == (reference, cfg.stage.metric.name):
                decisive = found
    assert decisive is not None  # the new model is compared with each of the others in each level
    passed = decisive.passes(cfg.stage.certain)
    return {
        "passed": passed,
        "exit_status": 0 if passed else gate.FAILED,
        "verdict": gate_page.verdict(decisive, passed, reference, cfg.stage.metric.name, cfg.stage.certain),
        "too_few": gate.too_few(decisive),
        "reference": reference,
        "metric": cfg.stage.metric.name,
        "threshold": cfg.stage.threshold,
        "difference": round(decisive.difference.value, 4),
        "low": round(decisive.difference.low, 4),
        "high": round(decisive.difference.high, 4),
        "p": round(decisive.p, 4),
        "conversations": decisive.conversations,
        **{
            f"{name}/{level}": numbers["value"]
            for name, model in models.items()
            for level, numbers in model["levels"].items()
        },
        "details": {"models": models, "leads": leads},
    }
