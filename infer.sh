#!/usr/bin/env bash
# Inference with what train.sh trained, for each model at each batch size with each seed; results in results/. Arguments
# go to each infer.py; with --top_k it ranks instead, and results/ stays as it is but for the logs.
here=${BASH_SOURCE:-$0}
. "${here%infer.sh}utils/shell.sh" || return 1 2>/dev/null || exit 1

read_settings
check_arguments "$@"
ensure_setup
hold_lock "$ROOT/results" "$@"
check_checkpoints
if [ -n "$RANKS" ]; then
  GOES_ON='' run_stage rank "ranking with" "$@"
else
  begin_results infer "$@"
  run_stage infer "inference with" "$@"
  end_results
fi
