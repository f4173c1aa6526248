#!/usr/bin/env bash
# A complete run on one machine, on all its GPUs (or on two CPU ranks): pairs -> shards -> training -> a folder that
# sentence-transformers loads -> a report against BM25.
#
#   bash launch/one_node.sh RECIPE PAIRS.jsonl BENCHMARK OUT [--group.key value ...]
#   bash launch/one_node.sh my_recipe.yaml nq.jsonl beir/nfcorpus runs/nq --batch.queries 4096
#
# PAIRS.jsonl has query, positive and optional negatives; BENCHMARK is a folder in BEIR format. The flags at the end
# override settings of the recipe. Started again with the same OUT, every step goes on where it stopped.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
(($# >= 4)) || die "usage: bash launch/one_node.sh RECIPE PAIRS.jsonl BENCHMARK OUT [--group.key value ...]"
recipe=$1 pairs=$2 benchmark=$3 out=$4
shift 4

install_largede

on_all_devices=(deepspeed --master_port "$(free_port)")
if ! has_nvidia_gpu; then
    # Without a GPU the launcher cannot count devices: say how many ranks, and that they are CPU ranks.
    export DS_ACCELERATOR=cpu
    on_all_devices+=(--num_accelerators 2)
fi

if [[ ! -f $out/shards/index.json ]]; then
    largede-data shard "$pairs" --out "$out/shards"
fi
largede-data verify "$out/shards"

"${on_all_devices[@]}" --module largede.cli train "$recipe" --data.shards "$out/shards" --run.out "$out/train" "$@"

if [[ ! -d $out/model ]]; then
    largede export "$out/train" "$out/model"
fi

"${on_all_devices[@]}" --module largede.cli evaluate \
    --model "$out/model" --data "$benchmark" --training "$out/train" --out "$out/report"
say "the report is $out/report/report.html"
