#!/bin/sh
# Starts code-server under the session secret of this start.
#
# The secret is 64 hexadecimal characters, new at each start. code-server takes a HASHED_PASSWORD as the value of
# its session cookie: whoever holds the secret is in, and as nobody knows a text with that digest, its login form
# lets nobody in. The agent writes it to a file that it mounts read only; the environment is the fallback for
# running the image by hand. It is never printed.
set -eu

session_file=/run/codepods/session
session_length_chars=64

refuse() {
    printf 'pod: %s\n' "$1" >&2
    printf 'pod: code-server is not started without a session secret, or anyone could enter.\n' >&2
    printf 'pod: put %s random hexadecimal characters into %s, or into HASHED_PASSWORD.\n' \
        "$session_length_chars" "$session_file" >&2
    exit 78 # EX_CONFIG of sysexits(3): a fault of the configuration, starting again will not help
}

if [ -e "$session_file" ]; then
    source=$session_file
    [ -r "$session_file" ] || refuse "$session_file cannot be read by $(id -un)"
    HASHED_PASSWORD=$(cat "$session_file")
else
    source=HASHED_PASSWORD
    [ -n "${HASHED_PASSWORD:-}" ] || refuse "neither $session_file nor HASHED_PASSWORD is there"
fi

case $HASHED_PASSWORD in
*[!0-9a-fA-F]*) refuse "$source holds something that is not a hexadecimal character" ;;
esac
[ "${#HASHED_PASSWORD}" -eq "$session_length_chars" ] ||
    refuse "$source holds ${#HASHED_PASSWORD} characters, not $session_length_chars"

# PASSWORD would be verified with argon2 on each request, a fifth of a second of CPU each time.
unset PASSWORD
export HASHED_PASSWORD

# exec: code-server becomes process 1 and gets Docker's SIGTERM itself. A lost connection may come back to the same
# terminals for 10 minutes. The folder comes from the link, never from what was open last: that memory is a
# stored copy of a query string. Without one in the link it is /workspaces.
exec /usr/local/bin/code-server \
    --bind-addr 0.0.0.0:8080 \
    --disable-telemetry \
    --disable-update-check \
    --disable-workspace-trust \
    --disable-getting-started-override \
    --ignore-last-opened \
    --reconnection-grace-time 600 \
    "$@" \
    /workspaces
