"""Preemption: how a run reacts to SIGTERM, which schedulers send before they take a machine away.

During training the current step is finished, a checkpoint is saved, and the process ends
(`tltrain.training.checkpoints`); at any other moment it ends at once. The same command, repeated with
`stage.resume=true` (a pipeline resumes by itself), continues from there.

The exit status is 143 = 128 + 15, which shells, SLURM and Kubernetes report for a process ended by SIGTERM. Their rules
can match it: `RequeueExit=143` in slurm.conf or `[ $? -eq 143 ] && scontrol requeue $SLURM_JOB_ID` in a batch script,
`onExitCodes` of a Kubernetes Job's podFailurePolicy (`restartPolicy: OnFailure` restarts at any status), and the
retries of Nextflow and Snakemake. A run that failed ends with 1, so that a mistake is not requeued forever. Hydra's
submitit launcher requeues a job by itself at its own signal (SIGUSR2).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

EXIT = 128 + signal.SIGTERM
"""Exit status of a preempted run."""
LIMIT = 25.0
"""Seconds that a process may take to end once everything is saved (to close a tracker, to release other processes);
schedulers kill after 30."""
PAUSE = 0.05
"""Seconds until `Preempted` is raised again if Python discarded it."""


class Preempted(BaseException):
    """The run ends because of SIGTERM; the message says what was saved. It is not a failure, hence no `Exception`."""


_asked = False
_deferred = 0
_limit: threading.Timer | None = None
_again: threading.Timer | None = None


@contextmanager
def handled() -> Iterator[None]:
    """Raise `Preempted` at SIGTERM within the block, in the main thread; nested blocks change nothing."""
    global _asked
    if signal.getsignal(signal.SIGTERM) is _on_sigterm or threading.current_thread() is not threading.main_thread():
        yield
        return
    _asked = False
    before, hook = signal.signal(signal.SIGTERM, _on_sigterm), sys.unraisablehook
    sys.unraisablehook = lambda discarded: (_raise_again if discarded.exc_type is Preempted else hook)(discarded)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for timer in (_limit, _again):
            if timer is not None:
                timer.cancel()
        if before is not None:  # None: the handler was not installed from Python
            signal.signal(signal.SIGTERM, before)


def _on_sigterm(signum: int, frame: object) -> None:
    global _asked
    if _asked:  # a scheduler may send it to every process and to their leader, which forwards it
        return
    _asked = True
    if not _deferred:
        stop()


def _raise_again(discarded: object) -> None:
    """Send the signal again, since an exception raised while an object is deleted or a generator closed is lost."""
    global _asked, _again
    _asked = False
    _again = threading.Timer(PAUSE, os.kill, [os.getpid(), signal.SIGTERM])
    _again.daemon = True
    _again.start()


def asked() -> bool:
    """Return whether SIGTERM has arrived."""
    return _asked


def stop(saved: str = "") -> None:
    """Raise `Preempted`; `saved` says what was saved. A process that hangs while ending is killed after `LIMIT` s."""
    global _limit
    if _limit is not None:
        _limit.cancel()
    _limit = threading.Timer(LIMIT, os._exit, [EXIT])
    _limit.daemon = True
    _limit.start()
    raise Preempted(f"stopped by SIGTERM{f': {saved}' if saved else ''} (exit status {EXIT})")


@contextmanager
def deferred() -> Iterator[None]:
    """Only record SIGTERM within the block; the code there polls `asked` and calls `stop` when it can."""
    global _deferred
    _deferred += 1
    try:
        yield
    finally:
        _deferred -= 1
    if _asked and not _deferred:
        stop()
