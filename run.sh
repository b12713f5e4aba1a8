#!/usr/bin/env bash
# The benchmark: training, then inference. Variables and arguments are train.sh's; the arguments go to training.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$ROOT/utils/shell.sh"

read_settings
ensure_setup
hold_lock "$ROOT/results" "$@"
check_arguments "$@"
ensure_data
begin_results run "$@"
"$ROOT/train.sh" "$@"
"$ROOT/infer.sh"
end_results
echo "Results are in results/: results_train.csv, results_infer.csv and report.html"
