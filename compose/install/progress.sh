# Steps with progress, logs, and failures that say what to do. Sourced by install.sh.

log_tail_lines=20
quiet_s_max=10 # without a terminal, a long step says so this often

# fail WHAT WHY-OR-WHAT-TO-DO...
fail() {
    printf '\n%s\n' "$1" >&2
    shift
    [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo --preserve-env "$@"; fi
}

# A step is a function; STEP_title says what it does, STEP_help what to do when it fails.
title_of() { "${1}_title"; }

# run_step K/N STEP: the step's output goes to a log of its own, its last line is shown while it runs. Lines that
# begin with "== " are headings of it, lines with "!! " are for the person, once it is done.
run_step() {
    local position=$1 step=$2 title log status=0 started pid
    title=$(title_of "$step")
    log=$home/log/setup-${step//_/-}.log
    started=$(now_ms)
    printf '[%s] %s ... ' "$position" "$title"
    set -m # a process group of its own, so that Ctrl-C can end all of it
    (
        set -e
        "$step"
    ) >"$log" 2>&1 </dev/null &
    pid=$!
    set +m
    trap 'kill -TERM -- -'"$pid"' 2>/dev/null; echo; echo "Stopped. Run it again to go on."; exit 130' INT TERM
    show_progress "$pid" "$log" "[$position] $title ..." "$started"
    wait "$pid" || status=$?
    trap - INT TERM
    [ "$status" -eq 0 ] || step_failed "$step" "$title" "$log"
    printf 'done (%s s)\n' "$(seconds_since "$started")"
    sed -n 's/^!! /      /p' "$log"
}

show_progress() {
    local pid=$1 log=$2 line=$3 started=$4 shown_ms
    shown_ms=$started
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.1
        if [ -t 1 ] && [ $(($(now_ms) - shown_ms)) -ge 1000 ]; then
            shown_ms=$(now_ms)
            printf '\r\033[K%s %s s: %.70s' "$line" "$(seconds_since "$started")" "$(last_line "$log")"
        elif [ ! -t 1 ] && [ $(($(now_ms) - shown_ms)) -ge $((quiet_s_max * 1000)) ]; then
            shown_ms=$(now_ms)
            printf '\n      %s s: %.100s ' "$(seconds_since "$started")" "$(last_line "$log")"
        fi
    done
    if [ -t 1 ]; then
        printf '\r\033[K%s ' "$line"
    elif [ "$shown_ms" -ne "$started" ]; then
        printf '\n      '
    fi
}

step_failed() {
    local step=$1 title=$2 log=$3
    printf 'failed\n\n' >&2
    tail -n "$log_tail_lines" "$log" | sed 's/^/  | /' >&2
    fail "This did not work: $title" "The whole log: $log" "$("${step}_help")"
}

# The heading ("== …") that the step is at, if it has any, and the last line of its output.
last_line() {
    local heading
    heading=$(grep '^== ' "$1" | tail -n 1)
    if [ -n "$heading" ]; then printf '%.40s · ' "${heading#== }"; fi
    tail -c 400 "$1" | tr -cd '[:print:]\n' | grep -v -e '^ *$' -e '^== ' | tail -n 1
}

now_ms() { echo $((${EPOCHREALTIME/[.,]/} / 1000)); }

seconds_since() {
    local tenths=$((($(now_ms) - $1) / 100))
    printf '%d.%d' $((tenths / 10)) $((tenths % 10))
}

# The state's directory is made by the module that owns its shape: a checkout below a closed directory (/root)
# gets it elsewhere, where the database's user can reach it.
make_home() {
    if [ ! -d "$home/log" ]; then
        as_root "$(find_python)" -B -c 'from compose import layout
layout.make_directories(layout.Layout(layout.find_home()), ())'
    fi
    if [ ! -w "$home/log" ]; then as_root chown "$(id -u)" "$home/" "$home/log"; fi
}
