"""stage=eval benchmark.multi=true: whole conversations whose tools run, scored by DE, CE, VA and success.

    python -m tltrain stage=eval benchmark=toolworld_multi model.path=outputs/pkt/TIME/model
    python -m tltrain stage=eval benchmark=toolworld_multi benchmark.size=200 benchmark.parallel=32 stage.batch_size=32

Writes `transcripts.jsonl` (one line per conversation: messages, judgement of each call, how it ended, the checker's
verdict), `transcripts.html` for reading them, and `metrics.json`: `NAME_multi/de`, `/ce`, `/va` and, if the environment
can tell, `/success` in percent, `/n` conversations, `/calls`; under `details` counts, 95 % intervals, and the same by
scenario. `stage.rule` says which answers of tools are errors (CE); in toolworld the tools say it themselves. If the
paper has numbers for the benchmark, `table.md` shows both.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tltrain import tracking
from tltrain.data.rules import named_rule
from tltrain.environments import registry
from tltrain.environments.golden import GoldenCalls
from tltrain.environments.loop import Conversation, ConversationSettings, converse
from tltrain.errors import TltrainError
from tltrain.evaluation import conversation_scores
from tltrain.evaluation.intervals import Percentage
from tltrain.evaluation.records import to_line
from tltrain.evaluation.transcription import transcript
from tltrain.evaluation.transcripts import TRANSCRIPTS
from tltrain.formats.native import Answer
from tltrain.grades import Outcome
from tltrain.runtime import runs, terminal
from tltrain.sources import Source, open_source
from tltrain.stages.evaluations import words
from tltrain.trajectory import Sample, Task
from tltrain.views import evaluation_tables, transcripts

log = logging.getLogger(__name__)


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the stage in `folder` and return what it wrote to `metrics.json`."""
    world = registry.World(cfg.benchmark)
    name = f"{world.set_name}_multi"
    metrics, conversations = evaluate(cfg, name, world)
    records = list(map(transcript, conversations))
    runs.write_lines(folder / TRANSCRIPTS, map(to_line, records))
    with runs.writing(folder / "transcripts.html") as file:
        numbers = evaluation_tables.conversation_numbers(metrics, name)
        file.writelines(transcripts.page(f"{name}: {metrics['model']}", records, numbers))
    published = evaluation_tables.published_conversations(metrics, name)
    evaluation_tables.write_published(folder, published)
    with tracking.job(cfg, folder) as tracker:
        tracker.metrics({f"eval/{key}": value for key, value in metrics.items() if key.startswith(f"{name}/")})
        tracker.artifact("evaluation", folder / TRANSCRIPTS)
    runs.finish(folder, cfg, metrics)
    evaluation_tables.show_conversations(metrics, name)
    evaluation_tables.show_published(published)
    if isolation := metrics.get("isolation"):  # in every run: a warning of the sandbox is given once a process
        said = f"Tools ran at isolation level {isolation['level']}, network {isolation['network']}"
        terminal.console.print(said, markup=False)
    terminal.console.print(f"Written to {folder}", markup=False)
    return metrics


def evaluate(cfg: DictConfig, name: str, world: registry.World) -> tuple[dict[str, Any], list[Conversation]]:
    """Return the metrics of the set `name` and its conversations."""
    if cfg.stage.predictions is not None:
        raise TltrainError("stage.predictions: conversations cannot be scored from saved answers: their tools must run")
    tasks = world.tasks(cfg.seed)[: cfg.benchmark.limit]
    if not tasks:
        raise TltrainError("the benchmark has no conversations: see benchmark.size and benchmark.limit")
    rule = named_rule(cfg, cfg.stage.rule.name)
    world.prepare()
    with answering_source(cfg, tasks, world) as source, terminal.progress("conversations", len(tasks)) as advance:
        found = converse(
            tasks,
            world.environment,
            lambda samples: read_answers(source, samples),
            ConversationSettings(cfg.benchmark.max_turns, cfg.benchmark.max_output, rule, words.ignored(cfg)),
            parallel=cfg.benchmark.parallel,
            on_end=lambda conversation: advance(),
        )
    outcomes = [call.outcome for conversation in found for call in conversation.calls]
    words.tell(cfg, outcomes.count(Outcome.WORDS_BEFORE_CALL), len(outcomes))
    metrics = {"model": source.name, "too_long": source.too_long, **source.reading(), **summary(name, found, cfg.seed)}
    if (isolation := world.isolation()) is not None:
        metrics["isolation"] = asdict(isolation)
    if "finish_reasons" in metrics:
        metrics["details"][name]["finish_reasons"] = metrics["finish_reasons"]
    return metrics, found


# --- the source of answers ------------------------------------------------------------------------------------------


@contextmanager
def answering_source(cfg: DictConfig, tasks: Sequence[Task], world: registry.World) -> Iterator[Source]:
    """Open the source that answers.

    Raises:
        TltrainError: the source is the golden calls, and the benchmark has none.
    """
    if cfg.source.name == "golden":  # the samples within a conversation have no golden calls of their own
        golden = world.golden
        if golden is None:
            raise TltrainError(f"source=golden: the conversations of {cfg.benchmark.name} have no golden calls")
        yield GoldenCalls({task.id: golden(task) for task in tasks})
    else:
        with open_source(cfg) as source:
            yield source


def read_answers(source: Source, samples: Sequence[Sample]) -> Sequence[str | Answer | None]:
    """Return what `source` answers, in a native format as it was read; None where nothing was answered."""
    texts = source(samples)
    native = getattr(source, "native_answers", ())
    if not native:
        return texts
    return [None if text is None else said or text for text, said in zip(texts, native, strict=True)]


# --- output -----------------------------------------------------------------------------------------------------------


def summary(name: str, found: Sequence[Conversation], seed: int) -> dict[str, Any]:
    """Return the flat metrics and `details`."""
    overall = conversation_scores.score(found, seed)
    flat = {f"{name}/{level}": round(metric.value, 4) for level, metric in overall.items()}
    flat |= {f"{name}/n": len(found), f"{name}/calls": sum(len(one.calls) for one in found)}
    details = {
        "all": _plain(overall),
        "by_scenario": {
            str(key): _plain(value) for key, value in conversation_scores.score_by(found, "scenario", seed).items()
        },
        "ended": conversation_scores.count_ends(found),
        "contradictions": conversation_scores.count_contradictions(found),
        "errors": conversation_scores.count_errors(found),
    }
    return flat | {"details": {name: details}}


def _plain(percentages: dict[str, Percentage]) -> dict[str, dict[str, Any]]:
    return {metric: number.to_json() for metric, number in percentages.items()}
