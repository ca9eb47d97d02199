"""stage=irm stage.rollout=conversation: the tasks of the conversations, their rewards, and their logs.

    python -m tltrain stage=irm stage.rollout=conversation reward=conversation model.path=outputs/pkt/TIME/model
    python -m tltrain stage=irm stage.rollout=conversation reward=conversation "stage.environment={name: bfcl_multi}"

Writes what stage=irm writes; `samples.jsonl` has whole conversations, `transcripts.jsonl` the same with the judgement
and reward of each call, and `transcripts.html` for reading them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from tltrain.data.rules import named_rule
from tltrain.entry import chosen_benchmarks
from tltrain.environments import registry
from tltrain.environments.loop import ConversationSettings
from tltrain.errors import TltrainError
from tltrain.evaluation.transcription import transcript
from tltrain.evaluation.transcripts import TRANSCRIPTS, Transcript
from tltrain.formats.calls import render_call
from tltrain.grades import Outcome
from tltrain.runtime import distributed, json_files, redact, runs, targets, terminal
from tltrain.stages.irm_prompts import with_answer_limit
from tltrain.tokens.prompts import answer_limit
from tltrain.training.conversation_reward import Golden, loopholes, stand_ins, usable
from tltrain.trajectory import FINISH, Call, Message, Task, Trajectory
from tltrain.views import transcripts

if TYPE_CHECKING:
    from tltrain.stages.training_runs import TrainingRun
    from tltrain.tokens.encoder import Encoder
    from tltrain.training.conversation_ppo import Judge, RewardedConversation
    from tltrain.training.conversation_rollout import Conversations, World
    from tltrain.training.reward_function import SampleRecord
    from tltrain.training.rollout import Sampling

log = logging.getLogger(__name__)

GROUP_SIZE = {"ppo": 1, "rloo": 4, "grpo": 4}
"""Conversations about each task of a step if `stage.group_size` is null."""


def is_rollout(cfg: DictConfig) -> bool:
    """Return whether the stage samples whole conversations."""
    return cfg.stage.rollout.name == "conversation"


def group_size(cfg: DictConfig) -> int:
    """Return how many conversations about each task a step has."""
    return cfg.stage.group_size or GROUP_SIZE[cfg.stage.algorithm.name]


def world(cfg: DictConfig, max_prompt_length: int | None) -> World:
    """Return the environment in which conversations are held, with its tasks.

    Raises:
        TltrainError: there is no such environment, it cannot be made here, or it has no tasks.
    """
    from tltrain.training.conversation_rollout import World

    name, node = chosen_benchmarks.environment(cfg)
    own = registry.World(node)
    with terminal.status(f"reading the tasks of {name}"):
        tasks = own.tasks(cfg.seed)[: node.limit]
        own.prepare()
    if not tasks:
        raise TltrainError(f"stage.environment, {name}: it has no tasks")
    if node.name == "toolworld" and node.split == "test":
        log.warning(
            "stage.environment.split=test: trains with the tools of benchmark=toolworld, which then says nothing"
        )
    log.info("irm: %d tasks of %s, conversations of at most %d calls a turn", len(tasks), name, node.max_turns)
    if own.golden is not None and (cut := sum(_longest(own.golden(task)) >= node.max_turns for task in tasks)):
        log.warning(
            "%d of the %d tasks cannot be solved by their golden calls: stage.environment.max_turns=%d ends a turn of "
            "the user before its answer, and counts as failure; raise it",
            *(cut, len(tasks), node.max_turns),
        )
    settings = ConversationSettings(node.max_turns, node.max_output, named_rule(cfg, _rule(cfg)))
    return World(
        *(tasks, own.environment, settings, max_prompt_length, node.parallel, cfg.stage.generation_batch_size),
        golden=own.golden or (lambda task: None),
    )


def _longest(golden: Sequence[Sequence[Call]]) -> int:
    """Return the largest number of golden calls in a turn of the user, without `finish`."""
    return max((sum(call.name != FINISH for call in turn) for turn in golden), default=0)


def _rule(cfg: DictConfig) -> str:
    """Return the rule that says which tool answers are errors; MAE's controls do not judge by text."""
    return cfg.stage.rule.name if cfg.stage.rule.name in ("paper", "strict") else "strict"


def judge(cfg: DictConfig, golden: Callable[[Task], Golden | None]) -> Judge:
    """Return the function that prices a conversation.

    Args:
        golden: returns the golden calls of a task; see `World`.
    """
    from tltrain.training import pricing

    price = pricing.configured_for_conversations(cfg.reward, cfg.stage.matching)
    if cfg.reward.get(targets.TARGET) is None:
        for line in loopholes(cfg.reward):
            log.warning("%s", line)
    return lambda conversation: price(conversation, golden(conversation.task))


def golden_lengths(own: World, encoder: Encoder) -> list[int]:
    """Return the number of tokens of each different golden call of the tasks, end token included."""
    calls = {render_call(call): call for task in own.tasks for turn in own.golden(task) or () for call in turn}
    return encoder.answer_lengths(
        Trajectory(text, stand_ins([call]), (Message("user", ""), Message.calling(call)))
        for text, call in calls.items()
    )


def limits(
    cfg: DictConfig,
    data: Sequence[Trajectory],
    encoder: Encoder,
    context: int | None,
    golden: Sequence[int] = (),
) -> tuple[int, int | None]:
    """Return the maximum number of tokens of an answer, and of the history before it.

    The first is `stage.max_new_tokens`; if that is not set, it is large enough for the calls of the data and the tasks.

    Args:
        golden: the number of tokens of the tasks' golden calls.
    """
    given, longest = cfg.stage.max_new_tokens, cfg.stage.max_prompt_length
    lengths = [] if given is not None else encoder.answer_lengths(data)
    most = answer_limit(lengths, given, context, longest)
    if max(golden, default=0) > most:
        most = answer_limit(golden, given, context, longest)
    if cut := sum(length > most for length in golden):
        log.warning(
            "%d of the %d different golden calls of the tasks do not fit stage.max_new_tokens=%d, so tasks with them "
            "cannot be solved by golden calls; raise it",
            *(cut, len(golden), most),
        )
    room = None if context is None else context - most
    if room is not None and room < 1:
        raise TltrainError(
            f"stage.max_new_tokens={most} leaves no room for a prompt: the model's context is {context} tokens"
        )
    return most, min(filter(None, (room, cfg.stage.max_prompt_length)), default=None)


def conversations(
    cfg: DictConfig, prepared: TrainingRun, sampling: Callable[[TrainingRun], Sampling]
) -> tuple[DictConfig, Conversations]:
    """Return the configuration with the answer limit, and the conversations to sample.

    Args:
        sampling: returns the sampling settings of a training run.
    """
    from tltrain.inference import generation
    from tltrain.training.conversation_ppo import BASELINES
    from tltrain.training.conversation_rollout import Conversations

    own = world(cfg, None)
    golden = golden_lengths(own, prepared.encoder)
    data = [*prepared.train, *prepared.held_out]
    most, longest = limits(cfg, data, prepared.encoder, generation.context(prepared.model), golden)
    cfg, own = with_answer_limit(cfg, most), replace(own, max_prompt_length=longest)
    stage, size = cfg.stage, group_size(cfg)
    log.info(
        "irm: %d conversations about each task of a step; an answer has at most %d tokens, a history %s",
        *(size, most, "any number" if longest is None else longest),
    )
    log.info(
        "irm: of data=%s only held-out questions and the length of calls are used; it is not learned", cfg.data.name
    )
    log.info(
        "plan: memory and time depend on how long the conversations become; stage=plan estimates the longest allowed"
    )
    return cfg, Conversations(
        own,
        sampling(replace(prepared, cfg=cfg)),
        prepared.encoder,
        size,
        stage.packing.name,
        BASELINES.get(stage.algorithm.name),
    )


def report(cfg: DictConfig, asked: Conversations) -> dict[str, Any]:
    """Return the counts for `metrics.json`."""
    name, _ = chosen_benchmarks.environment(cfg)
    return {
        "environment": name,
        "tasks": len(asked.rows),
        "group_size": asked.group_size,
        "max_new_tokens": cfg.stage.max_new_tokens,
    }


# --- logs -------------------------------------------------------------------------------------------------------------


def record(step: int, one: RewardedConversation, golden: Golden | None = None) -> SampleRecord:
    """Return a conversation as a line of `samples.jsonl`, with the golden calls of its task, one a line."""
    from tltrain.training.reward_function import SampleRecord

    said, rewards = one.conversation, {turn.message: turn.parts for turn in one.rewards}
    first = next((at for at, message in enumerate(said.messages) if message.role == "assistant"), len(said.messages))
    shown = _transcript(one)
    success = said.outcome.get("success")
    return SampleRecord(
        step=step,
        id=f"{said.task.id}#{said.task.meta.get('rollout', 0)}",
        prompt="\n".join(message.text for message in said.messages[:first]),
        sampled="\n".join(_said(shown, at, rewards.get(at, {})) for at, _ in enumerate(said.messages) if at >= first),
        golden="\n".join(render_call(call) for turn in golden or () for call in turn),
        grade={True: "success", False: "failure", None: "unknown"}[success if isinstance(success, bool) else None],
        reward=one.reward,
        reason=f"ended: {said.ended}",
        ended=said.ended == "finish",
    )


def _said(shown: Transcript, at: int, parts: Mapping[str, float]) -> str:
    """Return a message with its price by part, and what is wrong with each of its calls."""
    message = shown.messages[at]
    if message.role != "assistant":
        return f"{message.role}: {message.content}"
    calls = [call for call in shown.calls if call.message == at]
    price = ", ".join(f"{part} {price:+g}" for part, price in parts.items()) or "0"
    wrong = [call.reason for call in calls if call.de] + [
        "the tool answered with an error" for call in calls if call.ce
    ]
    texts = [call.text for call in calls] or [message.content]
    return f"assistant ({price}): {' '.join(texts)}" + "".join(f" [{each}]" for each in wrong)


def _transcript(one: RewardedConversation) -> Transcript:
    return transcript(one.conversation)


class ConversationLog:
    """Log some conversations every `every` steps, to `samples.jsonl`, `transcripts.jsonl` and a tracker.

    Args:
        samples: writes the lines of `samples.jsonl`; it says which steps are due. golden: see `World`.
    """

    def __init__(self, folder: Path, samples: Any, golden: Callable[[Task], Golden | None]) -> None:
        self.path, self.samples, self.golden = folder / TRANSCRIPTS, samples, golden

    def forget_after(self, step: int) -> None:
        """Remove the conversations of steps after `step`, which are run again after resuming."""
        self.samples.forget_after(step)
        if distributed.leads() and self.path.is_file():
            lines = self.path.read_text(encoding="utf-8", errors="replace").split("\n")
            runs.write_lines(self.path, [line for line in lines if line and _step_of(line) <= step])

    def __call__(self, step: int, rewarded: Sequence[RewardedConversation]) -> None:
        """Log some of the conversations of step `step` (from 1), if an entry is due."""
        if not self.samples.is_due(step):
            return
        shown = rewarded[: self.samples.count]
        with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            for one in shown:
                rewards = {turn.message: dict(turn.parts) for turn in one.rewards}
                line = {"step": step, "reward": one.reward, "rewards": rewards, **_transcript(one).to_json()}
                file.write(json.dumps(redact.known_in(line), ensure_ascii=False) + "\n")
        self.samples.write(step, [record(step, one, self.golden(one.conversation.task)) for one in shown])

    def page(self, title: str) -> None:
        """Write `transcripts.html` from what was logged."""
        if not distributed.leads() or not self.path.is_file():
            return
        lines = [json_files.parse(line) for line in self.path.read_text(encoding="utf-8").split("\n") if line]
        records = [Transcript.from_json(line | {"id": f"step {line['step']}: {line['id']}"}) for line in lines]
        with runs.writing(self.path.with_suffix(".html")) as file:
            file.writelines(transcripts.page(title, records, {"conversations": str(len(records))}))


def _step_of(line: str) -> float:
    try:
        return json_files.parse(line)["step"]
    except (ValueError, KeyError, TypeError):  # the line that was being written when the run was stopped
        return float("inf")


def warn_of_failures(costs: Mapping[str, float]) -> None:
    """Warn if conversations of the training were not learned from because their environment failed."""
    if costs["environment_errors"]:
        log.warning(
            "%d of the %d conversations were not learned from, since their environment failed; the warnings above and "
            "%s say why",
            *(costs["environment_errors"], costs["conversations"], "tltrain.log"),
        )


class FirstConversations:
    """Check the first rollout: stop if every environment failed or no prompt fits the model, and warn if some do not or
    almost no call can be read."""

    def __init__(self, unreadable: float) -> None:
        self.unreadable, self.seen = unreadable, False

    def __call__(self, step: int, rewarded: Sequence[RewardedConversation]) -> None:
        """Check the conversations of step `step` (from 1); only the first step counts.

        Raises:
            TltrainError: there is nothing to learn, since no environment works.
        """
        if self.seen or step > 1:
            return
        if rewarded and not any(usable(one.conversation) for one in rewarded):
            raise TltrainError(
                f"stage.environment: it failed in all {len(rewarded)} conversations of the first step, so there is "
                f"nothing to learn from; about {rewarded[0].conversation.task.id}: "
                f"{rewarded[0].conversation.outcome['error']}"
            )
        unasked = [one for one in rewarded if one.conversation.ended == "too long" and not one.sampled.turns]
        if unasked:
            what = (
                f"the first prompt of {len(unasked)} of the {len(rewarded)} conversations of the first step does not "
                f"fit the model or stage.max_prompt_length, such as that of {unasked[0].conversation.task.id}"
            )
            if all(one in unasked or not usable(one.conversation) for one in rewarded):
                raise TltrainError(f"{what}, so there is nothing to learn from; offer fewer tools, or allow more")
            log.warning("%s: nothing is learned from them", what)
        calls = [call for one in rewarded for call in one.conversation.calls]
        if not calls:
            return
        self.seen = True
        wrong = sum(call.outcome in (Outcome.FORMAT_ERROR, Outcome.WORDS_BEFORE_CALL) for call in calls)
        if wrong >= self.unreadable * len(calls):
            log.warning(
                "%d of the %d calls of the first conversations cannot be read: the model does not know the format yet "
                "and cannot learn it from these rewards; train it with stage=sft or stage=pkt first, and start from "
                "there with model.path=outputs/pkt/latest/model",
                wrong,
                len(calls),
            )
