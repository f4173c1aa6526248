#!/usr/bin/env bash
# A complete run on one machine, on all its GPUs (or on two CPU ranks): pairs -> shards -> training -> a folder that
# sentence-transformers loads -> a report against BM25.
#
#   bash launch/one_node.sh RECIPE PAIRS.jsonl BENCHMARK OUT [--group.key value ...]
#   bash launch/one_node.sh my_recipe.yaml nq.jsonl beir/nfcorpus runs/nq --batch.queries 4096
#
# PAIRS.jsonl has query, positive and optional negatives; BENCHMARK is a folder in BEIR format, or - to leave out the
# evaluation. The flags at the end override settings of the recipe.
#
# Ctrl-C, SIGHUP, SIGTERM and SIGUSR1 save the run and end it with status 75. Started again with the same OUT, every step
# goes on where it stopped.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source "$LARGEDE_ROOT/launch/leaving.sh"
(($# >= 4)) || die "usage: bash launch/one_node.sh RECIPE PAIRS.jsonl BENCHMARK OUT [--group.key value ...]"
recipe=$1 pairs=$2 benchmark=$3
demand_inputs "$recipe" "$pairs" "$benchmark" "$4"
# The ranks to tell are known by it.
out=$(realpath -m "$4")
shift 4

demand_program pgrep procps
install_largede

# on_all_devices HOW VERB ARGUMENT...: one rank for each GPU; HOW tells them to leave.
on_all_devices() {
    local start=(deepspeed --master_port "$(free_port)")
    if ! has_nvidia_gpu; then
        # Without a GPU the launcher cannot count devices: say how many ranks, and that they are CPU ranks.
        export DS_ACCELERATOR=cpu
        start+=(--num_accelerators 2)
    fi
    begin_step "$1" "${start[@]}" --module largede.cli "${@:2}"
    finish_step
    conclude_step "the ranks ended with status $step_status, as told above; the same command goes on from the last checkpoint"
}

if [[ ! -f $out/shards/index.json ]]; then
    do_step largede-data shard "$pairs" --out "$out/shards"
fi
do_step largede-data verify "$out/shards"

on_all_devices tell_ranks train "$recipe" --data.shards "$out/shards" --run.out "$out/train" "$@"

which_checkpoint "$out"
do_step largede export "$out/train" "$out/model" --again "${which[@]}"
[[ $benchmark != - ]] || exit 0

on_all_devices end_step evaluate \
    --model "$out/model" --data "$benchmark" --training "$out/train" --out "$out/report"
say "the report is $out/report/report.html"
