#!/usr/bin/env bash
# What each pod of launch/kubernetes.yaml runs: the ranks of its node through the whole run.
#
#   NODES=2 RANKS_PER_NODE=8 MASTER_ADDR=HOST JOB_COMPLETION_INDEX=0 bash launch/pod.sh \
#       RECIPE PAIRS.jsonl BENCHMARK OUT [--group.key value ...]
#
# JOB_COMPLETION_INDEX, which Kubernetes sets, is the number of the node, from 0. BENCHMARK may be - for no evaluation. Not
# by way of a launcher: those kill what still saves half a minute after SIGTERM, and not all hand on the status 75.
#
#   PATIENCE_S   seconds that the other ranks of the node have to end in when the first has left with a failure (300)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
(($# >= 4)) || die "usage: bash launch/pod.sh RECIPE PAIRS.jsonl BENCHMARK OUT [--group.key value ...]"
for name in NODES RANKS_PER_NODE JOB_COMPLETION_INDEX; do
    [[ ${!name:-} =~ ^[0-9]+$ ]] || die "$name is '${!name:-}'; expected a whole number (see launch/kubernetes.yaml)"
done
((JOB_COMPLETION_INDEX < NODES)) || die "node $JOB_COMPLETION_INDEX of $NODES: parallelism, completions and NODES must be equal"
[[ -n ${MASTER_ADDR:-} ]] || die "MASTER_ADDR is not set; expected the name of the first pod"
recipe=$1 pairs=$2 benchmark=$3 out=$4
shift 4
demand_inputs "$recipe" "$pairs" "$benchmark" "$out"
use_installed
export MASTER_ADDR MASTER_PORT=${MASTER_PORT:-29500}
export WORLD_SIZE=$((NODES * RANKS_PER_NODE)) LOCAL_WORLD_SIZE=$RANKS_PER_NODE

ranks=()
leave() {
    ((${#ranks[@]})) || exit 75
    kill -TERM "${ranks[@]}" 2>/dev/null || true
}
trap leave TERM INT USR1

# on_ranks VERB ARGUMENT...: the ranks of this node. Leaves with the first status that is not 0; 75 stands for "saved".
on_ranks() {
    local local_rank process patience='' status=0 last=0
    ranks=()
    for ((local_rank = 0; local_rank < RANKS_PER_NODE; local_rank++)); do
        RANK=$((JOB_COMPLETION_INDEX * RANKS_PER_NODE + local_rank)) LOCAL_RANK=$local_rank \
            python -m largede.cli "$@" &
        ranks+=($!)
    done
    while ((${#ranks[@]})); do
        last=0
        wait -n -p process "${ranks[@]}" || last=$?
        # A trapped signal ends `wait` too, and then no process has ended.
        [[ -n ${process:-} ]] || continue
        forget "$process"
        if ((last != 0 && status == 0)); then
            status=$last
            # The others notice, or save as this one did; what does not end in time waits for ever.
            (sleep "${PATIENCE_S:-300}" && kill -KILL "${ranks[@]}") 2>/dev/null &
            patience=$!
        fi
    done
    # Unless it has ended as well, having killed the last of them.
    [[ -z $patience ]] || kill "$patience" 2>/dev/null || true
    ((status == 0)) || exit "$status"
}

forget() {
    local kept=() rank
    for rank in "${ranks[@]}"; do [[ $rank == "$1" ]] || kept+=("$rank"); done
    ranks=("${kept[@]}")
}

# in_turn FILE COMMAND...: the first node does it if there is no FILE; the others wait for FILE.
in_turn() {
    local result=$1
    shift
    if ((JOB_COMPLETION_INDEX == 0)); then
        [[ -e $result ]] || "$@"
    else
        until [[ -e $result ]]; do sleep 5; done
    fi
}

export_again() {
    which_checkpoint "$out"
    largede export "$out/train" "$out/model" --again "${which[@]}"
    touch "$out/exported"
}

# No rank leaves training before the first node has come to it, so what the others find afterwards is of this start.
((JOB_COMPLETION_INDEX > 0)) || rm -f "$out/exported"
in_turn "$out/shards/index.json" largede-data shard "$pairs" --out "$out/shards"
on_ranks train "$recipe" --data.shards "$out/shards" --run.out "$out/train" "$@"
in_turn "$out/exported" export_again
[[ $benchmark != - ]] || exit 0
on_ranks evaluate --model "$out/model" --data "$benchmark" --training "$out/train" --out "$out/report"
