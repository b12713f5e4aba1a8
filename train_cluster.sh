#!/usr/bin/env bash
# As train.sh, with a cluster of NUM_WORKERS workers on this machine: for trying what several machines do (README).
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

export NUM_WORKERS=${NUM_WORKERS:-2}   # processes that train together
exec "$ROOT/train.sh" "$@"
