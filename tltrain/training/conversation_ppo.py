"""IRM for whole conversations: PPO, or the comparison of conversations about the same task, over the policy's turns.

A step holds conversations (`conversation_rollout`), prices them (`conversation_reward`) and trains on the policy's
answers. Every token of an answer has the same advantage, that of its turn:

    PPO          reward_t = price of turn t - kl * sum over its tokens of (logprob - reference)
                 value_t  = the critic's value before the first learned token of turn t
                 advantages and returns by generalized advantage estimation over turns (`credit.turn_advantages`);
                 the critic learns the return of a turn before each of its tokens
    RLOO, GRPO   the sum of prices, compared with those of the group (`credit.group_advantages`), and the sum of KL
                 terms, compared with the mean of the others; no critic. GRPO's standard deviation is that of the
                 prices alone: where these are equal, KL terms of any size would otherwise become advantages near 1

What users and tools say is context: no loss, no KL and no value is computed there.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import compress, pairwise
from typing import Any

import torch
from transformers import PreTrainedModel

from tltrain.environments.loop import Conversation
from tltrain.errors import TltrainError
from tltrain.runtime import distributed
from tltrain.tokens.encoder import Encoder
from tltrain.tokens.layout import Branch
from tltrain.tokens.prompts import PromptTree
from tltrain.training import conversation_rollout, credit, engines, rollout, update_batches
from tltrain.training.conversation_reward import TurnReward, part_sums, usable
from tltrain.training.conversation_rollout import Conversations, SampledConversation, SampledTurn
from tltrain.training.ppo import PPOTrainer, Settings
from tltrain.training.rollout_metrics import DOCUMENTATION_ERRORS, ConversationMetrics
from tltrain.trajectory import Task

BASELINES = {"rloo": "leave_one_out", "grpo": "standardized"}
"""`stage.algorithm` -> what a conversation's return is compared with (`credit.group_advantages`)."""

Judge = Callable[[Conversation], tuple[TurnReward, ...]]
"""Prices a conversation: a reward for each assistant message."""


@dataclass(frozen=True, slots=True)
class RewardedConversation:
    """A sampled conversation with the reward of each of its turns."""

    sampled: SampledConversation
    rewards: tuple[TurnReward, ...]

    @property
    def reward(self) -> float:
        """The sum over all turns."""
        return math.fsum(turn.reward for turn in self.rewards)

    @property
    def conversation(self) -> Conversation:
        """The conversation without rewards."""
        return self.sampled.conversation


@dataclass(frozen=True, slots=True)
class RewardedTurn:
    """An answer that is learned, with its reward.

    Attributes:
        learned: which of its tokens are learned; None: all. conversation: the number of its conversation.
    """

    turn: SampledTurn
    reward: float
    learned: list[bool] | None
    conversation: int


def mean_return(
    model: PreTrainedModel,
    asked: Conversations,
    judge: Judge,
    *,
    bf16: bool,
    seed: int,
    settings: Settings,
    tasks: int = 8,
) -> float:
    """Return the mean over turns of the return from the turn on, as the critic's initial value.

    Args:
        settings: the discount and the clip range of the training.
        tasks: number of conversations to hold, about tasks spread evenly over all of them.
    """
    chosen = asked.rows[:: max(len(asked.rows) // tasks, 1)][:tasks]
    try:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
            held = conversation_rollout.hold(model.eval(), replace(asked, group_size=1), chosen, seed)
    except conversation_rollout.NotFinite as error:
        raise TltrainError(f"{error} before training: another model.path, or hardware.bf16=false") from error
    found: list[float] = []
    for own in held:
        for one in filter(lambda one: usable(one.conversation), own):
            rewards = torch.tensor([turn.reward for turn in judge(one.conversation)])
            rewards = rewards.clamp(-settings.reward_clip, settings.reward_clip)
            found += [credit.discounted_return(rewards[at:], settings.gamma).item() for at in range(len(rewards))]
    return sum(found) / len(found) if found else 0.0


def rewarded_turns(
    one: RewardedConversation, encoder: Encoder, learn_thoughts: bool, conversation: int
) -> list[RewardedTurn]:
    """Return the turns of a conversation that have a token to learn, with their rewards.

    The reward of a turn without one is added to the turn before it; before the first turn with one it is left out,
    since no token that is learned led to it.
    """
    rewards = {turn.message: turn.reward for turn in one.rewards}
    found: list[RewardedTurn] = []
    for turn in one.sampled.turns:
        flags = conversation_rollout.learned_flags(encoder, turn, learn_thoughts)
        reward = rewards.get(turn.message, 0.0)
        if flags is None or any(flags):
            found.append(RewardedTurn(turn, reward, flags, conversation))
        elif found:
            last = found.pop()
            found.append(RewardedTurn(last.turn, last.reward + reward, last.learned, conversation))
    return found


def rows_of(tasks: Sequence[Sequence[Sequence[RewardedTurn]]], packing: str) -> list[list[Branch]]:
    """Return the rows of a batch: one per task with its conversations, or one per answer.

    Args:
        tasks: for each task its conversations, as turns that are learned.
    """
    if packing == "turn":
        answers = [one for own in tasks for conversation in own for one in conversation]
        return [[Branch(one.turn.prompt, one.turn.response, 0, one.learned)] for one in answers]
    rows = []
    for own in tasks:
        row: list[Branch] = []
        for conversation in own:
            turns, flags = [one.turn for one in conversation], [one.learned for one in conversation]
            row += conversation_rollout.branches(turns, flags, row[-1] if row else None)
        rows.append(row)
    return [row for row in rows if row]


def spread(
    rewards: torch.Tensor, values: torch.Tensor, conversations: torch.Tensor, *, gamma: float, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return advantages and returns of the turns of several conversations, [M] each.

    Args:
        rewards, values: [M], of each turn. conversations: [M], the number of each turn's conversation; the turns of a
            conversation are adjacent and in order.
    """
    advantages, returns = torch.zeros_like(rewards), torch.zeros_like(rewards)
    for own in _each(conversations):
        advantages[own], returns[own] = credit.turn_advantages(rewards[own], values[own], gamma, lam)
    return advantages, returns


def compared(rewards: torch.Tensor, conversations: torch.Tensor, groups: torch.Tensor, baseline: str) -> torch.Tensor:
    """Return the advantage of each turn, [M]: that of its conversation over the others of its group.

    Args:
        rewards: [M], of each turn. conversations, groups: [M], the numbers of each turn's conversation and of its task.
    """
    parts = _each(conversations)
    sums = torch.stack([rewards[own].sum() for own in parts]) if parts else rewards
    first = torch.stack([groups[own][0] for own in parts]) if parts else groups
    advantages = torch.zeros_like(rewards)
    for own, advantage in zip(parts, credit.group_advantages(sums, first, baseline), strict=True):
        advantages[own] = advantage
    return advantages


def _each(conversations: torch.Tensor) -> list[slice]:
    """Return the slice of turns of each conversation."""
    counts = torch.unique_consecutive(conversations, return_counts=True)[1].tolist()
    ends = torch.tensor([0, *counts]).cumsum(0).tolist()
    return [slice(start, end) for start, end in pairwise(ends)]


class ConversationPPO(PPOTrainer):
    """The trainer; a row of its dataset is a task.

    It logs what `PPOTrainer` logs, with each answer of the policy as a sample, and about conversations: `reward` and
    its parts `reward/PART` (of those that are learned), `success` (share of those whose outcome is known), `turns`,
    `conversation/END` (shares) and `conversations` (their number); also `error/KIND` and `trailing_text` (shares of
    calls) and `seconds_sampling` (a part of generation).
    """

    metrics = ConversationMetrics
    prompts: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.counts |= {"conversations": 0, "environment_errors": 0}

    def _roll_out(self, batches: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
        """Hold and price conversations about the step's tasks, and return a micro-batch for each of `batches`."""
        step = self.state.global_step + 1
        tasks = [task for batch in batches for task in batch]
        everywhere = distributed.gather([[task.id for task in batch] for batch in batches])
        earlier = conversation_rollout.repetitions(everywhere)[distributed.rank()]
        held = self._hold(tasks, rollout.derive_seed(self.args.seed, step), earlier)
        self._sums.add(seconds_generation=self._lap())
        rewarded = [[RewardedConversation(one, self.judge(one.conversation)) for one in own] for own in held]
        everything = [one for own in rewarded for one in own]
        for one in everything:
            if not math.isfinite(one.reward):
                which = f"the reward of {one.conversation.task.id} is {one.reward}"
                raise self._not_finite(which, step, TltrainError)
        if self.is_world_process_zero():
            self.on_samples(step, everything)
        self._count(everything)
        micro_batches, start = [], 0
        for batch in batches:
            micro_batches.append(self._micro_batch(rewarded[start : start + len(batch)]))
            start += len(batch)
        self._sums.add(seconds_scoring=self._lap())
        return micro_batches

    def _hold(self, tasks: Sequence[Task], seed: int, earlier: Sequence[int]) -> list[list[SampledConversation]]:
        with engines.gathered_for_generation(self) as unwrapped:
            policy = unwrapped.policy.eval()
            if self.args.bf16 and policy.dtype != torch.bfloat16:
                policy = self._sampling_copy.synced_with(policy)
            try:
                return conversation_rollout.hold(policy, self.prompts, tasks, seed, earlier=earlier, timed=self._timed)
            except conversation_rollout.NotFinite as error:
                raise self._not_finite(str(error), self.state.global_step + 1) from error

    def _micro_batch(self, rewarded: Sequence[Sequence[RewardedConversation]]) -> dict[str, Any]:
        own = self.prompts
        tasks: list[list[list[RewardedTurn]]] = []
        groups: list[int] = []
        for number, group in enumerate(rewarded):
            tasks.append([])
            for one in group:
                if usable(one.conversation):
                    turns = rewarded_turns(one, own.encoder, self.sampling.learn_thoughts, len(groups))
                    tasks[-1].append(turns)
                    groups.append(number)
        turns = [one for task in tasks for conversation in task for one in conversation]
        rows = rows_of(tasks, own.packing)
        multiple = None if all(map(update_batches.is_chain, rows)) else self._tree_multiple
        scores = [one.reward for one in turns]
        laid_out = update_batches.batch_of(rows, scores, self.sampling.pad_id, multiple)
        if self.sampling.offered is not None:
            trees = [PromptTree(tuple(one.turn.prompt), (len(one.turn.prompt),), (one.turn.sample,)) for one in turns]
            flags = None if self.sampling.learn_thoughts else [[one.learned or []] for one in turns]
            responses = [[one.turn.response] for one in turns]
            laid_out |= update_batches.allowed_tokens(self.sampling.offered, trees, responses, laid_out["index"], flags)
        drawn = [list(compress(one.turn.logprobs, one.learned or [True] * len(one.turn.response))) for one in turns]
        laid_out |= {
            "drawn_logprobs": update_batches.padded(drawn, laid_out["mask"]),
            "conversations": torch.tensor([one.conversation for one in turns], dtype=torch.long),
            "groups": torch.tensor([groups[one.conversation] for one in turns], dtype=torch.long),
        }
        return rollout.to_device(laid_out, self.args.device) | {"samples": [one.turn.sample.id for one in turns]}

    def _count(self, rewarded: Sequence[RewardedConversation]) -> None:
        """Add the statistics of the conversations to the metrics."""
        turns = [turn for one in rewarded for turn in one.sampled.turns]
        calls = [call for one in rewarded for call in one.conversation.calls]
        lengths = [len(turn.response) for turn in turns]
        self.counts["sampled_calls"] += len(turns)
        self.counts["sampled_tokens"] += sum(lengths)
        self.counts["conversations"] += len(rewarded)
        known = [one for one in rewarded if one.conversation.outcome.get("success") is not None]
        learned = [one for one in rewarded if usable(one.conversation)]
        self.counts["environment_errors"] += len(rewarded) - len(learned)
        ends = Counter(f"conversation/{one.conversation.ended.replace(' ', '_')}" for one in rewarded)
        parts = part_sums([turn for one in learned for turn in one.rewards])
        outcomes = [call.outcome for call in calls]
        self._sums.add(
            samples=len(turns),
            learned=sum(len(one.sampled.turns) for one in learned),
            response_length=sum(lengths),
            prompt_tokens=sum(len(turn.prompt) for turn in turns),
            ended=sum(turn.response[-1] in self.sampling.ends for turn in turns),
            conversations=len(rewarded),
            usable=len(learned),
            reward=math.fsum(one.reward for one in learned),
            turns=len(turns),
            checked=len(known),
            success=sum(one.conversation.outcome["success"] is True for one in known),
            calls=len(calls),
            **ends,
            **{f"reward/{name}": number for name, number in parts.items()},
            **{f"error/{outcome.value}": outcomes.count(outcome) for outcome in DOCUMENTATION_ERRORS},
            **{"error/tool": sum(call.ce for call in calls)},
            trailing_text=sum(call.has_trailing_text for call in calls),
        )

    def _credit(
        self, inputs: dict[str, Any], old: torch.Tensor, reference: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return advantages and returns, [M, R] each, which all tokens of a turn share."""
        s, mask, conversations = self.settings, inputs["mask"], inputs["conversations"]
        rewards = inputs["scores"].clamp(-s.reward_clip, s.reward_clip)
        penalties = -self.kl.coefficient * torch.where(mask, old - reference, 0.0).sum(dim=1)
        baseline, groups = self.prompts.baseline, inputs["groups"]
        if baseline is None:
            advantages, returns = spread(rewards + penalties, values[:, 0], conversations, gamma=s.gamma, lam=s.lam)
        else:
            advantages = compared(rewards, conversations, groups, baseline)
            advantages += compared(penalties, conversations, groups, BASELINES["rloo"])
            returns = torch.zeros_like(advantages)
        return advantages[:, None] * mask, returns[:, None] * mask
