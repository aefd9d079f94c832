# Vite, for the one test that needs a dev server of the real kind: pinned by its lock file, kept in the cache, so that
# no test fetches anything. Sourced by install.sh.

vite_recipe=tests/fixtures/vite
vite=$cache/vite-$machine-$(cat "$vite_recipe"/package*.json | sha256sum | head -c 12)

look_for_vite() {
    if [ -x "$vite/node_modules/.bin/vite" ] && [ "$venv/vite" -ef "$vite" ]; then return; fi
    plan install_vite in_checkout "Vite, in $vite"
}

install_vite_title() { echo 'Fetch Vite, for a test'; }
install_vite_help() { echo 'npm must reach its registry (npm config get registry).'; }

install_vite() {
    if [ ! -x "$vite/node_modules/.bin/vite" ]; then
        make_work_directory
        cp "$vite_recipe"/package*.json "$work"
        # No scripts of packages run here, nor does anything look for advisories or sponsors. Not `ci`: a registry may
        # lack what is for other platforms, and then that refuses.
        PATH=$node/bin:$PATH "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" install \
            --prefix "$work" --ignore-scripts --no-audit --no-fund --no-save
        rm -rf "$vite"
        mv "$work" "$vite"
    fi
    ln -sfn "$vite" "$venv/vite"
}
