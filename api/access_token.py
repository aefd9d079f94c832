"""Sealed access tokens: what the link to a pod carries, and what nginx keeps in the browser's cookie.

A token is ``v1.<key id>.<base64url(iv 12 | ciphertext | tag 16)>``, AES-256-GCM. The additional data binds
its use (one of `Use`), the key id and the pod: moved to another of these, a token does not open.
`nginx_njs/token.js` is the other half; tests/njs holds the two to the same answers. Format: docs/access.md.
"""

import base64
import binascii
import grp
import ipaddress
import json
import os
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self, get_args

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from api.replacing import replace_file

Use = Literal["url", "cookie", "visit", "port"]
# Of a link: again and again until it expires, again in the browser that was first, once.
Reuse = Literal["any", "browser", "once"]

KEY_BYTES = 32
IV_BYTES = 12
TAG_BYTES = 16
# Two accepted keys: tokens sealed just before a rotation stay good until the next one.
KEYS_KEPT = 2
# Far above a real token (about 450), far below nginx's header buffers.
TOKEN_CHARS_MAX = 2048
KEYRING_BYTES_MAX = 16_384
USER_CHARS_MAX = 256
PORT_MAX = 65_535

_KEY_ID = re.compile(r"[a-z0-9]{1,32}")
_POD = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_SECRET = re.compile(r"[0-9a-f]{64}")
_SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")
# The whole pod; or one port of it, for its owner, for who has a link, for everybody.
_SCOPE = re.compile(r"owner|(?:port|link|public):[1-9][0-9]{0,4}")


class TokenRefusedError(Exception):
    """A token that does not open, or not for this. The message is for logs, never for who sent the token."""


class KeyringError(Exception):
    """The keyring file is missing, unreadable or malformed. The message says what to do."""


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """What a token says. `upstream` is a dotted quad and a port.

    `expires_at` and `issued_at` are in Unix seconds, the latter of the link that the session began with.
    `reuse`: how often that link opens.

    Raises `ValueError` when made with anything that the gate would refuse.
    """

    pod: str
    user: str
    epoch: int
    upstream: str
    secret: str = field(repr=False)
    expires_at: int
    session_id: str
    scope: str = "owner"
    issued_at: int = field(default_factory=lambda: int(time.time()))
    reuse: str = "any"

    def __post_init__(self) -> None:
        problem = _claims_problem(asdict(self))
        if problem:
            raise ValueError(f"access claims: {problem}")


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= 2**53 - 1


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_upstream(value: object) -> bool:
    """A dotted quad without leading zeros and a port: never a name, which could resolve to anything."""
    if not isinstance(value, str):
        return False
    address, _, port = value.partition(":")
    try:
        ipaddress.IPv4Address(address)
    except ValueError:
        return False
    return _PORT.fullmatch(port) is not None and int(port) <= PORT_MAX


def _claims_problem(claims: Mapping[str, object]) -> str | None:
    """The first claim of the wrong type or form, in words."""
    user = claims.get("user")
    rules = (
        (_matches(_POD, claims.get("pod")), "pod is not an identifier"),
        (isinstance(user, str) and 0 < len(user) <= USER_CHARS_MAX, "user is not a short text"),
        (_is_count(claims.get("epoch")), "epoch is not a count"),
        (_is_upstream(claims.get("upstream")), "upstream is not dotted-quad:port"),
        (_matches(_SECRET, claims.get("secret")), "secret is not 64 lower-case hex digits"),
        (_is_count(claims.get("expires_at")), "expires_at is not Unix seconds"),
        (_matches(_SESSION, claims.get("session_id")), "session_id is not an identifier"),
        (_matches(_SCOPE, claims.get("scope")), "scope is unknown"),
        (_is_count(claims.get("issued_at")), "issued_at is not Unix seconds"),
        (claims.get("reuse") in get_args(Reuse), "reuse is unknown"),
    )
    return next((problem for holds, problem in rules if not holds), None)


@dataclass(frozen=True, slots=True)
class Keyring:
    """The keys that open tokens, oldest first; the id of the one that seals, and since when (Unix s)."""

    current: str
    keys: Mapping[str, bytes] = field(repr=False)
    current_since: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        if self.current not in self.keys:
            raise KeyringError(f"keyring: the current key {self.current!r} is not among the keys")
        if not all(_KEY_ID.fullmatch(kid) and len(key) == KEY_BYTES for kid, key in self.keys.items()):
            raise KeyringError(f"keyring: each key needs an id of [a-z0-9] and {KEY_BYTES} bytes")

    @classmethod
    def new(cls) -> Self:
        """A keyring with one fresh key."""
        kid = _new_key_id()
        return cls(kid, {kid: os.urandom(KEY_BYTES)})

    def rotated(self, kept: int = KEYS_KEPT) -> Self:
        """With a fresh key that seals from now on; the newest `kept` keys go on opening."""
        kid = _new_key_id()
        keys = {**self.keys, kid: os.urandom(KEY_BYTES)}
        return type(self)(kid, dict(list(keys.items())[-kept:]))

    def without(self, kid: str) -> Self:
        """Without a leaked key: what it sealed no longer opens. A fresh key seals if it was current."""
        ring = self.rotated(kept=len(self.keys) + 1) if kid == self.current else self
        kept = {k: v for k, v in ring.keys.items() if k != kid}
        return type(self)(ring.current, kept, ring.current_since)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the keyring file. Raises `KeyringError`."""
        try:
            text = path.read_bytes()[: KEYRING_BYTES_MAX + 1]
            raw = json.loads(text)
            keys = {str(kid): _from_base64url(str(key)) for kid, key in raw["keys"].items()}
            # Rings from before rotation by age did not say it.
            since = int(raw.get("current_since", path.stat().st_mtime))
            return cls(str(raw["current"]), keys, since)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise KeyringError(
                f"keyring {path}: {error!r}. Restore it, or make a new one: links given out before then fail"
            ) from error

    def save(self, path: Path, group: str | None = None) -> None:
        """Replace the file in one step, mode 0640, readable by `group` (nginx's workers), or as it was."""
        keys = {kid: _to_base64url(key) for kid, key in self.keys.items()}
        said = {"current": self.current, "current_since": self.current_since, "keys": keys}
        gid = -1 if group is None else grp.getgrnam(group).gr_gid
        if group is None and path.exists():
            gid = path.stat().st_gid
        replace_file(path, json.dumps(said), mode=0o640, gid=gid, lasting=True)


def _new_key_id() -> str:
    return secrets.token_hex(4)


def _to_base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _from_base64url(text: str) -> bytes:
    """Strict: the one spelling that `_to_base64url` gives. Raises `ValueError` for any other."""
    if not _BASE64URL.fullmatch(text):
        raise ValueError("not base64url")
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _to_base64url(raw) != text:
        raise ValueError("not base64url as it is written")
    return raw


def _bound_to(use: Use, kid: str, pod: str) -> bytes:
    return f"codepods1|{use}|{kid}|{pod}".encode()


def seal(claims: AccessClaims, keyring: Keyring, use: Use, nonce: bytes | None = None) -> str:
    """The token for these claims. `nonce` (12 bytes) is drawn from the system unless a test gives it.

    One key may seal 2**32 tokens with random nonces (NIST SP 800-38D, 8.3); daily rotation stays far below.
    """
    iv = os.urandom(IV_BYTES) if nonce is None else nonce
    kid = keyring.current
    plain = json.dumps(asdict(claims), separators=(",", ":")).encode()
    sealed = AESGCM(keyring.keys[kid]).encrypt(iv, plain, _bound_to(use, kid, claims.pod))
    return f"v1.{kid}.{_to_base64url(iv + sealed)}"


def open_token(text: str, keyring: Keyring, use: Use, pod: str, now: int) -> AccessClaims:
    """The claims of a token for this use and pod at `now` (Unix seconds). Raises `TokenRefusedError`."""
    kid, sealed = _parts(text)
    key = keyring.keys.get(kid)
    if key is None:
        raise TokenRefusedError("unknown key")
    try:
        plain = AESGCM(key).decrypt(sealed[:IV_BYTES], sealed[IV_BYTES:], _bound_to(use, kid, pod))
    except InvalidTag as error:
        raise TokenRefusedError("does not open") from error
    claims = _claims(json.loads(plain))
    if claims.pod != pod:
        raise TokenRefusedError("another pod")
    if claims.expires_at <= now:
        raise TokenRefusedError("expired")
    return claims


def key_of(text: str) -> str:
    """The id of the key that an opened token is sealed with."""
    return text.split(".")[1]


def _parts(text: str) -> tuple[str, bytes]:
    """Key id and sealed bytes."""
    pieces = text.split(".") if len(text) <= TOKEN_CHARS_MAX else []
    if len(pieces) != 3 or pieces[0] != "v1" or not _KEY_ID.fullmatch(pieces[1]):
        raise TokenRefusedError("malformed")
    try:
        sealed = _from_base64url(pieces[2])
    except (ValueError, binascii.Error) as error:
        raise TokenRefusedError("malformed") from error
    if len(sealed) <= IV_BYTES + TAG_BYTES:
        raise TokenRefusedError("malformed")
    return pieces[1], sealed


def _claims(raw: Any) -> AccessClaims:
    known = {f.name for f in fields(AccessClaims)}
    if not isinstance(raw, dict) or set(raw) != known:
        raise TokenRefusedError("claims are not those of this version")
    problem = _claims_problem(raw)
    if problem:
        raise TokenRefusedError(problem)
    return AccessClaims(**raw)
