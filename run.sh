#!/usr/bin/env bash
# The benchmark: training, then inference. Variables and arguments are train.sh's; the arguments go to training.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

"$ROOT/train.sh" "$@"
"$ROOT/infer.sh"
echo "Results are in results/: results_train.csv and results_infer.csv"
