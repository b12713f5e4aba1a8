#!/usr/bin/env bash
# The benchmark: training, then inference. Variables and arguments are train.sh's; the arguments go to training.
here=${BASH_SOURCE:-$0}
. "${here%run.sh}utils/shell.sh" || return 1 2>/dev/null || exit 1

read_settings
check_arguments "$@"
ensure_setup
hold_lock "$ROOT/results" "$@"
ensure_data
begin_results run "$@"
"$ROOT/train.sh" "$@"
"$ROOT/infer.sh"
end_results
echo "Results are in results/: results_train.csv, results_infer.csv and report.html"
