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
run_stage train training --epochs "$EPOCHS" "$@"
