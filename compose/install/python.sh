# The Python environment, from the lock file, every hash checked. Sourced by install.sh.
# Only pip is used: where packages come from is its configuration's business.

venv=$checkout/.venv
stamp=$venv/.installed-from

python_is_new_enough='import sys; sys.exit(sys.version_info < (3, 11))'

# The first Python on the PATH that is new enough.
find_python() {
    local candidate
    for candidate in "$venv/bin/python" python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c "$python_is_new_enough" 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    fail 'There is no Python 3.11 or newer on the PATH.' 'Install one: sudo apt-get install python3'
}

# One line for the packages, one for the checkout's own commands.
locked_state() { sha256sum requirements.lock pyproject.toml; }

python_packages_are_current() {
    [ -x "$venv/bin/podctl" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$(locked_state)" ]
}

# Debian splits what `python -m venv` needs out of Python itself, and its pip trusts only the system's bundle.
look_for_packages_of_python() {
    [ -e "$trust_bundle" ] || packages+=(ca-certificates)
    if python_packages_are_current || [ -x "$venv/bin/pip" ]; then return; fi
    local python
    python=$(find_python)
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then packages+=(python3-venv); fi
}

look_for_python_packages() {
    if python_packages_are_current; then return; fi
    plan install_python_packages in_checkout 'Python packages in .venv, from requirements.lock'
}

install_python_packages_title() { echo 'Install the Python packages'; }

install_python_packages_help() {
    echo "pip must reach its package index (its settings: pip config list). To begin anew: rm -r $venv"
}

install_python_packages() {
    if ! "$venv/bin/python" -c "$python_is_new_enough" 2>/dev/null || [ ! -x "$venv/bin/pip" ]; then
        "$(find_python)" -m venv --clear "$venv" # this empties it, and the stamp goes, too
    fi
    if ! grep -qsxF "$(sha256sum requirements.lock)" "$stamp"; then
        "$venv/bin/python" -m pip install --require-hashes --progress-bar off -r requirements.lock
    fi
    "$venv/bin/python" -m pip install --no-deps --no-build-isolation --no-index --editable .
    locked_state >"$stamp"
}
