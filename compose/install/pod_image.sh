# The image of the pods, tagged by its content: equal inputs are never built twice. Sourced by install.sh.
# Older tags stay in Docker: stopped and archived pods need the image that they were made from.

base_image=debian:bookworm-slim
base_release=bookworm
pull_s_max=60
pod_image_inputs=(Dockerfile code-server.sh code-server.yaml entrypoint.sh settings.json extension/package.json
    extension/extension.js)
pod_image_digest=$(cd pod_image && { cat "${pod_image_inputs[@]}"; echo "$code_server"; } | sha256sum | head -c 12)
pod_image=codepods-pod:$code_server_version-$pod_image_digest

has_image() { engine_answers && "${engine[@]}" image inspect "$1" >/dev/null 2>&1; }

look_for_pod_image() {
    if has_image "$pod_image"; then return; fi
    if ! has_image "$base_image"; then
        plan get_base_image in_checkout "the image $base_image, pulled, or made with debootstrap where no registry answers"
        if ! has debootstrap && [ "${CODEPODS_INSTALL:-}" != no ]; then
            on_system+=('package: debootstrap (only if no image registry answers)')
        fi
    fi
    if [ ! -d "$code_server" ]; then
        plan build_code_server in_checkout "code-server $code_server_version, in $code_server"
    fi
    plan build_pod_image in_checkout "the image $pod_image"
}

# Where `podctl` and the tests find the image. Not when nothing changed: this runs on every `make up`.
record_pod_image() {
    make_home
    if [ "$(cat "$home/pod_image" 2>/dev/null)" = "$pod_image" ]; then return; fi
    echo "$pod_image" >"$home/pod_image"
}

get_base_image_title() { echo "Get $base_image"; }
get_base_image_help() { echo 'Neither an image registry nor a Debian mirror could be used: the log has both reasons.'; }

# Both images are looked for again: an engine that was not running when the steps were planned may have them.
get_base_image() {
    if has_image "$pod_image" || has_image "$base_image"; then return; fi
    if timeout "$pull_s_max" "${engine[@]}" pull "$base_image"; then return; fi
    echo "== no registry gave $base_image: it is made here, with debootstrap"
    has debootstrap || install_debootstrap
    make_work_directory
    local tree=$work/base
    as_root debootstrap --variant=minbase "$base_release" "$tree" ${CODEPODS_DEBIAN_MIRROR:-}
    add_security_updates "$tree"
    as_root rm -rf "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/* "$tree"/var/log/*.log
    as_root tar -C "$tree" -c . | "${engine[@]}" import --change 'CMD ["bash"]' - "$base_image"
    echo "!! No image registry could be reached: $base_image was made here, with debootstrap."
}

install_debootstrap() {
    if [ "${CODEPODS_INSTALL:-}" = no ]; then
        echo 'debootstrap is missing, and CODEPODS_INSTALL=no'
        return 1
    fi
    apt_install debootstrap debian-archive-keyring
}

# debootstrap writes one line, the release as it was; the official image has its updates, too.
add_security_updates() {
    local tree=$1 mirror
    mirror=$(sed -n 's/^deb \([^ ]*\) .*/\1/p' "$tree/etc/apt/sources.list")
    printf 'deb %s %s main\n' "$mirror" "$base_release" "$mirror" "$base_release-updates" \
        "${mirror%/}-security" "$base_release-security" | as_root tee "$tree/etc/apt/sources.list"
    as_root chroot "$tree" sh -ec 'export DEBIAN_FRONTEND=noninteractive; apt-get -q update; apt-get -qy upgrade; apt-get clean' ||
        echo '!! The updates of Debian could not be had: the base is the release as it was.'
}

build_pod_image_title() { echo "Build the pod image $pod_image"; }
build_pod_image_help() { echo 'Building needs a Debian mirror, and 3 GB free where Docker keeps its data.'; }

build_pod_image() {
    if has_image "$pod_image"; then return; fi
    local variable
    local -a arguments=()
    for variable in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
        if [ -n "${!variable:-}" ]; then arguments+=(--build-arg "$variable"); fi
    done
    # Newer clients without the buildx plugin warn, older ones fail: say which builder is meant.
    if "${engine[@]}" buildx version >/dev/null 2>&1; then export DOCKER_BUILDKIT=1; else export DOCKER_BUILDKIT=0; fi
    # The context comes as a stream, so that code-server needs no copy below pod_image.
    build_context | "${engine[@]}" build --network host "${arguments[@]}" \
        --build-arg "CODE_SERVER_VERSION=$code_server_version" --build-arg "NODE_VERSION=$node_version" \
        --tag "$pod_image" -
}

build_context() {
    tar -c --owner=0 --group=0 -C "$checkout/pod_image" "${pod_image_inputs[@]}" \
        -C "$(dirname "$code_server")" --transform "s,^$(basename "$code_server"),code-server," "$(basename "$code_server")"
}
