"""The shapes of links, and the settings that make them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from api.links import Link, base_of, folder_of
from api.settings import ApiSettings
from api.wire import Lab

POD = "p-aaaaaaaaaaaa"


def settings(**changes: Any) -> ApiSettings:
    """Settings of an API that is reached at https://ide.example.org:8443."""
    values = {"database_url": SecretStr("postgresql://"), "keyring": Path("keyring.json")}
    return ApiSettings.model_validate(values | {"base_url": "https://ide.example.org:8443"} | changes)


def link_of(of: ApiSettings, to: str) -> Link:
    """A link to this place in a pod."""
    return Link(base_of(of, POD), to, "v1.k.t", datetime.now(UTC))


@pytest.mark.parametrize(
    ("shape", "link"),
    [
        ("path", f"https://ide.example.org:8443/pods/{POD}/?tkn=v1.k.t&folder=/workspaces/hello"),
        ("subdomain", f"https://{POD}.ide.example.org:8443/?tkn=v1.k.t&folder=/workspaces/hello"),
    ],
)
def test_links_have_one_of_two_shapes(shape: str, link: str) -> None:
    """By path, or by a host name of the pod's own; either opens the lab."""
    made = link_of(settings(url_shape=shape), folder_of("hello"))

    assert made.url == link
    assert made.action == link.replace("?tkn=v1.k.t&", "_start/open?")


def test_without_a_lab_the_users_files_are_opened() -> None:
    """A pod without a lab opens where the user's files are."""
    assert link_of(settings(), folder_of(None)).url.endswith("&folder=/workspaces")


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True))
def test_every_lab_arrives_as_it_is_called(lab: Lab) -> None:
    """No name of a lab changes the rest of the link."""
    made = link_of(settings(), folder_of(lab))

    assert parse_qs(urlsplit(made.url).query) == {"tkn": ["v1.k.t"], "folder": [f"/workspaces/{lab}"]}
    assert parse_qs(urlsplit(made.action).query) == {"folder": [f"/workspaces/{lab}"]}


@pytest.mark.parametrize(
    "url", ["ide.example.org", "ftp://x", "https://", "https://x/ide", "https://x?y", ""]
)
def test_addresses_that_make_no_link_are_refused(url: str) -> None:
    """A base address with a path, or without a scheme, is found at the start, not by the first learner."""
    with pytest.raises(ValidationError):
        settings(base_url=url)
