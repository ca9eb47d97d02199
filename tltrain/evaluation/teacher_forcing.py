"""Score recorded calls with a model that is given everything before each of their tokens (teacher forcing).

One forward pass per trajectory suffices for all its calls, since attention is causal. Logits are computed only at
target positions.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tltrain.evaluation.analysis import TurnScore, call_parts, token_parts
from tltrain.inference import generation
from tltrain.tokens.encoder import Encoder
from tltrain.tokens.layout import Layout
from tltrain.tokens.native import NativeEncoder
from tltrain.tokens.packing import PackingReport, PackingSettings, pack
from tltrain.trajectory import Trajectory, actions

ROWS = 256
"""Number of targets whose float32 logits are in memory at once; with a large vocabulary they take the most memory."""


def score(
    model: PreTrainedModel, encoder: Encoder, trajectories: Iterable[Trajectory], report: PackingReport
) -> Iterator[TurnScore]:
    """Yield the score of every learnable call of the trajectories; plain text is skipped.

    Each call of a message with several has its own score. In a native format the message's words and thought have no
    score, and the end token belongs to its last call.

    A trajectory longer than the model's context loses its oldest turns, which `report` counts.
    """
    settings = PackingSettings(max_length=generation.context(model) or sys.maxsize)
    for number, trajectory in enumerate(trajectories):
        for layout in pack([trajectory], encoder, settings, report):
            scored = target_scores(model, layout)
            if isinstance(encoder, NativeEncoder):
                yield from _native_turns(number, trajectory, layout, encoder, *scored)
            else:
                yield from _turns(number, trajectory, layout, encoder, *scored)


@torch.inference_mode()
def target_scores(model: PreTrainedModel, layout: Layout) -> tuple[Tensor, Tensor]:
    """Return [N] negative log-likelihoods in float32 of a layout's N targets, and [N] whether each is the likeliest."""
    ids, positions, targets = (
        torch.tensor(values, device=model.device) for values in (layout.input_ids, layout.positions, layout.targets)
    )
    logits = model(ids[None], logits_to_keep=positions, use_cache=False).logits[0]
    nll = [
        torch.nn.functional.cross_entropy(rows.float(), wanted, reduction="none")
        for rows, wanted in zip(logits.split(ROWS), targets.split(ROWS), strict=True)
    ]
    return torch.cat(nll), logits.argmax(-1) == targets


def _turns(
    number: int, trajectory: Trajectory, layout: Layout, encoder: Encoder, nll: Tensor, right: Tensor
) -> Iterator[TurnScore]:
    done = actions(trajectory.messages)
    for turn in dict.fromkeys(layout.turns):
        call, at = done[turn].call, [i for i, other in enumerate(layout.turns) if other == turn]
        if call is None:
            continue
        (encoded,) = encoder.encode([encoder.format.call_text(call)])
        parts = token_parts(call, encoded.spans, [bool(layout.keys[i]) for i in at])
        yield TurnScore(number, parts, tuple(nll[at].tolist()), tuple(right[at].tolist()), turn)


def _native_turns(
    number: int, trajectory: Trajectory, layout: Layout, encoder: NativeEncoder, nll: Tensor, right: Tensor
) -> Iterator[TurnScore]:
    present = set(layout.turns)
    for turn in encoder.turns(trajectory, None):
        if turn.number not in present:
            continue
        rows = (i for i, other in enumerate(layout.turns) if other == turn.number)
        at = {target.offset + 1: i for target, i in zip(turn.targets, rows, strict=True)}
        end = len(turn.said.ids) - 1
        for k, (call, (first, behind)) in enumerate(zip(turn.said.calls, turn.said.spans(), strict=True)):
            if call.name_at not in at:  # not learned
                continue
            last = k == len(turn.said.calls) - 1
            positions = [i for i in (*range(first, min(behind, end)), *([end] if last else [])) if i in at]
            named = call.arguments() | dict.fromkeys(range(call.name_at, call.name_end), "name") | {end: "end"}
            parts = call_parts(
                [named.get(i, "punctuation") for i in positions], [bool(layout.keys[at[i]]) for i in positions]
            )
            chosen = [at[i] for i in positions]
            yield TurnScore(number, parts, tuple(nll[chosen].tolist()), tuple(right[chosen].tolist()), turn.number + k)
