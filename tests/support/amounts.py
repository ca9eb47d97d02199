"""How much a long test does: the whole amount, or the value of an environment variable.

    make test-faults FAULTS_ANSWERS=2000 FAULTS_FILES=1000 FAULTS_SECONDS=120 FAULTS_JOBS=20 FAULTS_MOMENTS=2

Make passes variables on its command line to the tests; without it: `FAULTS_FILES=1000 pytest -m faults tests/faults`.
"""

from __future__ import annotations

import os

WHOLE = {
    "answers": 200_000,  # fuzzed model answers
    "files": 20_000,  # mutated files of all readers together
    "seconds": 3_600,  # for two pipelines on one cache
    "jobs": 100,  # in one sweep
    "moments": 5,  # per stage at which SIGTERM is sent
}


def amount(name: str) -> int:
    """Return `FAULTS_NAME` from the environment, or else the whole amount."""
    return int(os.environ.get(f"FAULTS_{name.upper()}", WHOLE[name]))
