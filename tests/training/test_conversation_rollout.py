"""Sampled conversations on a small random model: what was sampled, where, and that it repeats."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from tests.support.environment_samples import Room, tasks
from tests.support.small_rollouts import NEVER, PAD, SIZES, with_mask
from tltrain.environments.loop import ConversationSettings
from tltrain.inference import kv_cache
from tltrain.tokens.encoder import Encoder
from tltrain.training import conversation_rollout, update_batches
from tltrain.training.actor_critic import response_logits, token_logprobs
from tltrain.training.conversation_rollout import Conversations, SampledConversation, World
from tltrain.training.rollout import Sampling


@pytest.fixture
def encoder(byte_level) -> Encoder:
    return Encoder(byte_level)


@pytest.fixture
def model(encoder) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, vocab_size=len(encoder.tokenizer))).eval()


WORLD = World(tasks(3), Room, ConversationSettings(max_turns=3))
SAMPLING = Sampling(6, 0.9, NEVER, PAD)


def hold(model, encoder, world=WORLD, sampling=SAMPLING, seed=1, **given) -> list[list[SampledConversation]]:
    asked = Conversations(world, sampling, encoder, given.pop("group_size", 1))
    return conversation_rollout.hold(model, asked, world.tasks, seed, **given)


def said(found) -> list[list[list[list[int]]]]:
    return [[[list(turn.response) for turn in one.turns] for one in own] for own in found]


def test_what_is_sampled_is_what_the_conversation_has(model, encoder):
    found = hold(model, encoder)
    assert [len(own) for own in found] == [1, 1, 1]
    for (one,) in found:
        assert len(one.turns) == 3 and one.conversation.ended == "turn limit"
        for turn in one.turns:
            assert one.conversation.messages[turn.message].role == "assistant"
            assert turn.prompt == encoder.prompt(turn.sample) and len(turn.response) == len(turn.logprobs) == 6
            (call,) = [call for call in one.conversation.calls if call.message == turn.message]
            assert encoder.text(turn.response).startswith(call.text)


def test_a_rollout_repeats_whatever_is_sampled_beside_it_and_however_it_is_computed(model, encoder):
    found = said(hold(model, encoder))
    assert found == said(hold(model, encoder))
    assert found == said(hold(model, encoder, carry_over=False))
    assert found == said(hold(model, encoder, replace(WORLD, parallel=1)))
    assert found == said(hold(model, encoder, replace(WORLD, batch_size=2)))
    assert found[::-1] == said(hold(model, encoder, replace(WORLD, tasks=WORLD.tasks[::-1])))
    assert found[1:2] == said(hold(model, encoder, replace(WORLD, tasks=WORLD.tasks[1:2])))
    other = said(hold(model, encoder, seed=2))
    assert other != found and other[0] != other[1]


def test_the_conversations_about_a_task_differ_and_the_first_is_that_without_others(model, encoder):
    alone, grouped = said(hold(model, encoder)), said(hold(model, encoder, group_size=3))
    assert [own[0] for own in grouped] == [own[0] for own in alone]
    assert all(own[0] != own[1] != own[2] for own in grouped)
    twice = said(hold(model, encoder, replace(WORLD, tasks=[WORLD.tasks[0]] * 2)))
    assert twice[0] == alone[0] and twice[1] != alone[0]


def test_conversations_of_several_processes_are_numbered_as_those_of_one(model, encoder):
    # One process would take a, b, c, a, b, b.
    assert conversation_rollout.repetitions([[["a"], ["c"], ["b"]], [["b"], ["a"], ["b"]]]) == [[0, 0, 1], [0, 1, 2]]
    assert conversation_rollout.repetitions([[["a", "a"], ["a"]], [["a"], []]]) == [[0, 1, 3], [2]]
    task = replace(WORLD, tasks=[WORLD.tasks[0]])
    both = said(hold(model, encoder, replace(WORLD, tasks=[WORLD.tasks[0]] * 2), group_size=2))
    each = [said(hold(model, encoder, task, group_size=2, earlier=[number])) for number in (0, 1)]
    assert both == [each[0][0], each[1][0]] and both[0][0] not in both[1]


def test_greedy_and_windowed_models(model, encoder):
    greedy = said(hold(model, encoder, sampling=replace(SAMPLING, temperature=None)))
    assert greedy == said(hold(model, encoder, sampling=replace(SAMPLING, temperature=1e-4)))
    torch.manual_seed(0)
    windowed = MistralForCausalLM(MistralConfig(**SIZES, vocab_size=len(encoder.tokenizer), sliding_window=16)).eval()
    assert kv_cache.empty(windowed) is None
    assert said(hold(windowed, encoder)) == said(hold(windowed, encoder, replace(WORLD, parallel=1)))


def test_an_end_token_ends_an_answer(model, encoder):
    free = hold(model, encoder)[0][0].turns[0]
    end = free.response[2]
    turn = hold(model, encoder, sampling=replace(SAMPLING, other_ends=frozenset({end})))[0][0].turns[0]
    assert list(turn.response) == list(free.response)[: list(free.response).index(end) + 1]
    assert turn.logprobs == pytest.approx(free.logprobs[: len(turn.response)])


def test_a_history_that_is_too_long_ends_its_conversation(model, encoder):
    longest = max(len(turn.prompt) for own in hold(model, encoder) for one in own for turn in one.turns)
    for (one,) in hold(model, encoder, replace(WORLD, max_prompt_length=longest - 1)):
        assert all(len(turn.prompt) < longest for turn in one.turns)
    found = hold(model, encoder, replace(WORLD, max_prompt_length=3))
    assert {one.conversation.ended for (one,) in found} == {"too long"} and not found[0][0].turns


@pytest.mark.parametrize("group_size", [1, 3])
def test_log_probabilities_at_sampling_are_those_of_the_update(model, encoder, group_size):
    """One pass over the row of a task's conversations gives the numbers of sampling, token by token."""
    for own in hold(model, encoder, group_size=group_size):
        row: list = []
        for one in own:
            row += conversation_rollout.branches(one.turns, before=row[-1] if row else None)
        turns = [turn for one in own for turn in one.turns]
        chain = update_batches.is_chain(row)
        batch = update_batches.batch_of([row], [0.0] * len(row), PAD, None if chain else 1)
        alone = sum(len(turn.prompt) + len(turn.response) - 1 for turn in turns)
        assert batch["input_ids"].numel() < 0.6 * alone  # what they share is computed once
        with torch.no_grad():
            logprobs = token_logprobs(response_logits(model, with_mask(batch, model), 0.9), batch["targets"])
        found = logprobs[batch["index"]][batch["mask"]]
        expected = torch.tensor([number for turn in turns for number in turn.logprobs])
        assert torch.allclose(found, expected, atol=1e-4)


def test_offered_names_are_sampled_alone(model, encoder):
    from tltrain.inference.offered_names import OfferedNames

    for (one,) in hold(model, encoder, sampling=replace(SAMPLING, max_new_tokens=12, offered=OfferedNames(encoder))):
        assert {call.text.partition("(")[0] for call in one.conversation.calls} <= {"look", "peek", "finish"}
