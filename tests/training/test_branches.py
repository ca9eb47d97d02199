"""Responses as branches: a chain, a tree and diverging answers by hand, and the layout of prompt trees."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from tltrain.tokens.layout import Branch, Layout, Run, Target, branch_runs, flatten
from tltrain.tokens.prompts import PromptTree
from tltrain.training import tree_mask, update_batches

PAD = 1


def batch(*rows: list[Branch], scores: list[float] | None = None) -> dict:
    chains = all(map(update_batches.is_chain, rows))
    amount = sum(map(len, rows))
    return update_batches.batch_of(rows, scores or [0.0] * amount, PAD, None if chains else 1)


def test_a_conversation_is_a_chain_whose_tool_answers_have_no_targets():
    # "10 11" is answered by "20 21 2"; the tool says "30 31", and "40 2" is the answer.
    row = [Branch([10, 11], [20, 21, 2]), Branch([10, 11, 20, 21, 30, 31], [40, 2], shared=4)]
    found = batch(row)
    assert found["input_ids"].tolist() == [[10, 11, 20, 21, 30, 31, 40]]
    assert found["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5, 6]]
    assert found["attention_mask"].tolist() == [[1] * 7]  # a chain needs no mask of a tree
    assert found["keep"].nonzero()[:, 1].tolist() == [1, 2, 3, 5, 6]
    assert found["targets"].tolist() == [20, 21, 2, 40, 2]
    assert found["targets"][found["index"]].masked_fill(~found["mask"], 0).tolist() == [[20, 21, 2], [40, 2, 0]]


def test_a_prompt_that_writes_the_answer_otherwise_branches_off_where_it_differs():
    # The answer "20 21 22 2" is written as "20 25" in the next prompt.
    row = [Branch([10, 11], [20, 21, 22, 2]), Branch([10, 11, 20, 25, 30], [40], shared=3)]
    assert not update_batches.is_chain(row)
    found = batch(row)
    assert found["input_ids"].tolist() == [[10, 11, 20, 21, 22, 25, 30]]
    assert found["position_ids"].tolist() == [[0, 1, 2, 3, 4, 3, 4]]
    assert found["keep"].nonzero()[:, 1].tolist() == [1, 2, 3, 4, 6]
    assert found["targets"][found["index"]].masked_fill(~found["mask"], 0).tolist() == [[20, 21, 22, 2], [40, 0, 0, 0]]
    sees = tree_mask.visible(found["reach"])[0].int().tolist()
    assert sees[4] == [1, 1, 1, 1, 1, 0, 0] and sees[6] == [1, 1, 1, 0, 0, 1, 1]


def test_two_conversations_of_one_task_share_the_prompt_but_its_last_token():
    # Each needs a last token of its own, since one position predicts one token.
    row = [Branch([10, 11, 12], [20, 2]), Branch([10, 11, 12], [20, 2], shared=2), Branch([10, 11, 12], [9], shared=2)]
    found = batch(row)
    assert found["input_ids"].tolist() == [[10, 11, 12, 20, 12, 20, 12]]
    assert found["position_ids"].tolist() == [[0, 1, 2, 3, 2, 3, 2]]
    assert found["targets"].tolist() == [20, 2, 20, 2, 9]
    sees = tree_mask.visible(found["reach"])[0].int().tolist()
    assert sees[5] == [1, 1, 0, 0, 1, 1, 0] and sees[6] == [1, 1, 0, 0, 0, 0, 1]


def test_tokens_that_are_not_learned_are_context():
    row = [Branch([10], [20, 21, 22], learned=[False, True, True]), Branch([10, 20, 21, 30], [40], shared=3)]
    found = batch(row)
    assert found["input_ids"].tolist() == [[10, 20, 21, 30]]
    assert (found["targets"].tolist(), found["mask"].tolist()) == ([21, 22, 40], [[True, True], [True, False]])


def by_definition(tree: PromptTree, responses: list[list[int]]) -> Layout:
    """Return the layout of a prompt tree, in which each piece of the prompt and each response is a run."""
    starts = (0, *tree.ends[:-1])
    runs: list[Run] = []
    for m, (start, end, tokens) in enumerate(zip(starts, tree.ends, responses, strict=True)):
        targets = [Target(k - 1, token, 1.0, False, m) for k, token in enumerate(tokens)]
        runs += [Run(list(tree.ids[start:end]), 2 * (m - 1) if m else -1, []), Run(tokens[:-1], 2 * m, targets)]
    return flatten(runs)


tokens = st.lists(st.integers(0, 3), min_size=1, max_size=4)


@given(st.lists(st.tuples(tokens, tokens), min_size=1, max_size=5))
def test_prompt_trees_are_laid_out_run_by_run(pieces):
    ids = tuple(token for piece, _ in pieces for token in piece)
    ends = tuple(sum(len(piece) for piece, _ in pieces[: m + 1]) for m in range(len(pieces)))
    tree, responses = PromptTree(ids, ends, (None,) * len(ends)), [response for _, response in pieces]
    assert update_batches.layout(tree, responses) == by_definition(tree, responses)


@given(st.lists(st.tuples(tokens, tokens), min_size=1, max_size=6))
def test_each_branch_sees_its_own_prompt_and_answer_alone(pairs):
    """Whatever is shared, a target's position attends to its prompt and to the preceding tokens of its answer."""
    row: list[Branch] = []
    for prompt, response in pairs:
        before = [*row[-1].prompt, *row[-1].response[:-1]] if row else []
        same = [a == b for a, b in zip(before, prompt[:-1], strict=False)]
        row.append(Branch(prompt, response, same.index(False) if False in same else len(same)))
    found = flatten(branch_runs(row))
    places = [(branch, k) for branch in row for k in range(len(branch.response))]
    sees = tree_mask.visible(torch.tensor([found.reach]))[0]
    assert len(set(found.positions)) == len(found.positions) == len(places)
    for position, target, (branch, k) in zip(found.positions, found.targets, places, strict=True):
        seen = [found.input_ids[at] for at in sees[position].nonzero()[:, 0].tolist()]
        assert seen == [*branch.prompt, *branch.response[:k]] and target == branch.response[k]
        assert found.position_ids[position] == len(seen) - 1
