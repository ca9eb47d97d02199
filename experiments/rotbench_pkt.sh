#!/usr/bin/env bash
# SmolLM2-135M on RoTBench's third-turn trajectories (MAE + PKT against standard SFT), scored on the first turn.
#   experiments/rotbench_pkt.sh FOLDER        FOLDER holds first_turn/ and third_turn/
set -euo pipefail
data=${1:?usage: experiments/rotbench_pkt.sh FOLDER}
out=${2:-outputs/rotbench_pkt}
python=${PYTHON:-python}
for stage in sft pkt; do
  $python -m tltrain stage=$stage data=rotbench "data.path=$data" hydra.run.dir="$out/$stage"
  $python -m tltrain stage=eval benchmark=rotbench "benchmark.path=$data" "model.path=$out/$stage/model" \
    stage.max_new_tokens=96 hydra.run.dir="$out/eval_$stage"
done
