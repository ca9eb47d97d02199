"""The message that the user reads if one of several processes fails, for every kind of failure."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace

from tltrain.entry import launch
from tltrain.errors import TltrainError


def ended(**codes: int) -> dict[int, SimpleNamespace]:
    """Return torch's failure records of processes by rank; `rank0=-6` means ended by SIGABRT."""
    return {
        int(name[4:]): SimpleNamespace(exitcode=code, local_rank=int(name[4:])) for name, code in sorted(codes.items())
    }


def report(place: Path, rank: int, error: Exception) -> None:
    """Report an error as a worker does in its own process."""
    launch.report_failure(place, rank, error)


def test_an_error_that_was_reported_outlives_the_abort_that_follows_it(tmp_path):
    report(tmp_path, 0, RuntimeError("the types differ"))
    line = launch._why(ended(rank0=-signal.SIGABRT, rank1=-signal.SIGTERM), tmp_path)
    assert line == "RuntimeError: the types differ"


def test_an_error_of_another_rank_is_named_with_its_rank(tmp_path):
    report(tmp_path, 1, TltrainError("the data is empty"))
    line = launch._why(ended(rank0=-signal.SIGTERM, rank1=1), tmp_path)
    assert line == "rank 1: the data is empty"


def test_a_killed_process_is_reported_before_the_others_errors_about_it(tmp_path):
    report(tmp_path, 0, RuntimeError("connection closed by peer"))
    line = launch._why(ended(rank0=1, rank1=-signal.SIGKILL), tmp_path)
    assert line.startswith("rank 1: killed by SIGKILL; did this machine run out of memory?")
    assert line.endswith("(another process failed too: RuntimeError: connection closed by peer)")


def test_where_the_launcher_had_to_kill_another_both_are_named(tmp_path):
    line = launch._why(ended(rank0=-signal.SIGKILL, rank1=-signal.SIGKILL), tmp_path)
    assert line.startswith("ranks 0 and 1: killed by SIGKILL")


def test_the_last_words_of_a_process_without_a_report_are_shown(tmp_path, capsys):
    log = tmp_path / "run" / "attempt_0" / "1" / "stderr.log"
    log.parent.mkdir(parents=True)
    log.write_text("Fatal Python error: Segmentation fault\n")
    assert launch._why(ended(rank0=-signal.SIGTERM, rank1=-signal.SIGSEGV), tmp_path) == "rank 1: killed by SIGSEGV"
    assert "Fatal Python error: Segmentation fault" in capsys.readouterr().err


def test_the_process_that_ended_by_itself_is_named_not_the_one_the_launcher_stopped(tmp_path):
    line = launch._why(ended(rank0=-signal.SIGTERM, rank1=3), tmp_path)
    assert line == "rank 1: ended with exit status 3"
