"""Prompts for reinforcement learning: the history of each learnable call, with the call itself as the golden answer.

The histories of a trajectory's calls are prefixes of one another. A `PromptTree` therefore stores the tokens of the
longest one and the length of each of the others, so that the shared prefixes are computed only once. The template of a
native format may write an earlier turn differently from the last one; then a prompt does not begin with the previous
prompt, and a new tree begins.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tltrain.config import Packing, PromptTruncation, TooLongAnswer
from tltrain.errors import TltrainError
from tltrain.runtime.shares import share
from tltrain.tokens.encoder import AskedTurn, Encoder
from tltrain.tokens.layout import Run
from tltrain.tokens.packing import fit
from tltrain.trajectory import Call, Sample, Trajectory, abstains, actions, sequential


@dataclass(frozen=True, slots=True)
class PromptTree:
    """M prompts, each a prefix of the last one.

    Attributes:
        ids: [T] token ids of the longest prompt, which ends with the words that ask for a call.
        ends: [M] prompt m is `ids[:ends[m]]`; strictly ascending, the last is T.
        samples: [M] the question of each prompt, with its golden call.
    """

    ids: tuple[int, ...]
    ends: tuple[int, ...]
    samples: tuple[Sample, ...]


@dataclass
class PromptReport:
    """Counts of the prompts for `metrics.json`.

    Attributes:
        nothing_to_ask: trajectories without a learnable call.
        abstaining: prompts to which no call is right.
        abstaining_not_asked: those that were left out, since the reward has no price for them.
        branching: trajectories with a prompt that does not begin with the previous prompt.
        truncated, too_long: prompts that were truncated, or left out, because the prompt itself is too long.
        too_long_answer: prompts whose golden call, with its end token, has more than `max_new_tokens` tokens.
        longest_answer: tokens of the longest of these golden calls, with its end token; 0 if all fit.
    """

    trajectories: int = 0
    prompts: int = 0
    tokens: int = 0
    nothing_to_ask: int = 0
    abstaining: int = 0
    abstaining_not_asked: int = 0
    branching: int = 0
    truncated: int = 0
    too_long: int = 0
    too_long_answer: int = 0
    longest_answer: int = 0
    max_new_tokens: int = 0

    def losses(self, max_length: int) -> list[str]:
        """Describe what was left out or truncated, one line each with its share."""
        lines = []
        if self.nothing_to_ask:
            lines.append(f"{share(self.nothing_to_ask, self.trajectories)} trajectories have no call to ask for")
        if self.too_long:
            asked = self.prompts + self.too_long
            lines.append(f"{share(self.too_long, asked)} prompts are longer than {max_length} tokens and left out")
        if self.truncated:
            lines.append(f"{share(self.truncated, self.prompts)} prompts are longer than {max_length} tokens and cut")
        return lines


@dataclass(frozen=True, slots=True)
class AnswerLimit:
    """Maximum number of tokens of a sampled call, and how to treat a prompt with a longer golden call.

    `skip` leaves the prompt out, `error` stops, and `keep` uses it anyway.
    """

    tokens: int
    too_long: TooLongAnswer = TooLongAnswer.skip


NO_LIMIT = AnswerLimit(sys.maxsize)
MARGIN = 1.25
"""Factor on the length of the longest golden call, so that a slightly wordier call is not cut."""
UNKNOWN_ANSWER = 512
"""Limit for a sampled call, in tokens, if there is no golden call to measure: the value of the released script."""


def answer_limit(
    lengths: Sequence[int], given: int | None, context: int | None, max_prompt_length: int | None = None
) -> int:
    """Return the maximum number of tokens of a sampled call (`stage.max_new_tokens`).

    Args:
        lengths: tokens of the golden calls, end tokens included.
        given: the configured value. None takes the longest golden call plus a quarter, at most what fits the model: its
            context minus `max_prompt_length`, or half of the context, so that one long call does not displace all
            prompts.
        context: the model's context in tokens; None: unlimited.
    """
    if given is not None:
        return given
    wanted = math.ceil(MARGIN * max(lengths)) if lengths else UNKNOWN_ANSWER
    if context is None:
        return wanted
    room = context - max_prompt_length if max_prompt_length and max_prompt_length < context else context // 2
    return max(min(wanted, room), 1)


def questions(
    trajectory: Trajectory, several_calls: bool = False, abstaining: bool = False
) -> list[tuple[int, Sample]]:
    """Return each learnable call as (number of its action, sample with its history and the call as golden answer).

    Args:
        abstaining: also return the learnable answers to the user in words, as questions to which no call is right.
        several_calls: ask for the learnable calls of a message together, under the number of its first action, for
            formats whose messages make several calls. Otherwise each is asked for by itself, and its history includes
            the message's earlier calls with their answers.
    """
    messages = trajectory.messages if several_calls else sequential(trajectory.messages)
    numbered = list(enumerate(actions(messages)))
    asked: dict[int, list[Call]] = {}
    for _, action in numbered:
        if action.learn and action.call is not None:
            asked.setdefault(action.at, []).append(action.call)
        elif abstaining and action.learn and trajectory.tools and abstains(messages, action):
            asked[action.at] = []
    first = {action.at: number for number, action in reversed(numbered)}
    return [
        (
            first[at],
            Sample(
                f"{trajectory.id}#{first[at] + 1}",
                trajectory.tools,
                messages[:at],
                tuple(calls),
                trajectory.instructions,
                {"turn": first[at] + 1, **trajectory.meta},
                parallel=len(calls) > 1,
                abstain=not calls,
            ),
        )
        for at, calls in asked.items()
    ]


def prompt_trees(
    trajectories: Iterable[Trajectory],
    encoder: Encoder,
    *,
    packing: Packing | str,
    max_length: int,
    truncation: PromptTruncation | str,
    report: PromptReport,
    answers: AnswerLimit = NO_LIMIT,
) -> Iterator[PromptTree]:
    """Yield the trees of `trees_of_turns`; the keywords are those of `PromptSettings`."""
    settings = PromptSettings(packing, max_length, truncation, answers)
    return trees_of_turns(((item, encoder.asked(item)) for item in trajectories), encoder, settings, report)


@dataclass(frozen=True)
class PromptSettings:
    """How trajectories become prompts.

    Attributes:
        packing: `trajectory`, one tree with all prompts of a trajectory, or several if a prompt does not begin with the
            previous one; `turn`, one tree per prompt, as in the released code. If the longest prompt must be truncated,
            there is one tree per prompt in any case.
        max_length: length limit of a prompt in tokens.
        truncation: what to do with a longer prompt: drop its oldest turns (tools and query stay), keep its last
            `max_length` tokens (`left`, as in the released code), stop (`error`), or leave it out (`skip`).
        answers: how to treat a prompt whose golden call is too long to be sampled.
        abstaining: whether prompts to which no call is right are asked.
    """

    packing: Packing | str
    max_length: int
    truncation: PromptTruncation | str
    answers: AnswerLimit = NO_LIMIT
    abstaining: bool = False


def trees_of_turns(
    asked: Iterable[tuple[Trajectory, Sequence[AskedTurn]]],
    encoder: Encoder,
    settings: PromptSettings,
    report: PromptReport,
) -> Iterator[PromptTree]:
    """Yield the trajectories' prompts as trees and count them in `report`.

    Args:
        asked: each trajectory with what `encoder.asked` returns for it.

    Raises:
        TltrainError: a prompt or its golden call is too long, and truncation is not allowed or not possible.
    """
    for trajectory, found in asked:
        report.trajectories += 1
        report.nothing_to_ask += not found
        samples = dict(questions(trajectory, encoder.several_calls, abstaining=True))
        without_call = sum(sample.abstain for sample in samples.values())
        if settings.abstaining:
            report.abstaining += without_call
        else:
            report.abstaining_not_asked += without_call
        chains = _chains([(turn.prompt, samples[turn.number], turn.length) for turn in found])
        report.branching += len(chains) > 1
        for chain in chains:
            turns = [
                (runs, sample)
                for runs, sample, length in chain
                if _answerable(sample, length, settings.answers, report)
            ]
            for tree in _trees(turns, settings, report, encoder.opening):
                report.prompts += len(tree.samples)
                report.tokens += len(tree.ids)
                yield tree


def _chains(turns: Iterable[tuple[list[Run], Sample, int]]) -> list[list[tuple[list[Run], Sample, int]]]:
    """Divide prompts into chains in which each prompt begins with all tokens of the previous one.

    Args:
        turns: the runs of each prompt, its sample, and the number of tokens of its golden answer.
    """
    chains: list[list[tuple[list[Run], Sample, int]]] = []
    before: tuple[int, ...] = ()
    for turn in turns:
        ids = _ids(turn[0])
        if chains and len(ids) > len(before) and ids[: len(before)] == before:
            chains[-1].append(turn)
        else:
            chains.append([turn])
        before = ids
    return chains


def _trees(
    turns: Sequence[tuple[list[Run], Sample]], settings: PromptSettings, report: PromptReport, opening: list[int]
) -> Iterator[PromptTree]:
    """Yield the trees of a chain's prompts, each within the length limit."""
    packing, truncation = Packing(settings.packing), PromptTruncation(settings.truncation)
    if packing == "trajectory" and turns and _length(turns[-1][0]) <= settings.max_length:
        chain, samples = zip(*turns, strict=True)
        yield PromptTree(_ids(chain[-1]), tuple(map(_length, chain)), samples)
        return
    for runs, sample in turns:
        if ids := _fitted(runs, sample, settings.max_length, truncation, report, opening):
            yield PromptTree(ids, (len(ids),), (sample,))


def _answerable(sample: Sample, length: int, limit: AnswerLimit, report: PromptReport) -> bool:
    """Return whether a prompt is used: its golden call fits, or `limit.too_long` is `keep`."""
    if length <= limit.tokens:
        return True
    report.too_long_answer += 1
    report.longest_answer = max(report.longest_answer, length)
    if limit.too_long == "error":
        raise TltrainError(
            f"the golden call of {sample.id} has {length} tokens with its end token, and "
            f"stage.max_new_tokens={limit.tokens} would cut it: stage.max_new_tokens=null fits it to the data, "
            "stage.too_long_answer=skip leaves such prompts out, keep asks them as the released code does"
        )
    return limit.too_long == "keep"


def _fitted(
    chain: list[Run],
    sample: Sample,
    max_length: int,
    truncation: PromptTruncation,
    report: PromptReport,
    opening: list[int],
) -> tuple[int, ...]:
    """Return the prompt's tokens within `max_length`, `opening` included; empty if the prompt is left out."""
    if (length := _length(chain)) <= max_length:
        return _ids(chain)
    if truncation == "skip":
        report.too_long += 1
        return ()
    if truncation == "left":
        report.truncated += 1
        kept = max(max_length - len(opening), 1)  # the released tokenizer keeps the BOS token too
        return (*opening, *_ids(chain)[-kept:])[-max_length:]
    fitted = fit(chain, max_length) if truncation == "drop_oldest_turns" else None
    if fitted is None:
        without = " even without its older turns" if truncation == "drop_oldest_turns" else ""
        raise TltrainError(
            f"the prompt {sample.id} has {length} tokens and does not fit{without}: stage.max_prompt_length and the "
            f"model's context minus stage.max_new_tokens leave {max_length}; "
            "stage.truncation=skip leaves such prompts out, left cuts them as the released code does"
        )
    report.truncated += 1
    return _ids(fitted)


def _ids(chain: Iterable[Run]) -> tuple[int, ...]:
    return tuple(token for run in chain for token in run.ids)


def _length(chain: Iterable[Run]) -> int:
    return sum(len(run.ids) for run in chain)
