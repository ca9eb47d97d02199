"""What a plan computes memory and time from: how a stage is computed, and the micro-batch of a process."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Setup:
    """How a stage is computed.

    Attributes:
        strategy: none (a copy on every process), zero2, zero3, zero3_offload or fsdp.
        weight_bytes: bytes per weight as loaded. bf16: computes in bfloat16.
        accumulation: micro-batches per step. adapter: number of LoRA weights, the only trained ones if set.
        frozen_bytes: bytes per frozen weight beside an adapter (0.5 for 4 bits). fused_head: TRL's, without logits.
        process: bytes held before anything is loaded. reference: whether PPO has a reference.
        shared_critic: the critic of PPO is a head on the policy.
    """

    processes: int = 1
    strategy: str = "none"
    device: str = "cpu"
    bf16: bool = False
    weight_bytes: int = 4
    optimizer: str = "adamw_torch_fused"
    checkpointing: bool = False
    attention: str = "sdpa"
    accumulation: int = 1
    adapter: int | None = None
    frozen_bytes: float | None = None
    fused_head: bool = False
    process: float = 0
    reference: bool = True
    shared_critic: bool = False

    @property
    def sharded(self) -> bool:
        return self.strategy != "none"

    @property
    def compute_bytes(self) -> int:
        """Bytes of a number in the compute dtype."""
        return 2 if self.bf16 else self.weight_bytes

    @property
    def autocast(self) -> bool:
        """Whether float32 weights are cast in every forward pass (DeepSpeed and FSDP give modules bfloat16 ones)."""
        return self.bf16 and self.weight_bytes == 4 and not self.sharded

    @property
    def stored_bytes(self) -> int:
        """Bytes per weight of the model itself between steps."""
        return {"none": self.weight_bytes, "fsdp": 4}.get(self.strategy, self.compute_bytes)

    @property
    def trained_bytes(self) -> int:
        """Bytes per trained weight between steps: peft makes an adapter float32 beside 16-bit weights."""
        return 4 if self.adapter is not None and self.strategy == "none" else self.stored_bytes


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A process's micro-batch, and what it samples at once.

    Attributes:
        rows, length: number of sequences, and tokens of the longest. targets: target tokens in all rows.
        masked: attention takes a padding mask, so keys and values are repeated for every query head, and each block
            keeps the mask in floating point. tree: attention takes a mask that all blocks share.
        samples: sequences generated together, each from `prompt` tokens and of at most `new` more.
        prefill: distinct prompt tokens that are computed together.
    """

    rows: int
    length: int
    targets: int = 0
    masked: bool = False
    tree: bool = False
    samples: int = 0
    prompt: int = 0
    new: int = 0
    prefill: int = 0

    @property
    def tokens(self) -> int:
        return self.rows * self.length
