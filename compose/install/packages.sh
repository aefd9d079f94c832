# Packages of the distribution: only what is missing, and no service is started by it. Sourced by install.sh.

nginx_module=ngx_http_js_module.so
# With it the gate's yes is kept in memory; without it all works, at a higher price for each request.
nginx_perl_module=ngx_http_perl_module.so
trust_bundle=/etc/ssl/certs/ca-certificates.crt
apt_lock_wait_s=300
packages=()

has() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]; }

has_nginx_module() {
    local directory
    for directory in /usr/lib/nginx/modules /usr/share/nginx/modules /usr/lib64/nginx/modules /etc/nginx/modules; do
        if [ -e "$directory/$1" ]; then return; fi
    done
    return 1
}

has_browser() {
    has chromium || has chromium-browser || has google-chrome
}

look_for_packages() {
    has nginx || packages+=(nginx)
    has_nginx_module "$nginx_module" || packages+=(libnginx-mod-http-js)
    has_nginx_module "$nginx_perl_module" || packages+=(libnginx-mod-http-perl)
    has iptables || packages+=(iptables)
    has tar || packages+=(tar)
    has zstd || packages+=(zstd)
    has getfacl || packages+=(acl)
    has getfattr || packages+=(attr)
    # ss cuts the sockets of what was revoked.
    { has ip && has ss; } || packages+=(iproute2)
    look_for_engine_packages
    if [ "$scope" = tests ]; then look_for_packages_of_tests; fi
    if [ "$with_bench" = yes ]; then look_for_packages_of_benches; fi
    look_for_packages_of_python
    plan_packages
}

look_for_packages_of_benches() {
    has restic || packages+=(restic)
    has wrk || packages+=(wrk)
}

look_for_packages_of_tests() {
    has_browser || packages+=(chromium fonts-liberation)
    # What drives the browser is a program of its own, which needs it.
    compgen -G '/usr/lib/*/libatomic.so.1' >/dev/null || packages+=(libatomic1)
    has xz || packages+=(xz-utils)
    has bzip2 || packages+=(bzip2)
    if [ "$with_chaos" = no ]; then return; fi
    # A clock that can be set back for one process, and a disk that is soon full.
    has cc || packages+=(gcc libc6-dev)
    has mkfs.ext4 || packages+=(e2fsprogs)
}

plan_packages() {
    if [ ${#packages[@]} -eq 0 ]; then return; fi
    local note=''
    if ! has nginx; then note=" (nginx's own service stays off: codepods runs nginx by itself)"; fi
    if [ "$scope" = check ]; then note=''; fi
    plan install_packages on_system "packages: ${packages[*]}$note"
}

look_for_engine_packages() {
    if engine_answers; then return; fi
    if ! has dockerd || ! has docker; then packages+=(docker.io); fi
    if ! has_systemd && ! grep -q ' cgroup2\? ' /proc/mounts; then packages+=(cgroupfs-mount); fi
}

install_packages_title() { echo "Install packages (${#packages[@]})"; }

install_packages_help() {
    echo 'See what apt says above; `sudo apt-get update` must work. Then run this again.'
}

install_packages() {
    apt_install "${packages[@]}"
}

# apt_install PACKAGE...: without recommended ones, and with every service start refused meanwhile.
apt_install() {
    local -a wanted
    local had_nginx=no
    if has nginx; then had_nginx=yes; fi
    command -v apt-get >/dev/null || no_apt "$@"
    # A third party's broken source must not stop us: what is really missing shows at the install.
    apt_get -qq update || echo 'apt-get update had complaints'
    mapfile -t wanted < <(available "$@")
    refuse_service_starts
    apt_get install -y --no-install-recommends "${wanted[@]}"
    allow_service_starts
    # The package enables its service for the next boot, where it would take port 80.
    if [ "$had_nginx" = no ] && has nginx && has_systemd; then as_root systemctl disable nginx; fi
}

apt_get() {
    as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get -o "DPkg::Lock::Timeout=$apt_lock_wait_s" "$@"
}

no_apt() {
    echo "There is no apt-get here: codepods installs itself on Debian and Ubuntu only. Missing: $*"
    return 1
}

# Debian 13 keeps Docker's command apart from its engine, Ubuntu calls the browser differently. Everything else is
# passed on as it is, so that apt says what it cannot find.
available() {
    local package
    for package in "$@"; do
        case $package in
        docker.io) echo docker.io; if has_package docker-cli; then echo docker-cli; fi ;;
        chromium) if has_package chromium; then echo chromium; else echo chromium-browser; fi ;;
        *) echo "$package" ;;
        esac
    done
}

has_package() { apt-cache --names-only search "^$1\$" | grep -q .; }

policy=/usr/sbin/policy-rc.d
refuse_service_starts() {
    if [ -e "$policy" ]; then return; fi
    trap allow_service_starts EXIT
    printf '#!/bin/sh\n# by codepods while it installs packages\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
}

allow_service_starts() {
    if grep -qs 'by codepods while it installs' "$policy"; then as_root rm -f "$policy"; fi
}
