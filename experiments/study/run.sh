#!/bin/sh
# The study's runner; experiments/study/run.sh --help. PYTHON names the interpreter of the environment.
cd "$(dirname "$0")/../.." || exit 1
exec nice -n 19 env OMP_WAIT_POLICY=passive "${PYTHON:-python}" -m experiments.study.run "$@"
