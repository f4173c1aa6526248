# Leaving when told: SIGHUP, SIGINT (Ctrl-C), SIGTERM or SIGUSR1 to a script that starts ranks through a launcher. The ranks
# save, and the script ends with status 75; work that has nothing to save is ended at once. Sourced, never run.
# shellcheck shell=bash
#
# A launcher takes a signal as a wish to kill, so it runs in a session of its own, and the ranks are told themselves.

asked_to_leave=no
step='' how_to_tell='' step_status=0
trap ask_to_leave HUP INT TERM USR1

ask_to_leave() {
    # The reader of our words may have gone by the same Ctrl-C.
    trap '' PIPE
    asked_to_leave=yes
    case $step in
        '') leave ;;
        starting) ;;
        *) tell_until_heard & ;;
    esac
}

leave() {
    say "ended by a signal; the same command goes on" 2>/dev/null || true
    exit 75
}

# begin_step HOW COMMAND ARGUMENT...: HOW is the function that tells it to leave. It fails while there is nobody to tell.
begin_step() {
    step=starting how_to_tell=$1
    setsid "${@:2}" &
    step=$!
    # It may have come before the number of the process was known.
    if [[ $asked_to_leave == yes ]]; then tell_until_heard & fi
}

# Sets step_status when the step begun last has ended.
finish_step() {
    # A trapped signal ends `wait` early; the ranks are then still saving.
    while kill -0 "$step" 2>/dev/null; do wait "$step" || true; done
    step_status=0
    wait "$step" || step_status=$?
    step=''
}

# conclude_step WORDS: comes back only if the step came to its end and nobody has asked to leave.
conclude_step() {
    case $asked_to_leave,$step_status in
        no,0) return ;;
        # The ranks may have been told by others. Above 128 a signal ended what had nothing to save yet.
        *,75) say "saved and ended by a signal; the same command goes on" || true; exit 75 ;;
        yes,0 | yes,129 | yes,1[3-9]? | yes,2??) leave ;;
        *) printf '%s\n' "largede: $1" >&2; exit "$step_status" ;;
    esac
}

# do_step COMMAND ARGUMENT...: work of this machine alone.
do_step() {
    begin_step end_step "$@"
    finish_step
    conclude_step "$1 ended with status $step_status, as told above"
}

tell_until_heard() {
    until "$how_to_tell" || ! kill -0 "$step"; do sleep 1; done 2>/dev/null
}

end_step() { kill -TERM -- "-$step"; }

# tell_ranks: asks the ranks that work in $out on this machine to save and leave; one that is told tells all.
tell_ranks() {
    local rank told=1
    # shellcheck disable=SC2154  # set by the scripts
    for rank in $(pgrep -f "$(ranks_of "$out")"); do
        if listens "$rank" && kill -USR1 "$rank"; then told=0; fi
    done
    ((told)) || say "asked the ranks to save and leave" || true
    return "$told"
}

# listens PROCESS: whether it catches SIGUSR1, which would otherwise kill it.
listens() {
    local caught
    caught=$(sed -n 's/^SigCgt:[[:space:]]*//p' "/proc/$1/status") && ((0x${caught: -4} & 0x200))
}

# ranks_of OUT: a pattern for `pgrep -f` that knows the ranks working in OUT, and no launcher, shell or ssh; nor the ranks
# of a run elsewhere that reads OUT's shards or checkpoints.
ranks_of() {
    local folder
    # shellcheck disable=SC2001
    folder=$(sed 's/[][\.*^$+?(){}|]/\\&/g' <<<"$1")
    printf '^[^ ]*python[^ ]* -u -m largede[.]cli .*--(run[.])?out %s/(train|report)( |$)' "$folder"
}
