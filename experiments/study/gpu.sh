#!/bin/sh
# The same rows where a GPU is, nine minutes at a time: what is interrupted resumes. Exit status 75: start it again.
#   until experiments/study/gpu.sh --tier 1; do [ $? -eq 75 ] || break; done
exec "$(dirname "$0")/run.sh" --minutes 9 "$@"
