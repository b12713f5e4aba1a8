#!/usr/bin/env bash
# Installs what the project needs into the active virtualenv or conda environment, else into .venv. Safe to run again.
#   ./setup.sh          to prepare data, train, infer and report
#   ./setup.sh --test   to run the tests as well
#   VENV=.venv-python3.7 BASE_PYTHON=python3.7 ./setup.sh   into that folder, with that Python
# A TensorFlow that is already there, such as a hardware vendor's build, is kept.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$ROOT/utils/shell.sh"

BASE_PYTHON=${BASE_PYTHON:-python3}   # makes the environment where there is none yet

wanted=(base)
optional=
case "$*" in
  "") ;;
  --test)
    wanted+=(test serve)
    optional=onnx  # what a TensorFlow that is there already may not go together with
    ;;
  *) fail "unknown arguments: $*; usage: ./setup.sh [--test]" ;;
esac

# Fails unless the Python $1 is of a version that requirements/ has packages for; $2 says what to do instead.
check_version() {
  local version
  version=$("$1" -c 'import platform; print(platform.python_version())' 2>/dev/null) || fail "$1 can't be run; $2"
  case $version in
    3.[789].* | 3.1[0123].*) ;;
    *) fail "$1 is Python $version, not 3.7 to 3.13; $2" ;;
  esac
}

find_python
if [ ! -x "$PYTHON" ]; then
  [ -n "${VENV:-}" ] || [ -z "${VIRTUAL_ENV:-${CONDA_PREFIX:-}}" ] ||
    fail "the active environment has no $PYTHON; deactivate it or mend it"
  check_version "$BASE_PYTHON" "install Python 3.7 to 3.13 and name it, for example BASE_PYTHON=python3.11 ./setup.sh"
  "$BASE_PYTHON" -m venv "$ENVIRONMENT" ||
    fail "$BASE_PYTHON can't make a virtual environment; install its venv package"
fi
check_version "$PYTHON" "deactivate or remove that environment, or name another, for example VENV=.venv-new ./setup.sh"

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
  echo "Installing TensorFlow ($build build) and what else is needed into $ENVIRONMENT ..."
  pip --requirement "$ROOT/requirements/tensorflow-$build.txt" \
    $(for part in "${wanted[@]}" $optional; do echo "--requirement $ROOT/requirements/$part.txt"; done)
fi

cd "$ROOT"
"$PYTHON" -m utils.towers
