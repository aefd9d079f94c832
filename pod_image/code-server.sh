#!/bin/sh
# code-server with the Node it was built for, whatever else is installed in the pod.
exec /opt/code-server/lib/node /opt/code-server/out/node/entry.js "$@"
