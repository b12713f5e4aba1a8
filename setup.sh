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

# True where there is an environment: a Python of its own, which runs. Else PROBLEM says what that says.
has_environment() {
  PROBLEM=$("$PYTHON" -c 'import os, sys
if not os.path.samefile(sys.prefix, sys.argv[1]):
  sys.exit("it is that of " + sys.prefix)' "$ENVIRONMENT" 2>&1) && return 0
  PROBLEM=${PROBLEM%%$'\n'*}
  PROBLEM=${PROBLEM#*: line *: }  # bash's own words
  return 1
}

# True where setup.sh has made the environment, if not always to its end.
is_made_here() { [ -e "$ENVIRONMENT/.made_by_setup" ]; }

# True where nothing is in the environment's place.
is_free() { [ -z "$(ls -A "$ENVIRONMENT" 2>/dev/null)" ]; }

# Fails where no environment can be made.
check_base_python() {
  check_version "$BASE_PYTHON" "install Python 3.7 to 3.13 and name it, for example BASE_PYTHON=python3.11 ./setup.sh"
  "$BASE_PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$BASE_PYTHON has no module venv or ensurepip; install it (Debian and Ubuntu: apt install python3-venv), or" \
      "name another Python, for example BASE_PYTHON=python3.11 ./setup.sh"
  case $ENVIRONMENT in
    *:* | *$'\n'*) fail "an environment's path has no ':' and no line break, as $ENVIRONMENT has; $elsewhere" ;;
  esac
}

# True where the environment is there and whole.
is_whole() { has_environment && installation check "$build" 2>/dev/null; }

# Puts back the environment in whose place another was to be made, where that is not whole. Each step is a rename, so
# that a set-up that is killed in between is settled by the next one.
settle() {
  [ -e "$aside/earlier" ] || return 0
  if is_made_here && ! is_whole; then
    mv "$ENVIRONMENT" "$aside/unfinished"
  fi
  if is_free; then
    rmdir "$ENVIRONMENT" 2>/dev/null || true
    mv "$aside/earlier" "$ENVIRONMENT"
  fi
  rm -rf "$aside/unfinished" "$aside/earlier"
}

find_python
aside=$ENVIRONMENT.setup   # set-up's lock, and what it puts aside
if command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then build=gpu; else build=cpu; fi

if ! is_made_here && [ ! -e "$aside/earlier" ] && ! has_environment; then
  [ "$ENVIRONMENT" = "$ROOT/.venv" ] || [ -n "${VENV:-}" ] ||
    fail "the active environment has no $PYTHON that runs ($PROBLEM); deactivate it or mend it"
  is_free || fail "$ENVIRONMENT has files, but no Python of its own that runs ($PROBLEM); mend or remove it, or $another"
  check_base_python
  is_new=1
fi
if [ -n "${is_new:-}" ] || is_made_here || [ -e "$aside/earlier" ]; then
  find_plain_python || check_version "$BASE_PYTHON" "$another"
  mkdir -p "$aside" 2>/dev/null || fail "$ENVIRONMENT can't be written; $elsewhere"
  hold_lock "$aside" "$@"
  rm -rf "$aside/unfinished"
  settle
  if is_made_here && ! is_whole; then
    check_base_python
    echo "$ENVIRONMENT is not whole, or not for this place, Python and device; it is made anew."
    mv "$ENVIRONMENT" "$aside/earlier" || fail "$ENVIRONMENT can't be moved; remove it"
    trap settle EXIT
  fi
  if is_free; then
    { mkdir -p "$ENVIRONMENT" && : >"$ENVIRONMENT/.made_by_setup"; } 2>/dev/null ||
      fail "$ENVIRONMENT can't be written; $elsewhere"
    "$BASE_PYTHON" -m venv "$ENVIRONMENT" >&2 || fail "$BASE_PYTHON can't make an environment in $ENVIRONMENT"
  fi
elif [[ $ENVIRONMENT == "$ROOT"/.venv* ]] && ! "$PYTHON" -m pip --version >/dev/null 2>&1; then
  "$PYTHON" -m ensurepip >/dev/null 2>&1 || true  # installation.py says it
fi
check_version "$PYTHON" "deactivate or remove that environment, or $another"
installation install "$build" "$@"
trap - EXIT
rm -rf "$aside"

cd "$ROOT"
"$PYTHON" -m utils.towers
