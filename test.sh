#!/usr/bin/env bash
# Sets up what the tests need, then runs them; arguments go to pytest.
here=${BASH_SOURCE:-$0}
. "${here%test.sh}utils/shell.sh" || return 1 2>/dev/null || exit 1

ensure_setup --test
cd "$ROOT"
exec "$PYTHON" -m pytest -rs "$@"
