"""stage=eval benchmark.multi=true: whole conversations, whose tools run, scored by DE, CE, VA and success.

    python -m tltrain stage=eval benchmark=toolworld_multi model.path=outputs/pkt/TIME/model
    python -m tltrain stage=eval benchmark=toolworld_multi benchmark.size=200 benchmark.parallel=32 stage.batch_size=32

Writes `transcripts.jsonl` (a line a conversation: messages, each call judged, how it ended, what the checker says),
`transcripts.html` to read them by, and `metrics.json`: `NAME_multi/de`, `/ce`, `/va` and, where the environment can
tell, `/success` in percent, `/n` conversations, `/calls`; under `details` the counts, 95 % intervals, and the same by
scenario. Where the paper has numbers for the benchmark, `table.md` has both.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tltrain import tracking
from tltrain.environments import registry
from tltrain.environments.golden import GoldenCalls
from tltrain.environments.loop import Conversation, JudgedCall, converse
from tltrain.errors import TltrainError
from tltrain.evaluation import conversation_scores
from tltrain.evaluation.metrics import CONVERSATION
from tltrain.evaluation.scoring import Metric
from tltrain.formats import tool_errors
from tltrain.formats.tl import call_of
from tltrain.runtime import runs, terminal
from tltrain.sources import Source, open_source
from tltrain.trajectory import Call, Task
from tltrain.views import tables, transcripts

log = logging.getLogger(__name__)


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the stage into `folder`; returns what it wrote to `metrics.json`."""
    if cfg.stage.predictions is not None:
        raise TltrainError("stage.predictions: conversations cannot be scored from saved answers: their tools must run")
    kind = registry.kind_of(cfg.benchmark)
    tasks = kind.tasks(cfg.benchmark, cfg.seed)[: cfg.benchmark.limit]
    if not tasks:
        raise TltrainError("the benchmark has no conversations: see benchmark.size and benchmark.limit")
    rule = tool_errors.Rule.from_config(OmegaConf.to_container(cfg.mae[cfg.stage.rule.name]))
    make = kind.make(cfg.benchmark)
    with answerer(cfg, tasks) as source, terminal.progress("conversations", len(tasks)) as advance:
        found = converse(
            tasks,
            make,
            source,
            max_turns=cfg.benchmark.max_turns,
            parallel=cfg.benchmark.parallel,
            max_output=cfg.benchmark.max_output,
            rule=rule,
            on_end=lambda conversation: advance(),
        )
    name = f"{cfg.benchmark.name}_multi"
    metrics = {"model": source.name, "too_long": source.too_long, **source.reading(), **summary(name, found, cfg.seed)}
    records = [record(conversation) for conversation in found]
    runs.write_lines(folder / "transcripts.jsonl", (json.dumps(one, ensure_ascii=False) for one in records))
    with runs.writing(folder / "transcripts.html") as file:
        file.writelines(transcripts.page(f"{name}: {source.name}", records, numbers(metrics, name)))
    published = tables.published_multi(name, len(found))
    if published:
        title, rows = f"{name} beside the paper, %", [this_run(metrics, name), *published]
        runs.write_lines(folder / "table.md", [tables.markdown(title, WITH_PAPER, rows)])
    with tracking.job(cfg, folder) as tracker:
        tracker.metrics({f"eval/{key}": value for key, value in metrics.items() if key.startswith(f"{name}/")})
        tracker.artifact("evaluation", folder / "transcripts.jsonl")
    runs.finish(folder, cfg, metrics)
    show(metrics, name)
    if published:
        terminal.table(title, WITH_PAPER, rows)
    terminal.console.print(f"Written to {folder}", markup=False)
    return metrics


# --- who answers ----------------------------------------------------------------------------------------------------


@contextmanager
def answerer(cfg: DictConfig, tasks: Sequence[Task]) -> Iterator[Source]:
    """Who answers, ready to be asked.

    Raises:
        TltrainError: the golden calls are to answer, and there are none.
    """
    if cfg.source.name == "golden":  # samples of a conversation have no golden calls of their own
        golden = registry.kind_of(cfg.benchmark).golden
        if golden is None:
            raise TltrainError(f"source=golden: the conversations of {cfg.benchmark.name} have no golden calls")
        yield GoldenCalls({task.id: golden(cfg.benchmark, task) for task in tasks})
    else:
        with open_source(cfg) as source:
            yield source


# --- what is written --------------------------------------------------------------------------------------------------


def summary(name: str, found: Sequence[Conversation], seed: int) -> dict[str, Any]:
    """The flat metrics, and `details`."""
    overall = conversation_scores.score(found, seed)
    flat = {f"{name}/{level}": round(metric.percent, 4) for level, metric in overall.items()}
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


def _plain(metrics: dict[str, Metric]) -> dict[str, dict[str, float]]:
    return {level: {key: round(value, 4) for key, value in asdict(metric).items()} for level, metric in metrics.items()}


def record(conversation: Conversation) -> dict[str, Any]:
    """A conversation as plain values: a line of `transcripts.jsonl`."""
    return {
        "id": conversation.task.id,
        "meta": _json(dict(conversation.task.meta)),
        "instructions": conversation.instructions,
        "tools": [
            {"name": tool.name, "description": tool.description, "parameters": _json(dict(tool.parameters))}
            for tool in conversation.tools
        ],
        "messages": [
            {"role": message.role, "content": message.text}
            | ({"call": _call(call_of(message))} if message.calls else {})
            for message in conversation.messages
        ],
        "calls": [_judged(call) for call in conversation.calls],
        "ended": conversation.ended,
        "answer": conversation.answer,
        "valid": conversation_scores.is_valid(conversation),
        "outcome": _json(dict(conversation.outcome)),
    }


def _judged(call: JudgedCall) -> dict[str, Any]:
    return {
        "message": call.message,
        "turn": call.turn,
        "text": call.text,
        "call": _call(call.call),
        "de": call.de,
        "ce": call.ce,
        "kind": call.outcome.value,
        "reason": call.reason,
        "ran": call.ran,
        "error": call.error,
    }


def _call(call: Call | None) -> dict[str, Any] | None:
    return None if call is None else {"name": call.name, "arguments": dict(call.arguments)}


def _json(value: Any) -> Any:
    """What JSON can hold of what an environment said of itself."""
    return json.loads(json.dumps(value, ensure_ascii=False, default=_said, skipkeys=True))


def _said(value: object) -> str:
    try:
        return str(value)[:1000]
    except Exception:  # a class of the environment's own
        return type(value).__name__


# --- what is shown ----------------------------------------------------------------------------------------------------

WITH_PAPER = ["who", "DE", "CE", "VA"]
TITLES = {"de": "DE", "ce": "CE", "va": "VA", "success": "success"}


def numbers(metrics: dict[str, Any], name: str) -> dict[str, str]:
    """Each number that was measured, in words, with its interval."""
    found = metrics["details"][name]["all"]
    of = {"de": "calls", "ce": "calls"}
    percents = {level: _percent(found[level]) for level in CONVERSATION if level in found}
    return {f"{TITLES[level]}, % of {of.get(level, 'all')}": percent for level, percent in percents.items()} | {
        "conversations": str(metrics[f"{name}/n"]),
        "calls": str(metrics[f"{name}/calls"]),
    }


def this_run(metrics: dict[str, Any], name: str) -> list[str]:
    """This run's row beside the paper's."""
    return ["this run", *(f"{metrics[f'{name}/{level}']:.2f}" for level in CONVERSATION[:3])]


def show(metrics: dict[str, Any], name: str) -> None:
    """The tables on the terminal: the numbers overall and by scenario, how conversations ended, what was wrong."""
    found = metrics["details"][name]
    levels = [level for level in CONVERSATION if level in found["all"]]
    rows = [_row(name, found["all"], levels)]
    if len(found["by_scenario"]) > 1:
        rows += [_row(f"  {key}", value, levels) for key, value in found["by_scenario"].items()]
    terminal.table(
        "Conversations: DE and CE in % of calls, the others in % of conversations [95 % interval]",
        ["benchmark", "n", "calls", *(TITLES[level] for level in levels)],
        rows,
    )
    counts: list[tuple[str, Callable[[str], str], dict[str, int]]] = [
        ("ended by", lambda key: key, found["ended"]),
        ("DE", lambda key: key.replace("_", " "), found["contradictions"]),
        ("CE", lambda key: key.replace("_", " "), found["errors"]),
    ]
    terminal.table(
        "How they ended, and what was wrong with calls",
        ["kind", "count"],
        [[f"{what}: {word(key)}", n] for what, word, kinds in counts for key, n in kinds.items() if n],
    )


def _row(label: str, found: dict[str, dict[str, float]], levels: Sequence[str]) -> list[object]:
    return [label, found["va"]["n"], found["de"]["n"], *(_percent(found[level]) for level in levels)]


def _percent(metric: dict[str, float]) -> str:
    return f"{metric['percent']:.1f} [{metric['low']:.0f}, {metric['high']:.0f}]"
