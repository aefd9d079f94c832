"""The certificates of one machine."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from compose.certificates import RENEW_BEFORE, SERVER_VALID_FOR, ensure_certificates, names_of_this_machine

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
NAMES = ("localhost", "*.localhost", "127.0.0.1")


def _certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_the_server_certificate_is_signed_by_the_authority_and_loads(tmp_path: Path) -> None:
    """A TLS server can use the pair, and who trusts the authority trusts it for each name."""
    made = ensure_certificates(tmp_path, NAMES, NOW)

    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(made.certificate, made.key)
    _certificate(made.certificate).verify_directly_issued_by(_certificate(made.authority))
    names = _certificate(made.certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == ["localhost", "*.localhost"]


def test_private_keys_are_closed_to_others(tmp_path: Path) -> None:
    """Both keys are 0600; the authority's certificate is for everybody."""
    made = ensure_certificates(tmp_path, NAMES, NOW)

    assert [path.stat().st_mode & 0o777 for path in (made.key, tmp_path / "ca.key")] == [0o600, 0o600]
    assert made.authority.stat().st_mode & 0o777 == 0o644


def test_nothing_changes_while_everything_is_good(tmp_path: Path) -> None:
    """The same files serve until they are close to their end."""
    first = ensure_certificates(tmp_path, NAMES, NOW)
    before = (first.certificate.read_bytes(), first.authority.read_bytes())

    ensure_certificates(tmp_path, NAMES, NOW + SERVER_VALID_FOR - RENEW_BEFORE - timedelta(days=1))

    assert (first.certificate.read_bytes(), first.authority.read_bytes()) == before


@pytest.mark.parametrize(
    ("names", "after"),
    [((*NAMES, "ide.example"), timedelta(0)), (NAMES, SERVER_VALID_FOR - RENEW_BEFORE + timedelta(days=1))],
    ids=["other names", "close to its end"],
)
def test_a_new_certificate_keeps_the_authority(
    tmp_path: Path, names: tuple[str, ...], after: timedelta
) -> None:
    """Browsers that imported the authority need not do it again."""
    made = ensure_certificates(tmp_path, NAMES, NOW)
    certificate, authority = made.certificate.read_bytes(), made.authority.read_bytes()

    ensure_certificates(tmp_path, names, NOW + after)

    assert made.authority.read_bytes() == authority
    assert made.certificate.read_bytes() != certificate
    assert _certificate(made.certificate).not_valid_after_utc == NOW + after + SERVER_VALID_FOR


def test_a_pair_that_was_cut_in_the_making_is_made_anew(tmp_path: Path) -> None:
    """A key without its certificate, or the reverse, is no pair."""
    made = ensure_certificates(tmp_path, NAMES, NOW)
    made.certificate.unlink()

    again = ensure_certificates(tmp_path, NAMES, NOW)

    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(again.certificate, again.key)


def test_the_public_name_and_its_pods_are_named_too() -> None:
    """With a host name of the operator's, each pod may have a name below it."""
    names = names_of_this_machine("ide.example")

    assert {"localhost", "*.localhost", "127.0.0.1", "ide.example", "*.ide.example"} <= set(names)
    assert "192.0.2.7" in names_of_this_machine("192.0.2.7")
