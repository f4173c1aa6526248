#!/usr/bin/env bash
# The same complete run on several machines, started by hand from the first of them.
#
#   bash launch/many_nodes.sh HOSTFILE RECIPE PAIRS.jsonl BENCHMARK OUT [--group.key value ...]
#
# HOSTFILE has one line for each machine, with the number of its GPUs; the first line is the machine you are on:
#
#   node-a slots=8
#   node-b slots=8
#
# Needed on every machine: this folder, its .venv and OUT under the same path (a shared file system), pdsh, and ssh
# without a password from the first to all. Variables that NCCL needs on the others (say, NCCL_SOCKET_IFNAME=ib0) go,
# one NAME=VALUE a line, into ~/.deepspeed_env.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
(($# >= 5)) || die "usage: bash launch/many_nodes.sh HOSTFILE RECIPE PAIRS.jsonl BENCHMARK OUT [--group.key value ...]"
[[ -f $1 ]] || die "no hostfile $1"
command -v pdsh >/dev/null || die "needs pdsh; on Debian and Ubuntu: sudo apt install pdsh"
hosts=$1 recipe=$2 pairs=$3 benchmark=$4
# Other machines start in their own working folder, so every path they see must be absolute.
out=$(realpath -m "$5") recipe=$(realpath "$recipe") benchmark=$(realpath "$benchmark")
shift 5

install_largede

on_all_machines=(deepspeed --hostfile "$hosts" --launcher pdsh --master_port "$(free_port)" --module largede.cli)

if [[ ! -f $out/shards/index.json ]]; then
    largede-data shard "$pairs" --out "$out/shards"
fi
largede-data verify "$out/shards"

"${on_all_machines[@]}" train "$recipe" --data.shards "$out/shards" --run.out "$out/train" "$@"

if [[ ! -d $out/model ]]; then
    largede export "$out/train" "$out/model"
fi

"${on_all_machines[@]}" evaluate \
    --model "$out/model" --data "$benchmark" --training "$out/train" --out "$out/report"
say "the report is $out/report/report.html"
