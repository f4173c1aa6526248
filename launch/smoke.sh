#!/usr/bin/env bash
# The code path of a big recipe in a minute or two, on two CPU ranks (or all GPUs): the real widths and heads of one size,
# one or two layers, three steps, a checkpoint.
#
#   bash launch/smoke.sh SIZE [OUT] [--group.key value ...]      SIZE is base, large, xl or xxl
#   bash launch/smoke.sh xxl
#
# Memory over both ranks: about 2 GiB for base, 8 GiB for xxl. Pairs and vocabulary come from the documentation of the
# installed Python packages, as in the quickstart, and are kept in OUT for the next size.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
size=${1:-}
case $size in base | large | xl | xxl) shift ;; *) die "usage: bash launch/smoke.sh base|large|xl|xxl [OUT] [--group.key value ...]" ;; esac
out=runs/smoke
if (($#)) && [[ $1 != --* ]]; then
    out=$1
    shift
fi

install_largede

if [[ ! -d $out/pairs ]]; then
    largede-data pairs python-docs --out "$out/pairs"
fi
if [[ ! -d $out/vocabulary ]]; then
    largede-data vocabulary "$out/pairs/train.jsonl" --out "$out/vocabulary" --size 8000
fi
if [[ ! -f $out/shards/index.json ]]; then
    largede-data shard "$out/pairs/train.jsonl" --out "$out/shards"
fi

on_all_devices=(deepspeed --master_port "$(free_port)")
if ! has_nvidia_gpu; then
    export DS_ACCELERATOR=cpu
    on_all_devices+=(--num_accelerators 2)
fi
rm -rf "$out/gtr-$size"
"${on_all_devices[@]}" --module largede.cli train "gtr-$size-smoke" \
    --model.tokenizer "$out/vocabulary" --data.shards "$out/shards" --run.out "$out/gtr-$size" "$@"
