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
# Ctrl-C, SIGHUP, SIGTERM and SIGUSR1 save the run and end it with status 75. A machine that is lost ends the run on the others.
# Either way the same command goes on from the last checkpoint, on the machines that HOSTFILE names then.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source "$LARGEDE_ROOT/launch/hosts.sh"
(($# >= 5)) || die "usage: bash launch/many_nodes.sh HOSTFILE RECIPE PAIRS.jsonl BENCHMARK OUT [--group.key value ...]"
launcher=${LAUNCHER:-pdsh} hostfile=$1 recipe=$2 pairs=$3 benchmark=$4
# Other machines start in their own working folder, so every path they see must be absolute.
out=$(realpath -m "$5")
[[ ! -f $recipe ]] || recipe=$(realpath "$recipe")
[[ $benchmark == - ]] || benchmark=$(realpath "$benchmark")
shift 5

read_hosts "$hostfile"
case $launcher in
    pdsh) demand_program pdsh pdsh ;;
    openmpi) demand_program mpirun openmpi-bin ;;
    *) die "LAUNCHER=$launcher; expected pdsh or openmpi" ;;
esac
demand_program ssh openssh-client
install_largede
demand_hosts "$out"

# on_all_machines VERB ARGUMENT...: one rank for each slot. Ends the script when the ranks did not come to their end.
on_all_machines() {
    local address port step watcher status=0
    address=${MASTER_ADDR:-$(hostname -I | cut -d' ' -f1)} port=$(free_port)
    local start=(deepspeed --hostfile "$hostfile" --launcher "$launcher" --master_addr "$address" --master_port "$port")
    if [[ $launcher == openmpi ]]; then
        # OpenMPI would bind every rank to one core, and start ranks on the third host from the second.
        start+=(--launcher_args "-x MASTER_ADDR=$address -x MASTER_PORT=$port --bind-to none --mca plm_rsh_no_tree_spawn 1")
    fi
    # In a session of its own, so that Ctrl-C comes to this script alone.
    setsid "${start[@]}" --module largede.cli "$@" &
    step=$!
    watch_hosts "$out" "$step" &
    watcher=$!
    wait "$step" || status=$?
    # A trapped signal ends `wait` early; the ranks are then still saving.
    while kill -0 "$step" 2>/dev/null; do status=0; wait "$step" || status=$?; done
    kill "$watcher" 2>/dev/null || true
    wait "$watcher" 2>/dev/null || true
    case $status in
        0) ;;
        75) say "saved and ended by a signal; the same command goes on"; exit 75 ;;
        *) die "the ranks ended with status $status, as told above; the same command goes on from the last checkpoint, on the hosts $hostfile names then" ;;
    esac
}

# One rank that is told tells all; the first host is this one.
trap 'say "asking the ranks to save and leave" || true; pkill -USR1 -f "$(ranks_of "$out")" || true' HUP INT TERM USR1

if [[ ! -f $out/shards/index.json ]]; then
    largede-data shard "$pairs" --out "$out/shards"
fi
largede-data verify "$out/shards"

on_all_machines train "$recipe" --data.shards "$out/shards" --run.out "$out/train" "$@"

if [[ ! -d $out/model ]]; then
    largede export "$out/train" "$out/model"
fi
[[ $benchmark != - ]] || exit 0

on_all_machines evaluate --model "$out/model" --data "$benchmark" --training "$out/train" --out "$out/report"
say "the report is $out/report/report.html"
