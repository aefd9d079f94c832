#!/usr/bin/env bash
# Turns a bare Debian or Ubuntu machine into one on which everything of codepods runs. Safe to repeat: what is
# there is used and not touched, and when nothing is missing this says so within a second.
#
# usage: compose/install.sh [--with-tests | --for-chaos | --for-bench | --for-check]     (by `make` up, test, chaos, bench, check)
#   --with-tests    also what only the test suite needs (a browser, Vite)
#   --for-chaos     also what only the long chaos tests need (a C compiler, mkfs.ext4)
#   --for-bench     also what the benches put beside codepods (restic, wrk)
#   --for-check     only what `make check` needs: Python packages and Node
# settings, from the environment; docs/install.md explains them:
#   CODEPODS_INSTALL   yes: do not ask · no: install nothing on the system, only say what is missing
#   CODEPODS_HOME      where the installation keeps its state and logs (.codepods)
#   CODEPODS_CACHE     where Node and code-server are kept for the next checkout (/var/cache/codepods)
#   CODEPODS_EXTRA_CA  a PEM file with authorities to trust while building, behind a proxy that opens TLS
#   CODEPODS_DEBIAN_MIRROR  where debootstrap takes the pods' Debian from, when there is no image registry
set -euo pipefail

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$checkout"
home=${CODEPODS_HOME:-$checkout/.codepods}
scope=run
with_chaos=no
with_bench=no

for part in progress consent packages python docker code_server pod_image vite; do
    # shellcheck source=/dev/null
    . "compose/install/$part.sh"
done

for argument in "$@"; do
    case $argument in
    --with-tests) scope=tests ;;
    --for-chaos) scope=tests with_chaos=yes ;;
    --for-bench) with_bench=yes ;;
    --for-check) scope=check ;;
    *) fail "compose/install.sh does not know '$argument'." 'It takes --with-tests, --for-chaos, --for-bench or --for-check, or nothing.' ;;
    esac
done

look_for_everything() {
    choose_engine_command
    look_for_packages
    look_for_engine
    look_for_python_packages
    look_for_node
    look_for_pod_image
    if [ "$scope" = tests ]; then look_for_vite; fi
}

look_for_what_checks_need() {
    look_for_packages_of_python
    plan_packages
    look_for_python_packages
    look_for_node
}

main() {
    local -a steps=() on_system=() in_checkout=()
    if [ "$scope" = check ]; then look_for_what_checks_need; else look_for_everything; fi
    if [ ${#steps[@]} -eq 0 ]; then
        echo 'Everything is installed.'
    else
        ask_or_refuse
        make_home
        local number=0 step
        for step in "${steps[@]}"; do
            number=$((number + 1))
            run_step "$number/${#steps[@]}" "$step"
        done
    fi
    if [ "$scope" != check ]; then record_pod_image; fi
}

main
