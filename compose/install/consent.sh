# Says beforehand what will be installed, and takes no for an answer. Sourced by install.sh.

# plan STEP WHERE WHAT: adds a step, and the line that announces it. WHERE is on_system or in_checkout.
plan() {
    local -n announced=$2
    steps+=("$1")
    announced+=("$3")
}

ask_or_refuse() {
    local answer=${CODEPODS_INSTALL:-}
    case $answer in
    '' | yes | no) ;;
    *) fail "CODEPODS_INSTALL=$answer is not known." "Set it to yes or to no." ;;
    esac
    if [ ${#on_system[@]} -gt 0 ]; then
        echo 'To be installed or started on this system, as root:'
        printf '  - %s\n' "${on_system[@]}"
    fi
    if [ ${#in_checkout[@]} -gt 0 ]; then
        echo 'To be made, in this directory, in its caches and in Docker only:'
        printf '  - %s\n' "${in_checkout[@]}"
    fi
    if [ ${#on_system[@]} -eq 0 ]; then return; fi
    if [ "$answer" = no ]; then
        fail 'Nothing was installed, because CODEPODS_INSTALL=no.' \
            'Install what the first list names by other means, or run this again without that setting.'
    fi
    if [ -z "$answer" ] && [ -t 0 ]; then
        read -r -p 'Go on? (CODEPODS_INSTALL=no refuses for good, =yes does not ask) [Y/n] ' answer
        case $answer in
        '' | y | Y | yes) ;;
        *) fail 'Nothing was installed.' ;;
        esac
    elif [ -z "$answer" ]; then
        echo 'Going on; CODEPODS_INSTALL=no would refuse.'
    fi
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || fail 'This needs root, and there is no sudo.' 'Run it as root.'
        sudo -v
    fi
}
