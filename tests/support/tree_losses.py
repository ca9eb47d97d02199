"""Losses and gradients of trees, and of each of their turns separately."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from transformers import PreTrainedModel

from tests.support.trajectories import ASKS, chain
from tltrain.tokens.layout import Layout, Run, flatten
from tltrain.training import sft

TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=4)
CHAINS = st.lists(
    st.lists(st.tuples(TOKENS, st.booleans()), min_size=1, max_size=4).map(
        lambda pieces: chain(
            *(part for piece in pieces for part in ((ASKS, False), piece)), (ASKS, False), ([4, 5], True)
        )
    ),
    min_size=1,
    max_size=6,
)


def by_turn(model: PreTrainedModel, chains: list[list[Run]]) -> torch.Tensor:
    """Return sum(w * nll) / sum(w) of every turn, from its own forward pass over its history."""
    losses = []
    for one in chains:
        own = flatten(one)
        for turn in dict.fromkeys(own.turns):
            at = [i for i, number in enumerate(own.turns) if number == turn]
            logits = model(torch.tensor([own.input_ids[: own.positions[at[-1]] + 1]]), use_cache=False).logits[0]
            nll = F.cross_entropy(
                logits[[own.positions[i] for i in at]], torch.tensor([own.targets[i] for i in at]), reduction="none"
            )
            weights = torch.tensor([own.weights[i] for i in at])
            losses.append((weights * nll).sum() / weights.sum())
    return torch.stack(losses)


def losses(model: PreTrainedModel, layouts: list[Layout], batch_size: int = 1) -> torch.Tensor:
    rows, found = sft.dataset(layouts), []
    for start in range(0, len(rows), batch_size):
        batch = sft.Collator(0)([rows[i] for i in range(start, min(start + batch_size, len(rows)))])
        nll = sft.target_nll(model, batch, fused=False)
        found.append(sft.turn_losses(nll, batch["weights"], batch["turns"], int(batch["turns"].max()) + 1))
    return torch.cat(found)


def gradient(model: PreTrainedModel, loss: torch.Tensor) -> torch.Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
