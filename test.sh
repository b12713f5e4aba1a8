#!/usr/bin/env bash
# Sets up what the tests need, then runs them; arguments go to pytest.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$ROOT/utils/shell.sh"

ensure_setup --test
cd "$ROOT"
exec "$PYTHON" -m pytest -rs "$@"
