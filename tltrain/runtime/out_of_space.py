"""Report too little memory or disk space in one line that says what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig

from tltrain.errors import TltrainError, shorten
from tltrain.runtime import advice

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)

MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "STATUS_ALLOC_FAILED")
"""Messages about memory in errors of other types: torch on a CPU, cuBLAS, CUDA's driver."""
DISK_WORDS = ("No space left on device", "Disk quota exceeded", "File too large")
"""Messages about a full disk: errors of safetensors and tokenizers have no errno."""
WRITER_WORDS = ("PytorchStreamWriter failed writing", "unexpected pos")
"""torch's message for any file that it cannot write."""

TRAIN = (
    "stage.args.per_device_train_batch_size (and raise stage.args.gradient_accumulation_steps), {length}, or set "
    "stage.args.gradient_checkpointing=true, model.lora.r=8, hardware=zero3 or zero3_offload; `stage=plan` says what "
    "fits"
)
LOWER = {
    "sft": TRAIN.format(length="stage.args.max_length"),
    "pkt": TRAIN.format(length="stage.args.max_length"),
    "irm": "stage.generation_batch_size, stage.max_new_tokens, stage.eval_batch_size, "
    + TRAIN.format(length="stage.max_prompt_length"),
    "eval": "stage.batch_size, stage.max_new_tokens, or set model.dtype=bfloat16",
    "chat": "stage.max_new_tokens, or set model.dtype=bfloat16",
    "predict": "stage.max_new_tokens, or set model.dtype=bfloat16",
    "analyze": "data.limit, or set model.dtype=bfloat16",
    "demo": "stage.batch_size, or take model=tiny",
}
"""Stage -> the keys on which its memory depends."""
OTHERWISE = "data.limit or data.size"


@contextmanager
def explained(cfg: DictConfig) -> Iterator[None]:
    """Report too little memory or disk space in the block as one line.

    Raises:
        TltrainError: memory or disk space did not suffice.
    """
    try:
        yield
    except TltrainError:
        raise
    except Exception as error:
        if of_memory(error):
            keys = LOWER.get(cfg.stage.name, OTHERWISE)
            raise TltrainError(f"out of memory ({_first_sentences(error)}): lower {keys}") from error
        if (line := of_disk(error)) is not None:
            raise TltrainError(line) from error
        raise


def of_memory(error: BaseException) -> bool:
    """Return whether an error means that this machine or a device ran out of memory."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(word in str(error) for word in MEMORY_WORDS)


def of_disk(error: BaseException) -> str | None:
    """Return the line for a file that could not be written; None for any other error."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in READ_ONLY and error.filename is not None:
        return f"{error.filename}: {error.strerror}; hydra.run.dir=FOLDER and cache.dir=FOLDER say where to write"
    full = error if isinstance(error, OSError) and error.errno in FULL else None
    if not full and not any(word in text for word in (*DISK_WORDS, *WRITER_WORDS)):
        return None
    what = full.strerror if full else next((word for word in DISK_WORDS if word in text), "a write failed")
    where = f" at {_folder(error.filename)}" if isinstance(error, OSError) and error.filename else ""
    return (
        f"the disk is full{where} ({what}): free some space or put the run elsewhere (hydra.run.dir, cache.dir); "
        f"whatever was complete is kept, and {advice.to_go_on()}"
    )


def _folder(file: object) -> Path:
    return Path(str(file)).parent


def _first_sentences(error: BaseException) -> str:
    """Return a library's message without its advice about its own environment variables."""
    return shorten(str(error), 160) or type(error).__name__
