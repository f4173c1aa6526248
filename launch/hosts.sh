# The hosts of a hostfile: read, asked whether they can take part, watched while ranks run on them. Sourced after
# leaving.sh, never run.
# shellcheck shell=bash
#
#   PROBE_S   seconds between two looks at the hosts, and that a host may take to answer (10); one that does not answer
#             three times in a row is lost
PROBE_S=${PROBE_S:-10}

hosts=()
ranks=0

# read_hosts FILE: fills `hosts` and `ranks`.
read_hosts() {
    local line number=0
    [[ -f $1 ]] || die "no hostfile $1; expected a file with a line 'HOST slots=GPUS' for each machine"
    while read -r line || [[ -n $line ]]; do
        number=$((number + 1))
        line=${line%%#*}
        [[ -n ${line//[[:space:]]/} ]] || continue
        [[ $line =~ ^([^[:space:]]+)[[:space:]]+slots=([1-9][0-9]*)[[:space:]]*$ ]] ||
            die "$1, line $number: '$line'; expected 'HOST slots=GPUS', for example 'node-a slots=8'"
        [[ " ${hosts[*]} " != *" ${BASH_REMATCH[1]} "* ]] || die "$1, line $number: ${BASH_REMATCH[1]} stands there twice"
        hosts+=("${BASH_REMATCH[1]}")
        ranks=$((ranks + BASH_REMATCH[2]))
    done <"$1"
    ((${#hosts[@]})) || die "$1 names no host; expected a line 'HOST slots=GPUS' for each machine"
}

# on_host HOST COMMAND: never asks for a password, never waits for long.
on_host() { ssh -n -o BatchMode=yes -o ConnectTimeout="$PROBE_S" -o ServerAliveInterval=5 -o ServerAliveCountMax=2 "$1" "$2"; }

# demand_hosts OUT: each host answers, has this folder and its Python, and sees OUT.
demand_hosts() {
    local host said
    probe=$1/.seen-by-all-hosts-$$
    trap 'rm -f "$probe"' EXIT
    for host in "${hosts[@]}"; do
        # ssh ends its lines as a terminal wants them.
        said=$(on_host "$host" true 2>&1 | tr -d '\r') ||
            die "host $host does not answer ssh without a password: ${said##*$'\n'}; try: ssh -o BatchMode=yes $host true"
    done
    said=$(on_host "${hosts[0]}" hostname)
    [[ $said == "$(hostname)" ]] || die "the hostfile begins with ${hosts[0]} ($said), but this is $(hostname): start on the first host"
    said=$(mkdir -p "$1" 2>&1) || die "$1 cannot be made: ${said##*: }"
    printf '%s' "$$-$RANDOM" >"$probe"
    for host in "${hosts[@]}"; do
        on_host "$host" "test -x '$VENV/bin/python'" ||
            die "host $host has no $VENV/bin/python: this folder and its .venv must be there under the same path"
        said=$(on_host "$host" "cat '$probe'" 2>/dev/null) || said=
        if [[ $said != "$(<"$probe")" ]]; then
            rm -f "$probe"
            rmdir --ignore-fail-on-non-empty "$1"
            die "host $host does not see $1 as $(hostname) does: OUT must be on a file system that all hosts share"
        fi
    done
    rm -f "$probe"
}

# watch_hosts OUT LAUNCHER: until killed. When a host is lost, says which, and ends the ranks of OUT on the others with
# the process group LAUNCHER: they wait for the lost ranks, and no signal to save would reach them.
watch_hosts() {
    local host other
    while sleep "$PROBE_S"; do
        for host in "${hosts[@]}"; do
            answers "$host" || answers "$host" || answers "$host" || {
                say "host $host is lost: it no longer answers ssh; ending the ranks on the other hosts" >&2
                for other in "${hosts[@]}"; do
                    [[ $other == "$host" ]] || signal_ranks "$other" KILL "$1"
                done
                kill -KILL -- "-$2"
                return
            }
        done
    done
}

# signal_ranks HOST SIGNAL OUT
signal_ranks() { on_host "$1" "pkill -$2 -f '$(ranks_of "$3")'" || true; }

answers() { on_host "$1" true 2>/dev/null; }
