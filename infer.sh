#!/usr/bin/env bash
# Inference with what train.sh trained, for each model at each batch size; results in results/. Arguments go to each infer.py.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$ROOT/utils/shell.sh"

read_settings
ensure_setup
hold_lock "$ROOT/results" "$@"
begin_results infer "$@"
run_stage infer "inference with" "$@"
end_results
