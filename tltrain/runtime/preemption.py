"""Preemption: what a run does when it is sent SIGTERM, as schedulers do before they take a machine away.

While a model is trained the signal is noted, the step that is going on is finished, a checkpoint is saved, and the
process ends (`tltrain.training.checkpoints`); at any other moment it ends at once. The same command, repeated with
`stage.resume=true` (a pipeline needs no word for it), goes on from there.

The exit status is 143 = 128 + 15, what a shell, SLURM and Kubernetes report of a process that SIGTERM ended. So it is
what their rules know: `RequeueExit=143` in slurm.conf or `[ $? -eq 143 ] && scontrol requeue $SLURM_JOB_ID` in a batch
script, `onExitCodes` of a Kubernetes Job's podFailurePolicy (`restartPolicy: OnFailure` restarts at any status),
Nextflow's and Snakemake's retries. A run that failed ends with 1, so a mistake is not requeued for ever. Hydra's
submitit launcher requeues a job by itself at its own signal (SIGUSR2).
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

EXIT = 128 + signal.SIGTERM
"""The exit status."""
LIMIT = 25.0
"""Seconds that a process may take to end once all is saved (to close a tracker, to let go of others); schedulers kill
after 30."""


class Preempted(BaseException):
    """The run ends because it was sent SIGTERM; the message says what was saved. No failure, so no Exception."""


_asked = False
_deferred = 0
_limit: threading.Timer | None = None


@contextmanager
def handled() -> Iterator[None]:
    """Within it SIGTERM raises `Preempted` in the main thread. Nothing changes inside another one, or in a thread."""
    global _asked
    if signal.getsignal(signal.SIGTERM) is _on_sigterm or threading.current_thread() is not threading.main_thread():
        yield
        return
    _asked = False
    before = signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        yield
    finally:
        if _limit is not None:
            _limit.cancel()
        if before is not None:  # None: set by what is no Python code
            signal.signal(signal.SIGTERM, before)


def _on_sigterm(signum: int, frame: object) -> None:
    global _asked
    if _asked:  # a scheduler may send it to every process and to their leader, which hands it on
        return
    _asked = True
    if not _deferred:
        stop()


def asked() -> bool:
    """Whether the signal has come."""
    return _asked


def stop(saved: str = "") -> None:
    """Raise `Preempted`; `saved` says what is kept. What hangs on the way out is cut short."""
    global _limit
    _limit = threading.Timer(LIMIT, os._exit, [EXIT])
    _limit.daemon = True
    _limit.start()
    raise Preempted(f"stopped by SIGTERM{f': {saved}' if saved else ''} (exit status {EXIT})")


@contextmanager
def deferred() -> Iterator[None]:
    """Within it the signal is noted only: what runs there asks for it, and calls `stop` when it can."""
    global _deferred
    _deferred += 1
    try:
        yield
    finally:
        _deferred -= 1
    if _asked and not _deferred:
        stop()
