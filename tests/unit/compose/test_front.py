"""The operator's words on the front door: own certificates, balancers, and what cannot be."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from compose.certificates import SERVER_VALID_FOR, Certificates, ensure_certificates
from compose.front import FrontDoor, check_own_certificate, front_door_of
from compose.problems import ProblemError

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
PEERS = {"CODEPODS_TRUSTED_PEERS": "10.0.0.0/8"}


def test_nothing_set_is_a_door_of_its_own() -> None:
    """TLS with the installation's certificate, and nobody is believed."""
    assert front_door_of({}) == FrontDoor()


def test_each_setting_is_read() -> None:
    """As docs/settings.md tells them."""
    balanced = front_door_of(
        {
            "CODEPODS_TRUSTED_PEERS": "10.0.0.0/8, fd00::/8",
            "CODEPODS_PROXY_PROTOCOL": "yes",
            "CODEPODS_TLS": "no",
        }
    )
    own = front_door_of({"CODEPODS_TLS_CERTIFICATE": "/a.pem", "CODEPODS_TLS_KEY": "/a.key"})

    assert balanced == FrontDoor(("10.0.0.0/8", "fd00::/8"), proxy_protocol=True, tls=False)
    assert (own.certificate, own.key) == (Path("/a.pem"), Path("/a.key"))


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"CODEPODS_PROXY_PROTOCOL": "1"}, "give yes or no"),
        ({"CODEPODS_TLS": "off"}, "give yes or no"),
        ({"CODEPODS_TRUSTED_PEERS": "balancer"}, "such as 10.0.0.0/8"),
        ({"CODEPODS_TRUSTED_PEERS": "10.0.0.7"}, "give 10.0.0.7/32"),
        ({"CODEPODS_TRUSTED_PEERS": "10.0.0.7/8"}, "has host bits set"),
        ({"CODEPODS_PROXY_PROTOCOL": "yes"}, "CODEPODS_TRUSTED_PEERS"),
        ({"CODEPODS_TLS": "no"}, "CODEPODS_TRUSTED_PEERS"),
        ({"CODEPODS_TLS_CERTIFICATE": "/a.pem"}, "CODEPODS_TLS_KEY"),
        ({"CODEPODS_TLS_KEY": "/a.key"}, "give both files"),
        (
            {"CODEPODS_TLS": "no", "CODEPODS_TLS_CERTIFICATE": "/a", "CODEPODS_TLS_KEY": "/b", **PEERS},
            "unset CODEPODS_TLS_CERTIFICATE",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(environ: dict[str, str], said: str) -> None:
    """Before anything is started."""
    with pytest.raises(ProblemError, match=said):
        front_door_of(environ)


@pytest.fixture
def made(tmp_path: Path) -> Certificates:
    """A certificate for ide.example and one label below it, and its key."""
    return ensure_certificates(tmp_path, ("ide.example", "*.ide.example"), NOW)


def _with(made: Certificates, **changes: object) -> FrontDoor:
    own: dict[str, object] = {"certificate": made.certificate, "key": made.key, **changes}
    return FrontDoor(**own)  # type: ignore[arg-type]


@pytest.mark.parametrize(("host", "subdomains"), [("ide.example", True), ("lab.ide.example", False)])
def test_a_good_certificate_is_taken(made: Certificates, host: str, subdomains: bool) -> None:
    """Its own name, with its pods', or one that its wildcard covers."""
    assert check_own_certificate(_with(made, subdomains=subdomains), host, NOW) is None


def test_one_that_ends_soon_is_told(made: Certificates) -> None:
    """Who renews it has two weeks."""
    told = check_own_certificate(_with(made), "ide.example", NOW + SERVER_VALID_FOR - timedelta(days=3))

    assert told is not None
    assert "ends on 2027-01-15" in told


@pytest.mark.parametrize(
    ("host", "subdomains", "after", "said"),
    [
        ("ide.example", False, SERVER_VALID_FOR, "is good from 2026-01-15 to 2027-01-15"),
        ("ide.example", False, timedelta(days=-1), "correct the clock"),
        ("other.example", False, timedelta(0), r"does not name other\.example.*ide\.example"),
        ("lab.ide.example", True, timedelta(0), r"does not name \*\.lab\.ide\.example"),
        ("a.b.ide.example", False, timedelta(0), r"does not name a\.b\.ide\.example"),
    ],
)
def test_a_certificate_that_browsers_refuse_is_refused(
    made: Certificates, host: str, subdomains: bool, after: timedelta, said: str
) -> None:
    """Over, not begun, for others; with the names that it has."""
    with pytest.raises(ProblemError, match=said):
        check_own_certificate(_with(made, subdomains=subdomains), host, NOW + after)


def test_files_that_are_no_pair_are_refused(made: Certificates, tmp_path: Path) -> None:
    """Missing, no PEM, somebody else's key."""
    other = tmp_path / "other"
    other.mkdir()
    stranger = ensure_certificates(other, ("ide.example",), NOW)
    wrong = {
        "cannot be read as a PEM certificate": {"certificate": tmp_path / "none.pem"},
        "TLS_CERTIFICATE: .* cannot be read": {"certificate": made.key},
        "cannot be read as a PEM key": {"key": made.certificate},
        "is not the key of": {"key": stranger.key},
    }

    for said, changes in wrong.items():
        with pytest.raises(ProblemError, match=said):
            check_own_certificate(_with(made, **changes), "ide.example", NOW)
