"""The trainer compared with numbers computed independently: one forward pass per trajectory equals one per turn."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM
from trl import SFTConfig

from tests.support.trajectories import TRAJECTORY, conversation
from tltrain.tokens.encoder import Encoder
from tltrain.tokens.layout import Layout
from tltrain.tokens.packing import PackingReport, PackingSettings, pack
from tltrain.training import sft
from tltrain.trajectory import Call

OTHER = conversation(
    Call("getPaperDetails", {"id": "12345678"}), Call("finish", {"answer": "ä 漢"}), query="What is 12345678?"
)


@pytest.fixture
def model(byte_level) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(byte_level),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2048,
        )
    )


@pytest.fixture
def encoder(byte_level) -> Encoder:
    return Encoder(byte_level)


def layouts(encoder: Encoder, packing: str, w_max: float | None = 9.0) -> list[Layout]:
    return list(
        pack(
            [TRAJECTORY, OTHER],
            encoder,
            PackingSettings(packing, w_max, truncation="error"),
            PackingReport(),
        )
    )


def losses(model, items: list[Layout], batch_size: int, fused: bool = False) -> torch.Tensor:
    rows, found = sft.dataset(items), []
    for start in range(0, len(rows), batch_size):
        batch = sft.Collator(0)([rows[i] for i in range(start, min(start + batch_size, len(rows)))])
        nll = sft.target_nll(model, batch, fused)
        found.append(sft.turn_losses(nll, batch["weights"], batch["turns"], int(batch["turns"].max()) + 1))
    return torch.cat(found)


def by_hand(model, layout: Layout) -> torch.Tensor:
    """Return sum(w * nll) / sum(w) of a one-turn sample, from the whole sequence's logits."""
    logits = model(torch.tensor([layout.input_ids])).logits[0]
    total, weights = 0, 0
    for position, target, weight in zip(layout.positions, layout.targets, layout.weights, strict=True):
        total = total - weight * F.log_softmax(logits[position].float(), -1)[target]
        weights += weight
    return total / weights


def test_turn_losses_by_hand():
    nll = torch.tensor([1.0, 2.0, 3.0, 5.0])
    weights = torch.tensor([9.0, 1.0, 1.0, 1.0])
    found = sft.turn_losses(nll, weights, torch.tensor([0, 0, 1, 1]), 2)
    assert found.tolist() == pytest.approx([(9 + 2) / 10, 4.0])


def test_packed_trajectories_give_every_turns_loss(model, encoder):
    expected = torch.stack([by_hand(model, layout) for layout in layouts(encoder, "turn")])
    assert len(expected) == 5
    for packing in ("turn", "trajectory"):
        for batch_size in (1, 2):
            assert torch.allclose(losses(model, layouts(encoder, packing), batch_size), expected, atol=1e-5)


def test_packed_trajectories_give_the_same_gradient(model, encoder):
    gradients = []
    for packing in ("turn", "trajectory"):
        model.zero_grad()
        losses(model, layouts(encoder, packing), 2).mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.allclose(*gradients, atol=1e-6)
    assert gradients[0].abs().max() > 1e-3


def test_the_fused_head_gives_the_same_losses(model, encoder):
    from trl.trainer.utils import add_fused_lm_head

    plain = losses(model, layouts(encoder, "trajectory"), 2)
    add_fused_lm_head(model, outputs=("log_probs",))
    assert torch.allclose(losses(model, layouts(encoder, "trajectory"), 2, fused=True), plain, atol=1e-5)


def trained(model, encoder: Encoder, folder, *, batch: int, accumulation: int, w_max: float | None = 9.0, factors=None):
    args = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        max_steps=1,
        learning_rate=0.1,
        optim="sgd",
        max_grad_norm=0.0,
        lr_scheduler_type="constant",
        bf16=False,
        use_cpu=True,
        activation_checkpointing=False,
        report_to=[],
        logging_steps=1,
        disable_tqdm=True,
        save_strategy="no",
        dataset_kwargs={"skip_prepare_dataset": True},
        dataloader_pin_memory=False,
    )
    rows = sft.dataset(layouts(encoder, "trajectory", w_max))
    trainer = sft.TurnTrainer(model, args, sft.Collator(0), rows, rows, encoder.tokenizer, factors=factors)
    trainer.train()
    return trainer


@pytest.mark.parametrize(("batch", "accumulation"), [(1, 2), (2, 1)])
def test_a_step_follows_the_mean_over_all_its_turns(model, encoder, tmp_path, batch, accumulation):
    # Three turns and two: the mean of the two samples' means would weight them differently.
    before = torch.cat([p.detach().clone().flatten() for p in model.parameters()])
    loss = losses(model, layouts(encoder, "trajectory"), 2).mean()
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
    trainer = trained(model, encoder, tmp_path, batch=batch, accumulation=accumulation)
    after = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    assert torch.allclose(after, before - 0.1 * gradient, atol=1e-6)
    assert trainer.state.log_history[0]["loss"] == pytest.approx(loss.item(), abs=1e-4)


def test_factors_of_a_weighting_scale_each_tokens_loss_and_not_what_it_is_divided_by(model, encoder, tmp_path):
    before = torch.cat([p.detach().clone().flatten() for p in model.parameters()])
    batch = sft.Collator(0)(list(sft.dataset(layouts(encoder, "trajectory"))))
    nll = sft.target_nll(model, batch, fused=False)
    terms, weights = batch["weights"] * torch.exp(-nll.detach()) * nll, batch["weights"]
    turns = [terms[batch["turns"] == turn].sum() / weights[batch["turns"] == turn].sum() for turn in range(5)]
    gradient = torch.autograd.grad(torch.stack(turns).mean(), list(model.parameters()))
    trainer = trained(model, encoder, tmp_path, batch=2, accumulation=1, factors=torch.exp)
    after = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    assert torch.allclose(after, before - 0.1 * torch.cat([g.flatten() for g in gradient]), atol=1e-7)
    assert trainer.state.log_history[0]["loss"] == pytest.approx(torch.stack(turns).mean().item(), abs=1e-4)


def test_what_is_logged_is_what_the_targets_say(model, encoder, tmp_path):
    items = layouts(encoder, "trajectory")
    trainer = trained(model, encoder, tmp_path, batch=2, accumulation=1)
    logged = next(entry for entry in trainer.state.log_history if "loss" in entry)
    weights = [w for layout in items for w in layout.weights]
    keys = [k for layout in items for k in layout.keys]
    assert logged["mean_weight"] == pytest.approx(sum(weights) / len(weights), abs=1e-6)
    assert logged["key_token_share"] == pytest.approx(sum(keys) / len(keys), abs=1e-6)
    assert logged["num_tokens"] == sum(len(layout.input_ids) for layout in items)
    assert logged["tokens_per_second"] > 0
    held = trainer.evaluate(metric_key_prefix="held_out")
    expected = losses(trainer.model.eval(), items, 1).mean().item()
    assert held["held_out_loss"] == pytest.approx(expected, abs=1e-5)
    assert json.dumps(held)


def test_weights_move_the_loss_and_1_everywhere_is_the_mean(model, encoder):
    plain, weighted = (losses(model, layouts(encoder, "trajectory", w_max), 2) for w_max in (None, 9.0))
    assert not torch.allclose(plain, weighted)
    turn = layouts(encoder, "turn", None)[0]
    logits = model(torch.tensor([turn.input_ids])).logits[0, turn.positions]
    assert plain[0].item() == pytest.approx(
        F.cross_entropy(logits.float(), torch.tensor(turn.targets)).item(), abs=1e-5
    )
