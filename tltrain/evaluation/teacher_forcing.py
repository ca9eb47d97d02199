"""What a model makes of recorded calls when it is given everything before each of their tokens (teacher forcing).

One forward a trajectory: attention is causal, so that it gives every call at once, and logits are computed at target
positions alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tltrain.evaluation.analysis import TurnScore, token_parts
from tltrain.inference import generation
from tltrain.tokens.encoder import Encoder
from tltrain.tokens.layout import Layout
from tltrain.tokens.packing import PackingReport, PackingSettings, pack
from tltrain.trajectory import Trajectory, actions

ROWS = 256
"""Targets whose logits are held in float32 at once: a large vocabulary makes them the largest thing there is."""


def score(
    model: PreTrainedModel, encoder: Encoder, trajectories: Iterable[Trajectory], report: PackingReport
) -> Iterator[TurnScore]:
    """Every call of the trajectories that may be learned, scored; plain text is passed over.

    A trajectory longer than the model's context loses its oldest turns, which `report` counts.
    """
    settings = PackingSettings(max_length=generation.context(model) or sys.maxsize)
    for number, trajectory in enumerate(trajectories):
        for layout in pack([trajectory], encoder, settings, report):
            yield from _turns(number, trajectory, layout, encoder, *target_scores(model, layout))


@torch.inference_mode()
def target_scores(model: PreTrainedModel, layout: Layout) -> tuple[Tensor, Tensor]:
    """Of each of a layout's N targets: [N] negative log-likelihood in float32, [N] whether it is the likeliest."""
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
