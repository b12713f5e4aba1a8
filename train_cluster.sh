#!/usr/bin/env bash
# As train.sh, with a cluster of NUM_WORKERS workers on this machine: for trying what several machines do (README).
here=${BASH_SOURCE:-$0}
. "${here%train_cluster.sh}utils/shell.sh" || return 1 2>/dev/null || exit 1

export NUM_WORKERS=${NUM_WORKERS:-2}   # processes that train together
exec "$ROOT/train.sh" "$@"
