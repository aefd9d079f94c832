"""Ports of a local installation: settings, and what is said of one that is taken."""

import os
import socket

import pytest

from compose.ports import Ports, holder_of, is_free, require_free
from compose.problems import ProblemError


def test_each_port_is_moved_by_its_setting() -> None:
    """`CODEPODS_<NAME>_PORT` moves one port; the others stay."""
    ports = Ports.from_environment({"CODEPODS_API_PORT": "9000", "CODEPODS_HTTP_PORT": ""})

    assert ports == Ports(api=9000)


@pytest.mark.parametrize("text", ["0", "65536", "-1", "http", "8443 ", "²"])
def test_what_is_no_port_is_refused_with_the_setting(text: str) -> None:
    """The message names the setting and what it takes."""
    with pytest.raises(ProblemError, match=r"CODEPODS_HTTPS_PORT=.* is not a port: give a number"):
        Ports.from_environment({"CODEPODS_HTTPS_PORT": text})


def test_two_servers_cannot_share_a_port() -> None:
    """The message names both settings."""
    with pytest.raises(ProblemError, match="CODEPODS_API_PORT and CODEPODS_GATEWAY_PORT must differ"):
        Ports.from_environment({"CODEPODS_API_PORT": "8472"})


def test_a_taken_port_is_told_with_its_holder_and_the_setting() -> None:
    """One line: which port, by whom, and the setting that moves ours."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        with pytest.raises(ProblemError) as caught:
            require_free(Ports(api=port), "127.0.0.1", besides=("https", "http", "gateway", "postgres"))

        assert str(caught.value).startswith(f"Port {port} is taken by ")
        assert f"(pid {os.getpid()})" in str(caught.value)
        assert "CODEPODS_API_PORT=" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not is_free("127.0.0.1", port)
        assert holder_of(port) is not None
    assert is_free("127.0.0.1", port)
    assert holder_of(port) is None
