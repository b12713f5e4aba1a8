#!/usr/bin/env bash
# Inference with what train.sh trained, for each model at each batch size; results in results/. Arguments go to each infer.py.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$ROOT/utils/shell.sh"

MODELS=${MODELS:-din}                        # any of din din_dice deepFM pnn wide_deep, or all
BATCH_SIZES=${BATCH_SIZES:-256 512 1024}     # users per accelerator
NUM_ACCELERATORS=${NUM_ACCELERATORS:-1}      # devices to split each batch over

find_models
ensure_setup
cd "$ROOT"
"$PYTHON" -m utils.results set_aside infer
mkdir -p results
for model in $MODEL_LIST; do
  for batch_size in $BATCH_SIZES; do
    echo "== inference with $model, batch size $batch_size"
    # shellcheck disable=SC2046  # no flag, or one
    (cd "$(folder_of "$model")" && "$PYTHON" infer.py $(flags_of "$model") --batch_size "$batch_size" \
      --num_accelerators "$NUM_ACCELERATORS" --save_path "$(save_path_of "$model" "$batch_size")" "$@") |
      tee "results/result_infer_${model}_$batch_size.txt"
  done
done
