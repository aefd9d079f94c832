#!/bin/sh
# Builds code-server from its npm package, inside a throwaway container of the pod's own base image, so that
# native modules meet the C library they will run on and no compiler is left on the host.
#
# usage (by compose/install.sh): build.sh VERSION SHA256
#   /node   a Node with npm and headers, read only
#   /out    where the finished tree goes
set -eu
version=$1
sha256=$2
package="code-server-$version.tgz"

stages=6
stage=0
say() {
    stage=$((stage + 1))
    printf '== %s/%s %s\n' "$stage" "$stages" "$*"
}

say 'get compilers, in this container only'
export DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes
apt-get -qq update
apt-get -qq install -y --no-install-recommends \
    build-essential python3 pkg-config libkrb5-dev libsecret-1-dev libx11-dev libxkbfile-dev >/dev/null

# The wheel flattens npm's symbolic link to its script, so npm is called by its real path.
mkdir -p /tmp/bin
ln -s /node/bin/node /tmp/bin/node
printf '#!/bin/sh\nexec /node/bin/node /node/lib/node_modules/npm/bin/npm-cli.js "$@"\n' >/tmp/bin/npm
chmod +x /tmp/bin/npm
export PATH="/tmp/bin:$PATH"
export npm_config_nodedir=/node npm_config_cache=/tmp/npm npm_config_fund=false npm_config_audit=false
export npm_config_update_notifier=false npm_config_loglevel=warn
# Compilers on all cores, and heard: minutes of silence look like a hang.
export npm_config_jobs=max npm_config_foreground_scripts=true

say 'fetch code-server, check its digest'
mkdir -p /tmp/work
cd /tmp/work
npm pack --silent "code-server@$version" >/dev/null
printf '%s  %s\n' "$sha256" "$package" | sha256sum -c -

say 'install what its shrinkwrap pins, compile'
npm install --global --prefix /tmp/prefix --allow-scripts=all "./$package"

say 'collect, with its own node'
# The package as it is, but for source maps and what the compiler left.
tree=/tmp/prefix/lib/node_modules/code-server
cp /node/bin/node "$tree/lib/node"
find "$tree" -depth -type d -path '*/build/*' \( -name obj.target -o -name .deps \) -exec rm -rf {} +
find "$tree" -type f \( -name '*.map' -o -name '*.o' -o -name '*.a' \) -delete

say 'see that it runs, with a terminal'
"$tree/lib/node" "$tree/out/node/entry.js" --version | grep -F "$version "
cd "$tree/lib/vscode"
"$tree/lib/node" -e 'require("node-pty").spawn("/bin/true", [], {}).onExit(e => process.exit(e.exitCode))'

say 'hand over'
rm -rf /out/code-server
cp -a "$tree" /out/code-server
