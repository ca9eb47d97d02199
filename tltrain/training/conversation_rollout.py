"""Rollouts of whole conversations: the policy's sampled calls run in an environment, and it reads the tools' answers.

All conversations of a step are held at the same time (`environments.loop.converse`). In each round they are answered in
one call of continuous batching, which continues from each conversation's own key-value cache. A draw depends only on
the seed, the task, the number of the conversation about it, the turn and the token, so a rollout repeats exactly,
whatever else is sampled with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from transformers import PreTrainedModel

from tltrain.environments import Environment
from tltrain.environments.loop import Conversation, ConversationSettings, converse
from tltrain.formats.native import Answer
from tltrain.inference import continuous_batching, decoding_attention, generation, kv_cache
from tltrain.inference.continuous_batching import Decoding, Prefill
from tltrain.inference.prefix_cache import PrefixCache
from tltrain.inference.token_choice import DrawnTokens
from tltrain.tokens.encoder import Encoder
from tltrain.tokens.layout import Branch
from tltrain.tokens.native import NativeEncoder
from tltrain.training.conversation_reward import Golden
from tltrain.training.rollout import Sampling, Timed, learned_tokens, untimed
from tltrain.trajectory import Sample, Task

ROLLOUT = "rollout"
"""Key of a task's `meta`: the number of the conversation among those about the task in a step, from 0."""


class NotFinite(ValueError):
    """The policy's probabilities are not finite; the message says where."""


@dataclass(frozen=True)
class World:
    """The environment in which conversations are held, with their tasks and limits.

    Attributes:
        tasks: the tasks to choose from. make: returns a new environment; each conversation has its own.
        settings: limits of a conversation. max_prompt_length: longest history in tokens; a longer one ends the
            conversation.
        parallel: maximum number of conversations at the same time; None: all. batch_size: maximum number of answers
            sampled at the same time; None: those of all conversations.
        golden: returns the golden calls of a task, by turn of the user; None if they are not known.
    """

    tasks: Sequence[Task]
    make: Callable[[], Environment]
    settings: ConversationSettings
    max_prompt_length: int | None = None
    parallel: int | None = None
    batch_size: int | None = None
    golden: Callable[[Task], Golden | None] = lambda task: None


@dataclass(frozen=True)
class Conversations:
    """The conversations of a training run: where they are held, and how they are sampled, grouped and packed.

    Attributes:
        group_size: conversations about each task of a step. packing: with `trajectory`, a row holds all conversations
            about a task; with `turn`, one answer with its history.
        baseline: what conversations are compared with instead of a critic's values; None: PPO.
    """

    world: World
    sampling: Sampling
    encoder: Encoder
    group_size: int = 1
    packing: str = "trajectory"
    baseline: str | None = None

    @property
    def rows(self) -> Sequence[Task]:
        """The items from which training draws; each becomes a row of a batch."""
        return self.world.tasks

    @property
    def branching(self) -> bool:
        """Whether the update may have trees with branches; the sampled answers decide whether it does."""
        return self.packing == "trajectory"


@dataclass(frozen=True, slots=True)
class SampledTurn:
    """One answer of the policy in a conversation.

    Attributes:
        sample: what was asked. prompt: [T] its tokens. response: [R] the sampled tokens, with the end token if the
            policy generated it. logprobs: [R] of these tokens when they were sampled.
    """

    sample: Sample
    prompt: Sequence[int]
    response: Sequence[int]
    logprobs: Sequence[float]

    @property
    def message(self) -> int:
        """The position of the answer among the conversation's messages."""
        return len(self.sample.messages)


@dataclass(frozen=True, slots=True)
class SampledConversation:
    """A conversation with the policy's answers in it; none if the first prompt was already too long."""

    conversation: Conversation
    turns: tuple[SampledTurn, ...]


@dataclass
class Player:
    """The policy as the function `answer` of `converse`; it keeps the answers that it sampled.

    Attributes:
        seed: of the draws.
        memory: prefix cache; None recomputes every history.
        turns: the answers so far, by task id and number of the conversation.
    """

    model: PreTrainedModel
    asked: Conversations
    seed: int
    batch_size: int
    memory: PrefixCache | None = field(default_factory=PrefixCache)
    turns: dict[tuple[str, int], list[SampledTurn]] = field(default_factory=dict)
    prefill: Prefill = field(default_factory=Prefill)

    def __call__(self, samples: Sequence[Sample]) -> list[str | Answer | None]:
        """Return the policy's next answer in each conversation; None if its history is too long."""
        said: list[str | Answer | None] = [None] * len(samples)
        prompts = [self.asked.encoder.prompt(sample) for sample in samples]
        asked = [number for number, prompt in enumerate(prompts) if self._fits(prompt)]
        own = [self.turns.setdefault(_key(samples[number]), []) for number in asked]
        names = [
            "/".join(map(str, (*_key(samples[number]), len(turns)))) for number, turns in zip(asked, own, strict=True)
        ]
        choice = DrawnTokens(
            [samples[number] for number in asked],
            self.asked.sampling.offered,
            self.asked.sampling.temperature or 0.0,
            self.seed,
            names,
        )
        responses = self._responses([prompts[number] for number in asked], choice)
        for number, turns, response, drawn in zip(asked, own, responses, choice.logprobs(), strict=True):
            logprobs = drawn[: len(response)]
            if not all(map(math.isfinite, logprobs)):
                raise NotFinite(f"the policy's probabilities are not finite at {samples[number].id}")
            turns.append(SampledTurn(samples[number], prompts[number], response, logprobs))
            said[number] = self._read(response, prompts[number], samples[number])
        return said

    def _fits(self, prompt: Sequence[int]) -> bool:
        longest = self.asked.world.max_prompt_length
        short = longest is None or len(prompt) <= longest
        return short and generation.fits(self.model, len(prompt), self.asked.sampling.max_new_tokens)

    def _read(self, response: Sequence[int], prompt: Sequence[int], sample: Sample) -> str | Answer:
        """Return the answer as evaluation reads it."""
        if isinstance(self.asked.encoder, NativeEncoder):
            return self.asked.encoder.read(response, prompt, sample.tools)
        return self.asked.encoder.text(response)

    @torch.inference_mode()
    def _responses(self, prompts: Sequence[Sequence[int]], choice: DrawnTokens) -> list[list[int]]:
        if not prompts:
            return []
        sampling = self.asked.sampling
        decoding = Decoding(
            sampling.max_new_tokens,
            sampling.eos_id,
            sampling.pad_id,
            ended=lambda tokens: False,
            choose=choice,
            other_ends=sampling.other_ends,
        )
        answering: Callable[..., Iterator[tuple[int, list[int]]]]
        answering = partial(continuous_batching.answers, memory=self.memory)
        if kv_cache.empty(self.model) is None:  # layers that do not keep every key and value
            answering = generation.in_batches
        found: list[list[int]] = [[] for _ in prompts]
        with generation.ignore_generation_config(self.model), decoding_attention.enabled(self.model):
            for number, tokens in answering(self.model, prompts, decoding, self.batch_size, self.prefill):
                found[number] = decoding.until_end(tokens)
        return found


def hold(
    model: PreTrainedModel,
    asked: Conversations,
    tasks: Sequence[Task],
    seed: int,
    *,
    earlier: Sequence[int] | None = None,
    carry_over: bool = True,
    timed: Timed = untimed,
) -> list[list[SampledConversation]]:
    """Hold `asked.group_size` conversations about each task; return them by task.

    Args:
        seed: of the draws; the same seed repeats the rollout.
        earlier: how often each task occurs before in the step, on any process; None: `tasks` are those of the step.
        carry_over: continue from the key-value caches of the previous turns.
        timed: measures the part `sampling`, the time in which the policy answers; tools and users take the rest.
    """
    world, group_size = asked.world, asked.group_size
    numbered = [
        replace(task, meta={**task.meta, ROLLOUT: number})
        for task, first in zip(tasks, earlier or _repetitions([task.id for task in tasks]), strict=True)
        for number in range(first * group_size, (first + 1) * group_size)
    ]
    parallel = world.parallel or max(len(numbered), 1)
    memory = PrefixCache() if carry_over else None
    player = Player(model, asked, seed, world.batch_size or parallel, memory)

    def answer(samples: Sequence[Sample]) -> list[str | Answer | None]:
        with timed("sampling"):
            return player(samples)

    held = converse(numbered, world.make, answer, world.settings, parallel=parallel)
    found = [SampledConversation(one, tuple(player.turns.get(_key(one.task), ()))) for one in held]
    return [found[at : at + group_size] for at in range(0, len(found), group_size)]


def _key(asked: Sample | Task) -> tuple[str, int]:
    """Return the conversation that a sample or a task belongs to: the task's id and a number."""
    identity = asked.id if isinstance(asked, Task) else asked.id.rpartition("#")[0]
    return identity, asked.meta[ROLLOUT]


def repetitions(steps: Sequence[Sequence[Sequence[str]]]) -> list[list[int]]:
    """Return for each task of each process how often it occurs before in the step, as one process would take them.

    Conversations about one task are told apart by their numbers, on whichever processes they are held: with the same
    number they would have the same draws, and one would be a copy of the other.

    Args:
        steps: the ids of the tasks by process and micro-batch; all processes have as many micro-batches.
    """
    order = [
        (rank, identity)
        for micro_batches in zip(*steps, strict=True)
        for rank, identities in enumerate(micro_batches)
        for identity in identities
    ]
    found: list[list[int]] = [[] for _ in steps]
    for (rank, _), count in zip(order, _repetitions([identity for _, identity in order]), strict=True):
        found[rank].append(count)
    return found


def _repetitions(identities: Sequence[str]) -> list[int]:
    """Return for each id how often it occurs before."""
    counts: dict[str, int] = {}
    found = []
    for identity in identities:
        found.append(counts.get(identity, 0))
        counts[identity] = found[-1] + 1
    return found


def branches(
    turns: Sequence[SampledTurn], learned: Sequence[Sequence[bool] | None] | None = None, before: Branch | None = None
) -> list[Branch]:
    """Return the answers of a conversation as branches, each sharing its common prefix with the one before.

    Args:
        learned: which tokens of each answer are learned; None: all.
        before: the last branch of another conversation in the same row.
    """
    found = [] if before is None else [before]
    for number, turn in enumerate(turns):
        earlier = [*found[-1].prompt, *found[-1].response[:-1]] if found else []
        shared = common_prefix(earlier, turn.prompt[:-1])
        found.append(Branch(turn.prompt, turn.response, shared, None if learned is None else learned[number]))
    return found if before is None else found[1:]


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the length of the common prefix."""
    length = min(len(one), len(other))
    return next((at for at in range(length) if one[at] != other[at]), length)


def learned_flags(encoder: Encoder, turn: SampledTurn, learn_thoughts: bool) -> list[bool] | None:
    """Return whether each token of an answer is learned; None: all are."""
    return None if learn_thoughts else learned_tokens(encoder, turn.prompt, turn.response)
