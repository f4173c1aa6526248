#!/usr/bin/env bash
# Lint, types and tests, the same at home and in CI. Installs what they need into .venv; runs all of them even if one
# fails, and fails if any did. Arguments go to pytest: `bash launch/test.sh tests/data_tools -k shard`.
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

install_largede dev
cd "$LARGEDE_ROOT" || exit
# Several test processes share few cores; more threads each would only fight.
export OMP_NUM_THREADS=1

failed=0
summary=()
check() {
    local name=$1 start=$SECONDS verdict=passed
    shift
    say "$name"
    "$@" || { verdict=FAILED; failed=1; }
    summary+=("$(printf '%-12s %s in %d s' "$name" "$verdict" $((SECONDS - start)))")
}

check lint ruff check .
check format ruff format --check .
check types mypy
check tests pytest --durations=10 "$@"

say "summary"
printf '  %s\n' "${summary[@]}"
exit "$failed"
