# A Docker engine that answers: the one that is there, or ours, started. Sourced by install.sh.

engine_start_s_max=60
engine_log=/var/log/codepods-dockerd.log
engine=(docker)

has_systemd() { [ -d /run/systemd/system ]; }

# Whoever is not in the group `docker` asks the engine as root. `sudo -n`: never a prompt while only looking.
choose_engine_command() {
    if [ "$(id -u)" -eq 0 ] || docker version >/dev/null 2>&1; then return; fi
    if sudo -n docker version >/dev/null 2>&1 || has docker; then engine=(sudo --preserve-env docker); fi
}

engine_answers() { has docker && "${engine[@]}" version >/dev/null 2>&1; }

look_for_engine() {
    if engine_answers; then return; fi
    plan start_engine on_system 'the Docker engine, started'
}

start_engine_title() { echo 'Start the Docker engine'; }

start_engine_help() {
    if has_systemd; then
        echo 'The engine says why: sudo journalctl -u docker -n 50. It must answer to `docker info`.'
    else
        echo "The engine says why at the end of $engine_log. It needs root, cgroups and iptables; in a container, --privileged."
    fi
}

start_engine() {
    if has_systemd; then
        as_root systemctl start docker
    else
        # As root all the way, so that the log is the engine's own and outlives this shell; forked, so that nothing
        # of this script stays to wait for it.
        as_root setsid --fork sh -c "exec dockerd >>$engine_log 2>&1 </dev/null"
    fi
    wait_for_engine
}

wait_for_engine() {
    local second
    for second in $(seq "$engine_start_s_max"); do
        if as_root docker version >/dev/null 2>&1; then return; fi
        echo "waiting for the engine, $second of at most $engine_start_s_max s"
        sleep 1
    done
    echo "it did not answer in $engine_start_s_max s; the end of its log:"
    if has_systemd; then as_root journalctl -u docker -n 15 --no-pager; else as_root tail -n 15 "$engine_log"; fi
    return 1
}
