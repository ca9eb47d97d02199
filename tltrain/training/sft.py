"""Supervised training on weighted targets: TRL's SFTTrainer with another loss.

    loss of a turn = sum(w * f * nll) / sum(w)    over its target tokens; f: 1, or a factor of `tokens.weighting`
    loss of a step = mean over all turns of the optimizer step, across micro-batches and processes

With all weights 1 this is standard SFT averaged by turns; MAE leaves turns out, and PKT raises weights. Everything
else (optimizers, schedules, DeepSpeed, checkpoints, callbacks) comes from TRL and transformers.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.utils import extract_model_from_parallel, send_to_device
from datasets import Dataset, concatenate_datasets
from torch import nn
from transformers import PrinterCallback, TrainerControl
from trl import SFTTrainer

from tltrain.runtime import json_files, terminal
from tltrain.tokens.layout import Layout
from tltrain.tokens.weighting import Factors
from tltrain.training import tree_mask
from tltrain.training.blank_batches import FilledBatches
from tltrain.training.checkpoints import ResumableCheckpoints

COLUMNS = ("input_ids", "positions", "targets", "weights", "keys", "turns")
TREE_COLUMNS = ("position_ids", "reach")
IGNORED = -100


def dataset(layouts: Iterable[Layout]) -> Dataset:
    """Create a dataset from layouts of `packing.pack`, a row per sample; with `TREE_COLUMNS` if any has branches."""
    layouts = list(layouts)
    branching = any(layout.reach and min(layout.reach) < len(layout.reach) for layout in layouts)
    columns = (*COLUMNS, *TREE_COLUMNS) if branching else COLUMNS
    return Dataset.from_list([{column: getattr(layout, column) for column in columns} for layout in layouts])


def turn_losses(nll: torch.Tensor, weights: torch.Tensor, turns: torch.Tensor, count: int) -> torch.Tensor:
    """Return the weighted mean loss of each turn, [count].

    Args:
        nll: [N] negative log-likelihood of each target token.
        weights: [N] weight of each target. turns: [N] turn of each target, from 0 to count - 1.
    """
    total = torch.zeros(count, dtype=nll.dtype, device=nll.device)
    return total.index_add(0, turns, weights * nll) / total.index_add(0, turns, weights)


class Collator:
    """Collate rows of `dataset` into a batch of B sequences of T tokens with N targets in all.

    The batch has `input_ids`, `attention_mask`: [B, T], padded on the right; `keep`: [B, T], True where a hidden state
    predicts a target; `shift_labels`: [B, T], that target, and -100 elsewhere; `weights`, `keys`, `turns`: [N], turns
    numbered across the batch; `index`: [N], the position of each target in the order of `keep` (in a tree one position
    can serve several turns). For trees it also has `position_ids`, `reach`: [B, T]. `turn_count` and `token_count` are
    plain numbers, since reading them from a tensor would make the host wait for the accelerator.

    Args:
        tree_multiple: with trees, T is a multiple of this, since flex attention compiles a kernel for each length.
    """

    def __init__(self, pad_id: int, tree_multiple: int = 1) -> None:
        self.pad_id, self.tree_multiple = pad_id, tree_multiple

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        width = max(len(row["input_ids"]) for row in rows)
        if "reach" in rows[0]:
            width = math.ceil(width / self.tree_multiple) * self.tree_multiple
        size = (len(rows), width)
        input_ids = torch.full(size, self.pad_id)
        mask = torch.zeros(size, dtype=torch.long)
        labels = torch.full(size, IGNORED)
        turns, turn_count = [], 0
        for i, row in enumerate(rows):
            length = len(row["input_ids"])
            input_ids[i, :length] = torch.tensor(row["input_ids"])
            mask[i, :length] = 1
            labels[i, row["positions"]] = torch.tensor(row["targets"], dtype=torch.long)
            found, numbers = torch.unique(torch.tensor(row["turns"], dtype=torch.long), return_inverse=True)
            turns.append(numbers + turn_count)
            turn_count += len(found)
        keep = labels != IGNORED
        order = keep.flatten().cumsum(0).view_as(keep) - 1
        batch = {
            "input_ids": input_ids,
            "attention_mask": mask,
            "shift_labels": labels,
            "keep": keep,
            "index": torch.cat([order[i].take(torch.tensor(row["positions"]).long()) for i, row in enumerate(rows)]),
            "weights": torch.tensor([w for row in rows for w in row["weights"]]),
            "keys": torch.tensor([k for row in rows for k in row["keys"]], dtype=torch.bool),
            "turns": torch.cat(turns),
            "turn_count": turn_count,
            "token_count": sum(len(row["input_ids"]) for row in rows),
        }
        if "reach" in rows[0]:
            batch["reach"] = tree_mask.padded([row["reach"] for row in rows], size[1])
            batch["position_ids"] = torch.zeros_like(input_ids)
            for i, row in enumerate(rows):
                batch["position_ids"][i, : len(row["position_ids"])] = torch.tensor(row["position_ids"])
        return batch


def target_nll(
    model: torch.nn.Module, batch: dict[str, Any], fused: bool, mask_dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Return the negative log-likelihood of each target, [N] in float32, computing logits only at target positions.

    Args:
        fused: use TRL's fused head, which never holds all logits at once, and no padding mask. This is fastest on an
            accelerator: attention without a mask has far faster kernels, and no token attends to padding on the right.
        mask_dtype: see `tree_mask.attention_mask`.
    """
    inputs: dict[str, Any] = {"input_ids": batch["input_ids"]}
    if "reach" in batch:
        mask = tree_mask.attention_mask(model, batch["reach"], batch["position_ids"], mask_dtype)
        inputs |= {"position_ids": batch["position_ids"], "attention_mask": mask}
        if getattr(extract_model_from_parallel(model).config, "output_router_logits", False):
            inputs["output_router_logits"] = False  # the routers' loss, which is not used, expects a mask of padding
    elif not fused:
        inputs["attention_mask"] = batch["attention_mask"]
    if fused:
        outputs = model(**inputs, shift_labels=batch["shift_labels"], fused_lm_head=True, use_cache=False)
        return -outputs.log_probs[batch["keep"]].float()[batch["index"]]
    logits = model(**inputs, logits_to_keep=batch["keep"], use_cache=False).logits
    return F.cross_entropy(logits.float(), batch["shift_labels"][batch["keep"]], reduction="none")[batch["index"]]


class TurnTrainer(ResumableCheckpoints, FilledBatches, SFTTrainer):
    """SFTTrainer whose loss is a mean over turns.

    Logs, in addition to TRL's metrics: `key_token_loss` and `other_token_loss` (unweighted means over tokens),
    `mean_weight`, `key_token_share`, `tokens_per_second` (processed, per process) and `num_tokens`.
    """

    control: TrainerControl
    loss_is_scaled_for_ga = True  # the loss below divides by the turns of the whole optimizer step

    def __init__(self, *args: Any, factors: Factors | None = None, **kwargs: Any) -> None:
        self.factors = factors
        super().__init__(*args, **kwargs)
        self.remove_callback(PrinterCallback)  # `Progress` shows the metrics
        self._sums = {"train": _Sums(), "eval": _Sums()}
        self._last_log = (time.perf_counter(), 0)

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = [*COLUMNS, *TREE_COLUMNS]

    def _with_blank(self, dataset: Dataset) -> Dataset:
        one = {"input_ids": [dataset[0]["input_ids"][0]], "position_ids": [0], "reach": [1]}
        blank = {column: one.get(column, []) for column in dataset.column_names}
        return concatenate_datasets([dataset, Dataset.from_list([blank], features=dataset.features)])

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Move the batch to the device; the Trainer would also cast token weights to DeepSpeed's compute dtype."""
        return send_to_device(inputs, self.args.device)

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor:
        """Return the number of turns in the optimizer step, summed over all processes."""
        turns = sum(batch["turn_count"] for batch in batch_samples)
        return self.accelerator.gather(torch.tensor([turns], device=device)).sum()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, dict[str, Any]]:
        """Return the micro-batch's summed turn losses over the step's number of turns (scaled for DDP's averaging)."""
        fused = inputs["input_ids"].device.type in ("cuda", "xpu")
        nll = target_nll(model, inputs, fused, torch.bfloat16 if self.args.bf16 else None)
        scaled = nll if self.factors is None else nll * self.factors(-nll.detach())
        losses = turn_losses(scaled, inputs["weights"], inputs["turns"], inputs["turn_count"])
        self._sums["train" if model.training else "eval"].add(nll, losses, inputs)
        if model.training:
            self.counts["target_tokens"] += len(inputs["weights"])
        if num_items_in_batch is None:
            loss = losses.mean()
        else:
            loss = losses.sum() / num_items_in_batch * self.accelerator.num_processes
        return (loss, {}) if return_outputs else loss

    def evaluate(
        self, eval_dataset: Dataset | None = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Compute mean turn loss and token statistics over the held-out set (the Trainer's method averages batches)."""
        self.model.eval()
        self._sums["eval"] = _Sums()
        loader = self.get_eval_dataloader(eval_dataset)
        with torch.no_grad():
            for batch in terminal.track(loader, "held-out loss"):
                with self.compute_loss_context_manager():
                    self.compute_loss(self.model, self._prepare_inputs(batch))
        metrics = {f"{metric_key_prefix}_{k}": v for k, v in self._sums["eval"].means(self.accelerator).items()}
        super(SFTTrainer, self).log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log also the token statistics since the last log."""
        if "loss" in logs:
            sums = self._sums["train"].means(self.accelerator)
            sums.pop("loss")  # the Trainer logs the mean over optimizer steps
            now, tokens = time.perf_counter(), self._sums["train"].processed
            logs.update(
                sums, tokens_per_second=(tokens - self._last_log[1]) / (now - self._last_log[0]), num_tokens=tokens
            )
            self._last_log = (now, tokens)
            self._sums["train"].reset()
        super().log(logs, start_time)

    def _sums_file(self, folder: Path) -> Path:
        return folder / f"sums_{self.args.process_index}.json"

    def _save_extra(self, folder: Path) -> None:
        sums = self._sums["train"]
        kept = {"processed": sums.processed, "values": torch.as_tensor(sums.values).tolist()}
        self._sums_file(folder).write_text(json.dumps(kept), encoding="utf-8")

    def _load_extra(self, folder: Path) -> None:
        if self._sums_file(folder).is_file():
            kept = json_files.read_object(self._sums_file(folder))
            sums = self._sums["train"]
            sums.processed = kept["processed"]
            if kept["values"]:  # else still 0, as directly after a log
                sums.values = torch.tensor(kept["values"], dtype=torch.float64, device=self.args.device)
        self._last_log = (time.perf_counter(), self._sums["train"].processed)


class _Sums:
    """Running sums of the logged metrics, on the device; `processed` counts all input tokens of the training."""

    def __init__(self) -> None:
        self.processed = 0
        self.reset()

    def reset(self) -> None:
        self.values: torch.Tensor | float = 0.0

    def add(self, nll: torch.Tensor, losses: torch.Tensor, batch: dict[str, Any]) -> None:
        nll, key = nll.detach(), batch["keys"]
        self.values = (
            self.values
            + torch.stack(
                [
                    losses.detach().sum(),
                    torch.full((), len(losses), device=nll.device),
                    (nll * key).sum(),
                    key.sum(),
                    (nll * ~key).sum(),
                    (~key).sum(),
                    batch["weights"].sum(),
                ]
            ).double()
        )
        self.processed += batch["token_count"]

    def means(self, accelerator: Any) -> dict[str, float]:
        if isinstance(self.values, float):
            return {"loss": math.nan}
        values = accelerator.reduce(self.values, reduction="sum").tolist()
        loss, turns, key_nll, keys, other_nll, others, weight = values
        return {
            "loss": loss / turns,
            "key_token_loss": key_nll / keys if keys else math.nan,
            "other_token_loss": other_nll / others if others else math.nan,
            "mean_weight": weight / (keys + others),
            "key_token_share": keys / (keys + others),
        }
