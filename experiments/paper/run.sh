#!/bin/sh
# The paper's own run; experiments/paper/run.sh --help. PYTHON names the interpreter of the environment.
cd "$(dirname "$0")/../.." || exit 1
exec "${PYTHON:-python}" -m experiments.paper.run "$@"
