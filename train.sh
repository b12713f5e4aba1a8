#!/usr/bin/env bash
# Trains each model at each batch size; results in results/. Arguments go to each train.py. After an interruption the same
# command goes on where it stopped.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$ROOT/utils/shell.sh"

read_settings
ensure_setup
hold_lock "$ROOT/results" "$@"
check_arguments "$@"
ensure_data
begin_results train "$@"
run_stage train training --epochs "$EPOCHS" ${GOES_ON:+--resume unfinished} "$@"
end_results
