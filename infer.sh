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
run_stage infer "inference with" "$@"
