#!/usr/bin/env bash
# Lint, types and tests, the same at home and in CI. Installs what they need into .venv; runs all of them even if one
# fails, and fails if any did. Arguments go to pytest: `bash launch/test.sh tests/data_tools -k shard`.
#
# The last stage, clusters, trains over made hosts (network namespaces, sshd, pdsh, OpenMPI) and in a real Slurm of one
# node. It needs root and the programs of `cluster_packages`, and says why where it is skipped.
#
#   LARGEDE_INSTALL_CLUSTER_PROGRAMS=1   installs them first, with apt-get
#   LARGEDE_EXHAUSTIVE=1                 runs the long forms too: minutes of work over smaller tests that always run
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cluster_packages=(openssh-server openssh-client pdsh openmpi-bin slurm-wlm munge iproute2 procps shellcheck)
cluster_programs=(sshd ssh pdsh mpirun slurmctld slurmd sbatch munged ip pkill unshare nsenter)

install_cluster_programs() {
    local log=$VENV/cluster-programs.log
    say "installing ${cluster_packages[*]} (details in $log)"
    {
        timeout 120 apt-get update --quiet &&
            DEBIAN_FRONTEND=noninteractive timeout 300 \
                apt-get install --yes --quiet --no-install-recommends "${cluster_packages[@]}"
    } >"$log" 2>&1 || say "that failed: $(tail -n 1 "$log")"
}

# Prints why the stage cannot be run; nothing if it can.
why_no_clusters() {
    local program missing=()
    [[ $EUID == 0 ]] || { printf 'needs root'; return; }
    for program in "${cluster_programs[@]}"; do command -v "$program" >/dev/null || missing+=("$program"); done
    ((${#missing[@]} == 0)) || { printf 'no %s; LARGEDE_INSTALL_CLUSTER_PROGRAMS=1 installs them' "${missing[*]}"; return; }
    unshare --net --uts --mount --pid --fork true 2>/dev/null || printf 'namespaces are not allowed on this machine'
}

failed=0
summary=()
check() {
    local name=$1 start=$SECONDS verdict=passed
    shift
    say "$name"
    "$@" || { verdict=FAILED; failed=1; }
    summary+=("$(printf '%-12s %s in %d s' "$name" "$verdict" $((SECONDS - start)))")
}

skip() {
    say "$1: skipped, $2"
    summary+=("$(printf '%-12s skipped: %s' "$1" "$2")")
}

install_largede dev
cd "$LARGEDE_ROOT" || exit
export PATH=$PATH:/usr/sbin:/sbin
# Several test processes share few cores; more threads each would only fight.
export OMP_NUM_THREADS=1
[[ -z ${LARGEDE_INSTALL_CLUSTER_PROGRAMS:-} ]] || install_cluster_programs

check lint ruff check .
check format ruff format --check .
check types mypy
check tests pytest --durations=10 "$@"

reason=$(why_no_clusters)
if (($#)); then
    skip clusters "pytest was given arguments"
elif [[ -n $reason ]]; then
    skip clusters "$reason"
else
    check clusters env LARGEDE_CLUSTERS=1 pytest -m cluster -rs --durations=10 tests/launch
fi

say "summary"
printf '  %s\n' "${summary[@]}"
exit "$failed"
