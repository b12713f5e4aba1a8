#!/usr/bin/env bash
# Inference with what train.sh trained, for each model at each batch size; results in results/. Arguments go to each
# infer.py; with --top_k it ranks instead, and results/ stays as it is but for the logs.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$ROOT/utils/shell.sh"

read_settings
ensure_setup
hold_lock "$ROOT/results" "$@"
check_arguments "$@"
if [ -n "$RANKS" ]; then
  GOES_ON='' run_stage rank "ranking with" "$@"
else
  begin_results infer "$@"
  run_stage infer "inference with" "$@"
  end_results
fi
