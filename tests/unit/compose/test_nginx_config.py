"""nginx's settings: what may stand in the configuration, and what is said when nginx cannot be used."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compose.nginx_config import NginxConfigError, NginxSettings, find_nginx, prepare, render

SETTINGS = NginxSettings(
    prefix=Path("/srv/front"),
    runtime=Path("/run/front"),
    module=Path("/usr/lib/nginx/modules/ngx_http_js_module.so"),
    keyring=Path("/srv/keyring.json"),
    certificate=Path("/srv/server.crt"),
    certificate_key=Path("/srv/server.key"),
    public_host="ide.example.org",
    https_port=8443,
    api_upstream="127.0.0.1:8000",
    upstream_networks=("10.0.0.0/8",),
)


@pytest.mark.parametrize(
    "change",
    [
        {"prefix": Path("/srv/a b")},
        {"prefix": Path("relative")},
        {"keyring": Path("/srv/k;}")},
        {"certificate": Path("/srv/$host")},
        {"public_host": "ide.example.org; return 200"},
        {"public_host": "ide.example.org\n"},
        {"public_host": "IDE"},
        {"pod_domain": "*.example.org"},
        {"path_shape": False},
        {"https_port": 0},
        {"http_port": 70_000},
        {"api_upstream": "127.0.0.1"},
        {"api_upstream": "127.0.0.1:8000/x"},
        {"upstream_networks": ()},
        {"upstream_networks": ("10.0.0.1/8",)},
        {"upstream_networks": ("10.0.0.1",)},
        {"upstream_networks": ("::/0",)},
        {"upstream_ports": (2, 1)},
        {"listen_addresses": ("0.0.0.0 ssl",)},
        {"worker_user": "root;"},
        {"worker_processes": "2; x"},
        {"session_lifetime_s": 0},
        {"runtime": Path("/run/" + "x" * 100)},
        {"gate_kept_s": 0},
        {"gate_kept_s": 6},
        {"hints_address": "127.0.0.1"},
        {"trusted_peers": ("10.0.0.1",)},
        {"proxy_protocol": True},
        {"tls": False},
    ],
)
def test_a_value_that_nginx_could_misread_is_refused(change: dict[str, Any]) -> None:
    """With the name of the setting."""
    with pytest.raises(NginxConfigError, match=next(iter(change))):
        replace(SETTINGS, **change)


def test_each_shape_is_there_only_if_asked_for() -> None:
    """Paths, host names, plain HTTP, HSTS and the newer HTTP/2 directive."""
    plain = render(SETTINGS)
    other = replace(SETTINGS, path_shape=False, pod_domain="pods.example.org", hsts=True, http_port=8080)
    full = render(replace(other, http2_directive=True))

    assert "/pods/(?<pod>" in plain
    assert "__Host-codepods" not in plain
    assert "Strict-Transport-Security max" not in plain
    assert "listen 0.0.0.0:8443 ssl http2 default_server" in plain
    assert "/pods/(?<pod>" not in full
    assert r"\.pods\.example\.org$" in full
    assert "add_header Strict-Transport-Security max-age=63072000 always;" in full
    assert "listen 0.0.0.0:8080 default_server;" in full
    assert "http2 on;" in full
    assert "ssl http2" not in full


def test_nginx_that_is_not_there_is_told_with_what_to_install() -> None:
    """One line, with the packages' names."""
    with pytest.raises(NginxConfigError, match="apt-get install nginx libnginx-mod-http-js"):
        find_nginx("no-such-nginx")


def test_an_nginx_without_njs_is_told_with_what_to_install(tmp_path: Path) -> None:
    """It says where the module was looked for."""
    binary = tmp_path / "nginx"
    binary.write_text(f"#!/bin/sh\necho 'nginx version: nginx/1.2.3 --modules-path={tmp_path}' >&2\n")
    binary.chmod(0o755)

    with pytest.raises(NginxConfigError, match=f"is in none of {tmp_path}.*libnginx-mod-http-js"):
        find_nginx(str(binary), module_directories=())
    (tmp_path / "ngx_http_js_module.so").touch()
    assert find_nginx(str(binary), module_directories=()).version == (1, 2, 3)


def test_a_directory_that_the_workers_cannot_enter_is_named(tmp_path: Path) -> None:
    """As root's home is: better than 403 pages that cannot be read."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    settings = replace(
        SETTINGS, prefix=closed / "nginx", keyring=closed / "keyring.json", worker_user="nobody"
    )

    with pytest.raises(NginxConfigError, match="who may not enter"):
        prepare(settings)
