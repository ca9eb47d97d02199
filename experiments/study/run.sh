#!/bin/sh
# The study's runner; experiments/study/run.sh --help. PYTHON names the interpreter of the environment.
cd "$(dirname "$0")/../.." || exit 1
exec env OMP_WAIT_POLICY=passive nice -n 19 "${PYTHON:-python}" -m experiments.study.run "$@"
