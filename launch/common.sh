# Shared by the scripts beside it: finds a Python, makes .venv, installs largede into it. Sourced, never run.
# shellcheck shell=bash
#
#   PYTHON            the interpreter to use; otherwise the first of python3.11 ... python3.14, python3 that is new enough
#   LARGEDE_PIP_ARGS  extra arguments for every `pip install`. On x86 Linux the public index gives the CUDA build of
#                     torch, which works without a GPU but is a large download; name an index that carries CPU
#                     builds here (`--extra-index-url ...`) to get the small one.
#   LARGEDE_VENV      a virtual environment that holds largede already (an image, a cluster's module): used as it is

LARGEDE_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${LARGEDE_VENV:-$LARGEDE_ROOT/.venv}

say() { printf '%s\n' "largede: $*"; }
die() { printf '%s\n' "largede: $*" >&2; exit 1; }

# demand_program PROGRAM PACKAGE [WHERE]
demand_program() { command -v "$1" >/dev/null || die "needs $1${3:+ $3}; on Debian and Ubuntu: sudo apt install $2"; }

# demand_inputs RECIPE PAIRS BENCHMARK OUT: refuses in the first second what would be missed after days.
demand_inputs() {
    local name
    [[ -n $4 ]] || die "OUT is empty; expected the folder of the run"
    [[ -f $1 || ($1 != */* && -f $LARGEDE_ROOT/largede/recipes/${1%.yaml}.yaml) ]] ||
        die "no recipe $1; expected a YAML file, or the name of one in $LARGEDE_ROOT/largede/recipes"
    [[ -e $2 || -f $4/shards/index.json ]] ||
        die "no pairs $2; expected a file of JSON lines, plain, .gz or .zst, or a folder of such files"
    [[ $3 != - ]] || return 0
    for name in corpus.jsonl queries.jsonl qrels/test.tsv; do
        [[ -f $3/$name ]] || die "no $name in the benchmark $3; expected a folder in BEIR format, or - for no evaluation"
    done
}

# which_checkpoint OUT: fills `which` with the words for `largede export`: the best left of those that `largede watch` has
# evaluated, if it watched, or else the newest.
which_checkpoint() {
    which=()
    # shellcheck disable=SC2034  # read by the scripts
    [[ ! -f $1/train/best.json ]] || which=(--best)
}

find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.13 python3.14 python3; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        elif [[ $candidate == "${PYTHON:-}" ]]; then
            die "PYTHON=$PYTHON is no Python 3.11 or newer"
        fi
    done
    die "needs Python 3.11 or newer; on Debian and Ubuntu: sudo apt install python3 python3-venv"
}

make_venv() {
    if [[ -x $VENV/bin/python ]]; then
        "$VENV/bin/python" -m pip --version >/dev/null 2>&1 || die "$VENV is damaged; remove it and start again"
        return
    fi
    local python version
    python=$(find_python) || exit 1
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    # Asked first, because a failing `python -m venv` leaves half a folder behind.
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        die "$python cannot make virtual environments; on Debian and Ubuntu: sudo apt install python$version-venv"
    say "making .venv with Python $version"
    "$python" -m venv "$VENV" || die "$python could not make $VENV"
}

has_nvidia_gpu() { [[ $(nvidia-smi -L 2>/dev/null) == *GPU* ]]; }

# DeepSpeed always takes 29500, where a second run on the same machine fails.
free_port() { "$VENV/bin/python" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'; }

# pip_install TITLE ARGUMENT...: quiet on the screen, everything in the log.
pip_install() {
    local title=$1 log=$VENV/install.log start=$SECONDS
    shift
    say "installing $title (details in $log)"
    # LARGEDE_PIP_ARGS holds several words on purpose.
    # shellcheck disable=SC2086
    if ! "$VENV/bin/python" -m pip install --disable-pip-version-check --no-input ${LARGEDE_PIP_ARGS:-} "$@" >>"$log" 2>&1; then
        tail -n 20 "$log" >&2
        die "installing $title failed; the whole story is in $log"
    fi
    say "installed $title in $((SECONDS - start)) s"
}

# For scripts that run where nothing should be installed: a job, a pod.
use_installed() {
    [[ -x $VENV/bin/largede ]] || die "no largede in $VENV: run launch/quickstart.sh or launch/test.sh first, or set LARGEDE_VENV"
    export PATH="$VENV/bin:$PATH"
}

# install_largede [EXTRA]: afterwards .venv holds largede with the extra for this machine (cpu or gpu) and EXTRA, and its
# commands come first in PATH. Skipped when pyproject.toml, the constraints and the extras are as they were.
# shellcheck disable=SC2120
install_largede() {
    local extras=cpu torch=torch==2.13.0 constraints=$LARGEDE_ROOT/launch/constraints.txt stamp wanted
    has_nvidia_gpu && extras=gpu
    extras=$extras${1:+,$1}
    stamp=$VENV/largede-installed-${extras//,/-}
    wanted=$(cat "$LARGEDE_ROOT/pyproject.toml" "$constraints" | sha256sum | cut -d' ' -f1)
    if [[ -n ${LARGEDE_VENV:-} ]]; then
        use_installed
        return
    fi
    export PATH="$VENV/bin:$PATH"
    if [[ -x $VENV/bin/python && -f $stamp && $(<"$stamp") == "$wanted" ]]; then
        say "already installed in .venv ($extras)"
        return
    fi
    make_venv
    if [[ $extras == gpu* ]]; then
        # The pinned version may be on offer as a CPU build; unpinned, pip takes the newest, which is the CUDA build.
        torch=torch
        grep -v '^torch==' "$constraints" >"$VENV/constraints-gpu.txt"
        constraints=$VENV/constraints-gpu.txt
    fi
    # torch first: pip then never weighs another build of it while it resolves the rest.
    pip_install "$torch" -c "$constraints" "$torch"
    pip_install "largede[$extras] and what it needs" -c "$constraints" -e "${LARGEDE_ROOT}[$extras]"
    printf '%s\n' "$wanted" >"$stamp"
}
