#!/usr/bin/env bash
# Installs what the project needs into the active virtualenv or conda environment, else into .venv. Safe to run again.
#   ./setup.sh          to prepare data, train, infer and report
#   ./setup.sh --test   to run the tests as well
#   VENV=.venv-python3.7 BASE_PYTHON=python3.7 ./setup.sh   into that folder, with that Python
# A TensorFlow that is already there, such as a hardware vendor's build, is kept. An environment that setup.sh made itself
# and that is not whole any more, it makes anew.
here=${BASH_SOURCE:-$0}
. "${here%setup.sh}utils/shell.sh" || return 1 2>/dev/null || exit 1

BASE_PYTHON=${BASE_PYTHON:-python3}   # makes the environment where there is none yet

case "$*" in
  "" | --test) ;;
  *) fail "unknown arguments: $*; usage: ./setup.sh [--test]" ;;
esac

elsewhere="name another folder, for example VENV=/tmp/venv ./setup.sh"
another="name another, for example VENV=.venv-new ./setup.sh"

# Fails unless the Python $1 is of a version that requirements/ has packages for; $2 says what to do instead.
check_version() {
  local version
  version=$("$1" -c 'import platform; print(platform.python_version())' 2>/dev/null) || fail "$1 can't be run; $2"
  case $version in
    3.[789].* | 3.1[0123].*) ;;
    *) fail "$1 is Python $version, not 3.7 to 3.13; $2" ;;
  esac
}

# True where there is an environment: a Python of its own, which runs.
has_environment() {
  "$PYTHON" -c 'import os, sys; sys.exit(not os.path.samefile(sys.prefix, sys.argv[1]))' "$ENVIRONMENT" 2>/dev/null
}

# True where setup.sh has made the environment, if not always to its end.
is_made_here() { [ -e "$ENVIRONMENT/.made_by_setup" ]; }

# Makes the folder of the environment, with the mark that it is setup.sh's; fails where no environment can be made.
claim_folder() {
  check_version "$BASE_PYTHON" "install Python 3.7 to 3.13 and name it, for example BASE_PYTHON=python3.11 ./setup.sh"
  "$BASE_PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$BASE_PYTHON has no module venv or ensurepip; install it (Debian and Ubuntu: apt install python3-venv), or" \
      "name another Python, for example BASE_PYTHON=python3.11 ./setup.sh"
  case $ENVIRONMENT in
    *:* | *$'\n'*) fail "an environment's path has no ':' and no line break, as $ENVIRONMENT has; $elsewhere" ;;
  esac
  { mkdir -p "$ENVIRONMENT" && : >"$ENVIRONMENT/.made_by_setup"; } 2>/dev/null ||
    fail "$ENVIRONMENT can't be written; $elsewhere"
}

# Puts back what was there before the environment was to be made anew, where that came to no end.
put_back() {
  [ -d "$earlier" ] || return 0
  rm -rf "$ENVIRONMENT"/*
  mv "$earlier"/* "$ENVIRONMENT" && rmdir "$earlier"
}

find_python
earlier=$ENVIRONMENT/.earlier
if command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then build=gpu; else build=cpu; fi

# .venv, or another .venv* in the project, is setup.sh's to make anew where its Python is gone; others are the user's.
case $ENVIRONMENT in "$ROOT"/.venv*) in_project=1 ;; *) in_project= ;; esac
if ! has_environment && ! is_made_here; then
  if [ -z "$in_project" ]; then
    [ -n "${VENV:-}" ] || fail "the active environment has no $PYTHON that runs; deactivate it or mend it"
    [ -z "$(ls -A "$ENVIRONMENT" 2>/dev/null)" ] || fail "$ENVIRONMENT has files, but no bin/python of its own; $elsewhere"
  fi
  claim_folder
fi

if is_made_here; then
  find_plain_python || check_version "$BASE_PYTHON" "$another"
  hold_lock "$ENVIRONMENT" "$@"
  put_back
  if ! has_environment || ! installation check "$build" 2>/dev/null; then
    claim_folder
    if [ -n "$(ls "$ENVIRONMENT")" ]; then
      echo "$ENVIRONMENT is not whole, or not for this place, Python and device; it is made anew."
      { mkdir "$earlier" && mv "$ENVIRONMENT"/* "$earlier"; } || fail "$ENVIRONMENT can't be emptied; remove it"
      trap put_back EXIT
    fi
    "$BASE_PYTHON" -m venv "$ENVIRONMENT" >&2 || fail "$BASE_PYTHON can't make an environment in $ENVIRONMENT"
  fi
elif [ -n "$in_project" ] && ! "$PYTHON" -m pip --version >/dev/null 2>&1; then
  "$PYTHON" -m ensurepip >/dev/null 2>&1 || true  # installation.py says it
fi
check_version "$PYTHON" "deactivate or remove that environment, or $another"
installation install "$build" "$@"
rm -rf "$earlier"

cd "$ROOT"
"$PYTHON" -m utils.towers
