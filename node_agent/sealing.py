"""How one object is sealed: AES-256-GCM in chunks whose place, end and object are part of the seal. Pure.

    sealed object = header, chunk, chunk, …, last chunk
    header        = "CPSEAL1\\n", scope (16 bytes), data key id (16 bytes)
    chunk         = nonce (12 bytes), ciphertext (1 MiB, the last one less), tag (16 bytes)

The nonce is an HMAC of the chunk's place and content: the same object sealed twice has the same bytes, which
lets an upload go on where it was cut, and two contents never share a nonce. docs/encryption.md has a recipe
that opens an object with the `cryptography` package alone; a test holds the two together.
"""

import hmac
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from node_agent.store import StoreError

MAGIC = b"CPSEAL1\n"
ID_BYTES = 16
HEADER_BYTES = len(MAGIC) + 2 * ID_BYTES
CHUNK_BYTES = 1 << 20
NONCE_BYTES = 12
TAG_BYTES = 16
OVERHEAD_BYTES = NONCE_BYTES + TAG_BYTES
SEALED_CHUNK_BYTES = CHUNK_BYTES + OVERHEAD_BYTES
DATA_KEY_BYTES = 32

_INFO = b"codepods sealed object 1\0"


class SealBroken(StoreError):
    """What is in the store cannot be opened: changed, cut, of another key, or never sealed."""

    code = "store_seal_broken"


@dataclass(frozen=True, slots=True)
class DataKey:
    """A key that objects are sealed with. `scope` says whose it is, `id` which of theirs."""

    scope: bytes
    id: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"DataKey({self.scope.hex()}/{self.id.hex()})"

    @property
    def header(self) -> bytes:
        """What each object that is sealed with it begins with."""
        return MAGIC + self.scope + self.id


class Seal:
    """Seals and opens the chunks of one object: `key` is its name in the store, and part of the seal."""

    def __init__(self, data_key: DataKey, key: str) -> None:
        hkdf = HKDF(SHA256(), length=64, salt=None, info=_INFO + key.encode())
        secret = hkdf.derive(data_key.secret)
        self._cipher = AESGCM(secret[:32])
        self._nonce_secret = secret[32:]
        self._key = key

    def close(self, chunk: bytes, number: int, *, last: bool) -> bytes:
        """The sealed chunk. Chunks are numbered from 0."""
        place = struct.pack(">Q?", number, last)
        nonce = hmac.digest(self._nonce_secret, place + chunk, "sha256")[:NONCE_BYTES]
        return nonce + self._cipher.encrypt(nonce, chunk, place)

    def open(self, sealed: bytes, number: int, *, last: bool) -> bytes:
        """The chunk. Raises SealBroken for anything that `close` has not made for this place."""
        place = struct.pack(">Q?", number, last)
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place)
        except (InvalidTag, ValueError) as error:
            raise SealBroken(
                f"{self._key} in the store is not what was sealed there (chunk {number}): it was changed, "
                "cut short or put under another name. It was not used."
            ) from error


def read_header(header: bytes, key: str) -> tuple[bytes, bytes]:
    """Scope and data key id. Raises SealBroken."""
    if len(header) < HEADER_BYTES or not header.startswith(MAGIC):
        raise SealBroken(
            f"{key} in the store is not sealed, and this node opens sealed objects only "
            "(CODEPODS_STORE_KEY_FILE, CODEPODS_STORE_KMS_KEY). It was not used."
        )
    at = len(MAGIC)
    return header[at : at + ID_BYTES], header[at + ID_BYTES : HEADER_BYTES]


def sealed_size(size_bytes: int) -> int:
    """Of an object with so many bytes inside."""
    chunks = max(1, -(-size_bytes // CHUNK_BYTES))
    return HEADER_BYTES + size_bytes + chunks * OVERHEAD_BYTES


def opened_size(sealed_bytes: int, key: str) -> int:
    """How many bytes are inside a sealed object of this size. Raises SealBroken where none has it."""
    body = sealed_bytes - HEADER_BYTES
    chunks = -(-body // SEALED_CHUNK_BYTES)
    size_bytes = body - chunks * OVERHEAD_BYTES
    if size_bytes < 0 or sealed_size(size_bytes) != sealed_bytes:
        raise SealBroken(
            f"{key} in the store has {sealed_bytes} bytes, as nothing sealed has; it was not used"
        )
    return size_bytes
