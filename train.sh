#!/usr/bin/env bash
# Trains each model at each batch size; results in results/. Arguments go to each train.py.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$ROOT/utils/shell.sh"

MODELS=${MODELS:-din}                        # any of din din_dice deepFM pnn wide_deep, or all
BATCH_SIZES=${BATCH_SIZES:-256 512 1024}     # recommendations per accelerator
EPOCHS=${EPOCHS:-2}                          # passes over the training set
NUM_ACCELERATORS=${NUM_ACCELERATORS:-1}      # devices to split each batch over

find_models
ensure_setup
ensure_data
cd "$ROOT"
"$PYTHON" -m utils.results set_aside train
mkdir -p results
for model in $MODEL_LIST; do
  for batch_size in $BATCH_SIZES; do
    echo "== training $model, batch size $batch_size"
    # shellcheck disable=SC2046  # no flag, or one
    (cd "$(folder_of "$model")" && "$PYTHON" train.py $(flags_of "$model") --batch_size "$batch_size" \
      --num_accelerators "$NUM_ACCELERATORS" --epochs "$EPOCHS" --save_path "$(save_path_of "$model" "$batch_size")" "$@") |
      tee "results/result_train_${model}_$batch_size.txt"
  done
done
