#!/usr/bin/env bash
# Installs what the project needs into the active virtualenv or conda environment, else into .venv. Safe to run again.
#   ./setup.sh          to prepare data, train and infer
#   ./setup.sh --test   to run the tests as well
# A TensorFlow that is already there, such as a hardware vendor's build, is kept.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$ROOT/utils/shell.sh"

BASE_PYTHON=${BASE_PYTHON:-python3}   # makes .venv where no environment is active

wanted=(base)
case "$*" in
  "") ;;
  --test) wanted+=(test benchmarks) ;;
  *) fail "unknown arguments: $*; usage: ./setup.sh [--test]" ;;
esac

find_python
if [ ! -x "$PYTHON" ]; then
  [ -z "${VIRTUAL_ENV:-${CONDA_PREFIX:-}}" ] || fail "the active environment has no $PYTHON; deactivate it or mend it"
  command -v "$BASE_PYTHON" >/dev/null || fail "no $BASE_PYTHON found; install Python 3.7 to 3.13, or set BASE_PYTHON to one"
  "$BASE_PYTHON" -m venv "$ROOT/.venv" || fail "$BASE_PYTHON can't make a virtual environment; install its venv package"
fi
"$PYTHON" -c 'import sys; sys.exit(not (3, 7) <= sys.version_info[:2] <= (3, 13))' ||
  fail "$("$PYTHON" --version) is not supported; use Python 3.7 to 3.13, for example BASE_PYTHON=python3.11 ./setup.sh"

pip() { "$PYTHON" -m pip --disable-pip-version-check install --quiet "$@"; }

if has_modules tensorflow; then
  # Nothing that the present TensorFlow runs on may change: what is installed is the constraint, names are all we ask.
  echo "Keeping the TensorFlow that is installed."
  installed=$(mktemp)
  trap 'rm -f "$installed"' EXIT
  "$PYTHON" -m pip --disable-pip-version-check freeze | grep == >"$installed" || true
  names=$(for part in "${wanted[@]}"; do sed 's/#.*//; s/[=<>;].*//' "$ROOT/requirements/$part.txt"; done | sort -u)
  # shellcheck disable=SC2086  # a list of words
  pip --constraint "$installed" $names
else
  if command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then build=gpu; else build=cpu; fi
  echo "Installing TensorFlow ($build build) and what else is needed into $(dirname "$(dirname "$PYTHON")") ..."
  pip --requirement "$ROOT/requirements/tensorflow-$build.txt" \
    $(for part in "${wanted[@]}"; do echo "--requirement $ROOT/requirements/$part.txt"; done)
fi

cd "$ROOT"
"$PYTHON" -m utils.towers
