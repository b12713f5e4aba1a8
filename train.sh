#!/usr/bin/env bash
# Trains each model at each batch size with each seed; results in results/. Arguments go to each train.py. After an
# interruption the same command goes on where it stopped.
here=${BASH_SOURCE:-$0}
. "${here%train.sh}utils/shell.sh" || return 1 2>/dev/null || exit 1

read_settings
check_arguments "$@"
ensure_setup
hold_lock "$ROOT/results" "$@"
ensure_data
begin_results train "$@"
run_stage train training --epochs "$EPOCHS" ${GOES_ON:+--resume unfinished} "$@"
end_results
