#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one command, for one GPU of 80 GB: the tests of equality, pairs/s and memory of
# Base, Large and XXL, Base and Large beside sentence-transformers, a profile, the latency of a query and the rates of
# encoding and of exact search from Base to XXL. It has not been run on a GPU yet; the limits of its parts add up to two hours.
# It needs largede's requirements, pytest and sentence-transformers, with largede installed or not.
#
#     bash tests/gpu/run.sh                    # OUT=folder for the results, else runs/gpu; "$@" goes to pytest
#     ONLY=xxl bash tests/gpu/run.sh           # only the parts whose name has these words (an expression); adds to OUT
#     DEVICE=cpu bash tests/gpu/run.sh         # every part, very small, on a CPU: tests this script
#
# A part that fails does not stop the others; the exit status says whether one did.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[[ -x .venv/bin/python ]] && export PATH="$PWD/.venv/bin:$PATH"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
# Packed chunks come in a few sizes; without this their leftovers are not joined again.
export PYTORCH_ALLOC_CONF="${PYTORCH_ALLOC_CONF:-expandable_segments:True}"
OUT="${OUT:-runs/gpu}"
python=$(command -v python || command -v python3)
if [[ -z "${DEVICE:-}" ]]; then
    DEVICE=$("$python" -c 'import torch; print("cuda" if torch.cuda.is_available() else "none")')
fi
failed=()

part() {  # part NAME COMMAND...: run it into its log, remember whether it failed
    local name=$1
    shift
    [[ $name =~ ${ONLY:-} ]] || return
    echo "== $name: $*"
    [[ $DEVICE == none ]] && return
    local began=$SECONDS
    if "$@" >"$OUT/$name.log" 2>&1; then
        echo "   done in $((SECONDS - began)) s"
    else
        failed+=("$name")
        echo "   FAILED after $((SECONDS - began)) s; the end of $OUT/$name.log:"
        tail -n 15 "$OUT/$name.log" | sed 's/^/   | /'
    fi
}

rates() { part "rates-$1" timeout "${LIMIT:-420}" "$python" tests/gpu/rates.py --out "$OUT" --model "$@"; }
latency() {  # latency NAME FLAGS...
    local name=$1
    shift
    part "latency-$name" timeout 500 "$python" -m largede.cli latency --device "$DEVICE" \
        --out "$OUT/latency-$name.json" "$@"
}
searched() { part "search-$1" timeout 600 "$python" tests/gpu/search_rates.py --out "$OUT/search.jsonl" --kind "$@"; }
peers() { part "peers-$1" timeout 300 "$python" tests/gpu/peers.py --out "$OUT/peers.jsonl" --model "$@"; }
encode() { part "encode-$1" timeout 400 "$python" tests/gpu/encode_rates.py --out "$OUT/encode.jsonl" --model "$@"; }

if [[ $DEVICE == none ]]; then
    echo "No NVIDIA GPU here, so nothing is run. With one, these would be:"
else
    mkdir -p "$OUT"
    [[ -z "${ONLY:-}" ]] && rm -rf "$OUT"/{rates,peers,encode,search}.jsonl "$OUT"/latency-*.json "$OUT/profiles.txt" \
        "$OUT/saving"
fi
[[ $DEVICE == cpu ]] && export CUDA_VISIBLE_DEVICES=""

if [[ $DEVICE == cpu ]]; then
    tiny=(--query-tokens 9 9 --passage-tokens 24 24)
    part tests "$python" -m pytest -s -rs tests/training/test_peers.py "$@"
    rates smoke --batch 32 "${tiny[@]}" --spread 5 12 --chunk-tokens 128 256 --steps 2 --profile
    peers smoke --batch 32 --query-tokens 5 9 --passage-tokens 12 24 --repeats 2 --chunk-tokens 128 256 \
        --mini-batch 8 32
    latency smoke --model smoke --batch 1 4 --length 8 128 --seconds 0.2 --calls 5
    encode smoke --texts 48 --lengths 4 40 --batch 8 16 --chunk-tokens 128 256 --rounds 2
    searched flat --device cpu --documents 6000 --dimension 64 --queries 50 --top 100 --shard-size 2500
    searched flat-fp16 --device cpu --documents 6000 --dimension 64 --queries 50 --top 100 --shard-size 2500
else
    spread=(--query-tokens 16 64 --passage-tokens 160 512)
    tried=(--batch 2048 --dtype bf16 --chunk-tokens 16384 65536 --mini-batch 64 256 --repeats 3)
    part tests timeout 400 "$python" -m pytest -s -rs tests/gpu "$@"
    part saving timeout 300 env PYTHONPATH="$PWD:$PWD/tests:$PWD/tests/training" "$python" \
        tests/training/checkpoints/measure_saving.py --out "$OUT/saving" --gpu --layers 12 --rows 512
    # Needs faiss-gpu: MS MARCO's documents and its 6,980 dev queries.
    searched flat --device cuda
    searched flat-fp16 --device cuda
    rates gtr-base --spread 16 160 --steps 3 --profile
    rates gtr-large --spread 16 160 --steps 2
    # 57 PFLOP a step: minutes, and the weights are made first.
    LIMIT=1400 rates gtr-xxl --steps 1 --profile
    peers gtr-base "${spread[@]}" "${tried[@]}"
    peers gtr-large "${spread[@]}" "${tried[@]}" --activation-checkpointing
    for size in base large xl xxl; do
        latency "$size" --model "gtr-$size" --compute-dtype bfloat16 --seconds 5 --calls 20
    done
    latency base-float32 --model gtr-base --seconds 5
    latency base-compiled --model gtr-base --compute-dtype bfloat16 --compile --batch 1 8 --length 32 128 --seconds 5
    # Log-uniform lengths, 122 tokens on average: 0.2, 0.6, 1.2 and 2.4 PFLOP a round of each way.
    encode gtr-base --texts 8192
    encode gtr-large --texts 8192
    encode gtr-xl --texts 4096
    encode gtr-xxl --texts 2048 --rounds 2
fi

[[ $DEVICE == none ]] && exit 0
"$python" tests/gpu/summary.py "$OUT" | tee "$OUT/summary.md"
if ((${#failed[@]})); then
    echo "failed: ${failed[*]}"
    exit 1
fi
