"""The shapes of links, and the settings that make them."""

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from api.links import folder_of, url_of
from api.settings import ApiSettings
from api.wire import Lab

POD = "p-aaaaaaaaaaaa"


def settings(**changes: Any) -> ApiSettings:
    """Settings of an API that is reached at https://ide.example.org:8443."""
    values = {"database_url": SecretStr("postgresql://"), "keyring": Path("keyring.json")}
    return ApiSettings.model_validate(values | {"base_url": "https://ide.example.org:8443"} | changes)


@pytest.mark.parametrize(
    ("shape", "link"),
    [
        ("path", f"https://ide.example.org:8443/pods/{POD}/?tkn=v1.k.t&folder=/workspaces/hello"),
        ("subdomain", f"https://{POD}.ide.example.org:8443/?tkn=v1.k.t&folder=/workspaces/hello"),
    ],
)
def test_links_have_one_of_two_shapes(shape: str, link: str) -> None:
    """By path, or by a host name of the pod's own; either opens the lab."""
    assert url_of(settings(url_shape=shape), POD, folder_of("hello"), "v1.k.t") == link


def test_without_a_lab_the_users_files_are_opened() -> None:
    """A pod without a lab opens where the user's files are."""
    assert url_of(settings(), POD, folder_of(None), "t").endswith("&folder=/workspaces")


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True))
def test_every_lab_arrives_as_it_is_called(lab: Lab) -> None:
    """No name of a lab changes the rest of the link."""
    url = urlsplit(url_of(settings(), POD, folder_of(lab), "t"))

    assert parse_qs(url.query) == {"tkn": ["t"], "folder": [f"/workspaces/{lab}"]}


@pytest.mark.parametrize(
    "url", ["ide.example.org", "ftp://x", "https://", "https://x/ide", "https://x?y", ""]
)
def test_addresses_that_make_no_link_are_refused(url: str) -> None:
    """A base address with a path, or without a scheme, is found at the start, not by the first learner."""
    with pytest.raises(ValidationError):
        settings(base_url=url)
