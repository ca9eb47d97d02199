"""How much the long form of a test does: the whole amount, or what an environment variable says.

    make test-faults FAULTS_ANSWERS=2000 FAULTS_FILES=1000 FAULTS_SECONDS=120 FAULTS_JOBS=20 FAULTS_MOMENTS=2

Make hands variables of its command line to the tests; without it, `FAULTS_FILES=1000 pytest -m faults tests/faults`.
"""

from __future__ import annotations

import os

WHOLE = {
    "answers": 200_000,  # fuzzed answers of a model
    "files": 20_000,  # mutated files of all readers together
    "seconds": 3_600,  # of two pipelines on one cache
    "jobs": 100,  # in one sweep
    "moments": 5,  # of a stage at which SIGTERM is sent
}


def amount(name: str) -> int:
    """`FAULTS_NAME` of the environment, else the whole amount."""
    return int(os.environ.get(f"FAULTS_{name.upper()}", WHOLE[name]))
