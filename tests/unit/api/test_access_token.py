"""Access claims and the keyring. What tokens open, and what not: tests/njs, tests/integration."""

import json
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.access_token import (
    KEYS_KEPT,
    AccessClaims,
    Keyring,
    KeyringError,
    TokenRefusedError,
    open_token,
    seal,
)

CLAIMS = AccessClaims("pod-a", "alice", 1, "10.0.0.7:20101", "0" * 64, 1_800_000_000, "session-1")
NOW = CLAIMS.expires_at - 1


@given(rotations=st.integers(0, 5))
def test_a_token_opens_until_its_key_leaves_the_ring(rotations: int) -> None:
    """Two keys are accepted: a token lives through one rotation, not through two."""
    keyring = Keyring.new()
    token = seal(CLAIMS, keyring, "url")
    for _ in range(rotations):
        keyring = keyring.rotated()

    assert len(keyring.keys) == min(rotations + 1, KEYS_KEPT)
    if rotations < KEYS_KEPT:
        assert open_token(token, keyring, "url", "pod-a", NOW) == CLAIMS
    else:
        with pytest.raises(TokenRefusedError, match="unknown key"):
            open_token(token, keyring, "url", "pod-a", NOW)


@given(current=st.booleans())
def test_a_leaked_key_can_be_dropped_at_any_time(current: bool) -> None:
    """What it sealed no longer opens, what other keys sealed does, and there is always a key to seal with."""
    keyring = Keyring.new().rotated()
    leaked = keyring.current if current else next(iter(keyring.keys))

    left = keyring.without(leaked)

    assert leaked not in left.keys
    assert set(keyring.keys) - {leaked} <= set(left.keys)
    assert open_token(seal(CLAIMS, left, "url"), left, "url", "pod-a", NOW) == CLAIMS


def test_a_keyring_is_read_as_it_was_saved(tmp_path: Path) -> None:
    """One file, for the owner and a group only; saving again replaces it and leaves nothing else behind."""
    path = tmp_path / "keyring.json"
    first = Keyring.new()
    first.save(path)
    second = first.rotated()
    second.save(path)

    assert Keyring.load(path) == second
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"current": "k", "keys": {}}',
        '{"current": "k", "keys": {"k": "AAAA"}}',
        '{"current": "k", "keys": {"k": 7}}',
        '{"current": "K!", "keys": {"K!": "' + "A" * 43 + '"}}',
    ],
)
def test_a_broken_keyring_is_an_error_that_names_the_file(tmp_path: Path, content: str) -> None:
    """So that an operator finds it."""
    path = tmp_path / "keyring.json"
    path.write_text(content)

    with pytest.raises(KeyringError, match="keyring"):
        Keyring.load(path)


def test_a_missing_keyring_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    """It is never made up on the way: nginx would not know of it."""
    with pytest.raises(KeyringError, match="absent"):
        Keyring.load(tmp_path / "absent.json")


def test_secrets_are_not_in_a_repr() -> None:
    """Logs and tracebacks show claims and keyrings without what they protect."""
    keyring = Keyring.new()

    assert CLAIMS.secret not in repr(CLAIMS)
    assert repr(keyring) == f"Keyring(current='{keyring.current}', current_since={keyring.current_since})"


@pytest.mark.parametrize(
    "change",
    [
        {"pod": "Pod"},
        {"pod": "../x"},
        {"user": ""},
        {"epoch": -1},
        {"epoch": True},
        {"upstream": "node-1:8080"},
        {"upstream": "10.0.0.7"},
        {"secret": "short"},
        {"expires_at": 1.5},
        {"session_id": "a b"},
        {"scope": "guest"},
        {"issued_at": -1},
        {"reuse": "twice"},
    ],
)
def test_claims_that_the_gate_would_refuse_cannot_be_made(change: dict[str, object]) -> None:
    """The mistake shows where it is made, not at the learner's browser."""
    good = {name: getattr(CLAIMS, name) for name in CLAIMS.__slots__}

    with pytest.raises(ValueError, match="access claims"):
        AccessClaims(**{**good, **change})


def test_an_expired_token_is_refused_from_its_second_on() -> None:
    """`expires_at` is the first second at which it does not open."""
    keyring = Keyring.new()
    token = seal(CLAIMS, keyring, "url")

    assert open_token(token, keyring, "url", "pod-a", CLAIMS.expires_at - 1) == CLAIMS
    with pytest.raises(TokenRefusedError, match="expired"):
        open_token(token, keyring, "url", "pod-a", CLAIMS.expires_at)


def test_the_file_is_the_one_that_nginx_reads(tmp_path: Path) -> None:
    """`current`, since when, and `keys`, each key 32 bytes in base64url: docs/access.md."""
    Keyring("k1", {"k1": b"\xff" * 32}, 7).save(tmp_path / "keyring.json")

    expected = {
        "current": "k1",
        "current_since": 7,
        "keys": {"k1": "__________________________________________8"},
    }
    assert json.loads((tmp_path / "keyring.json").read_text()) == expected
