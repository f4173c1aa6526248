#!/usr/bin/env bash
# The same complete run on several machines, started by hand from the first of them.
#
#   bash launch/many_nodes.sh HOSTFILE RECIPE PAIRS.jsonl BENCHMARK OUT [--group.key value ...]
#   LAUNCHER=openmpi bash launch/many_nodes.sh ...          with mpirun instead of pdsh
#
# HOSTFILE has one line for each machine, with the number of its GPUs; the first line is the machine you are on:
#
#   node-a slots=8
#   node-b slots=8
#
# BENCHMARK is a folder in BEIR format, or - to leave out the evaluation.
#
# Needed on every machine: this folder, its .venv and OUT under the same path (a shared file system), pdsh or OpenMPI, and
# ssh without a password from the first to all. Variables that NCCL needs on the others (say, NCCL_SOCKET_IFNAME=ib0) go,
# one NAME=VALUE a line, into ~/.deepspeed_env. Ranks meet at the first address of the first machine, or at MASTER_ADDR.
#
# Ctrl-C, SIGHUP, SIGTERM and SIGUSR1 save the run and end it with status 75. A machine that is lost ends the run on the
# others. Either way the same command goes on from the last checkpoint, on the machines that HOSTFILE names then.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source "$LARGEDE_ROOT/launch/leaving.sh"
source "$LARGEDE_ROOT/launch/hosts.sh"
(($# >= 5)) || die "usage: bash launch/many_nodes.sh HOSTFILE RECIPE PAIRS.jsonl BENCHMARK OUT [--group.key value ...]"
launcher=${LAUNCHER:-pdsh} hostfile=$1 recipe=$2 pairs=$3 benchmark=$4
demand_inputs "$recipe" "$pairs" "$benchmark" "$5"
# Other machines start in their own working folder, so every path they see must be absolute.
out=$(realpath -m "$5")
[[ ! -f $recipe ]] || recipe=$(realpath "$recipe")
[[ $benchmark == - ]] || benchmark=$(realpath "$benchmark")
shift 5

read_hosts "$hostfile"
case $launcher in
    pdsh) demand_program pdsh pdsh "on every host" ;;
    openmpi) demand_program mpirun openmpi-bin "on every host" ;;
    *) die "LAUNCHER=$launcher; expected pdsh or openmpi" ;;
esac
demand_program ssh openssh-client "on every host"
demand_program pgrep procps "on every host"
install_largede
demand_hosts "$out"

# on_all_machines HOW VERB ARGUMENT...: one rank for each slot; HOW tells them to leave. Ends the script when the ranks did
# not come to their end.
on_all_machines() {
    local address port watcher
    address=${MASTER_ADDR:-$(hostname -I | cut -d' ' -f1)} port=$(free_port)
    local start=(deepspeed --hostfile "$hostfile" --launcher "$launcher" --master_addr "$address" --master_port "$port")
    if [[ $launcher == openmpi ]]; then
        # OpenMPI would bind every rank to one core, and start ranks on the third host from the second.
        start+=(--launcher_args "-x MASTER_ADDR=$address -x MASTER_PORT=$port --bind-to none --mca plm_rsh_no_tree_spawn 1")
    fi
    begin_step "$1" "${start[@]}" --module largede.cli "${@:2}"
    watch_hosts "$out" "$step" &
    watcher=$!
    finish_step
    kill "$watcher" 2>/dev/null || true
    wait "$watcher" 2>/dev/null || true
    conclude_step "the ranks ended with status $step_status, as told above; the same command goes on from the last checkpoint, on the hosts $hostfile names then"
}

told_here=no
# Never content, so it is asked again until the launcher has ended.
tell_all_ranks() {
    local host
    if [[ $told_here == no ]]; then
        if tell_ranks; then told_here=yes; fi
    elif ! pgrep -f "$(ranks_of "$out")" >/dev/null; then
        # Those of other hosts left with these, or had not joined them yet and would wait for them for ever.
        for host in "${hosts[@]:1}"; do signal_ranks "$host" USR1 "$out"; done
    fi
    return 1
}

# Of an evaluation, which has nothing to save.
end_ranks() {
    local host
    for host in "${hosts[@]}"; do signal_ranks "$host" TERM "$out"; done
    end_step
}

if [[ ! -f $out/shards/index.json ]]; then
    do_step largede-data shard "$pairs" --out "$out/shards"
fi
do_step largede-data verify "$out/shards"

on_all_machines tell_all_ranks train "$recipe" --data.shards "$out/shards" --run.out "$out/train" "$@"

which_checkpoint "$out"
do_step largede export "$out/train" "$out/model" --again "${which[@]}"
[[ $benchmark != - ]] || exit 0

on_all_machines end_ranks evaluate \
    --model "$out/model" --data "$benchmark" --training "$out/train" --out "$out/report"
say "the report is $out/report/report.html"
