"""Master keys that never leave a KMS: it wraps and opens data keys on request."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from node_agent.master_keys import KMS_PREFIX, MasterKeys, Wrapped
from node_agent.sealing import SealBroken
from node_agent.store import StoreAccessDenied, StoreUnavailable

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 10
TRIES_MAX = 3

_BROKEN = frozenset({"InvalidCiphertextException", "IncorrectKeyException"})
_PASSING = frozenset({"ThrottlingException", "KMSInternalException", "DependencyTimeoutException"})


class KmsMasterKeys(MasterKeys):
    """`key` is an id, ARN or alias. Endpoint, region and credentials come from where AWS tools look."""

    def __init__(self, key: str) -> None:
        self._key = key
        config = Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            retries={"mode": "standard", "max_attempts": TRIES_MAX},
        )
        self._client: Any = boto3.session.Session().client("kms", config=config)

    @property
    def current_id(self) -> str:
        """See MasterKeys."""
        return f"{KMS_PREFIX}{self._key}"

    def wrap(self, secret: bytes, context: str) -> Wrapped:
        """See MasterKeys."""
        with _told():
            answer = self._client.encrypt(
                KeyId=self._key, Plaintext=secret, EncryptionContext={"codepods": context}
            )
        return Wrapped(self.current_id, answer["CiphertextBlob"])

    def unwrap(self, wrapped: Wrapped, context: str) -> bytes:
        """See MasterKeys. The data names the KMS's key, so old ones open for as long as it has them."""
        if not wrapped.master_id.startswith(KMS_PREFIX):
            raise StoreAccessDenied(
                f"a data key is wrapped with master key {wrapped.master_id!r} of a key file: set "
                "CODEPODS_STORE_KEY_FILE beside CODEPODS_STORE_KMS_KEY until it is wrapped anew"
            )
        with _told():
            answer = self._client.decrypt(
                CiphertextBlob=wrapped.data, EncryptionContext={"codepods": context}
            )
        secret: bytes = answer["Plaintext"]
        return secret


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", "unknown"))
        if code in _BROKEN:
            raise SealBroken(f"the KMS has not wrapped this data key ({code}), it was not used") from error
        if code in _PASSING:
            raise StoreUnavailable(f"the KMS cannot open data keys now: {code}") from error
        raise StoreAccessDenied(
            f"the KMS opens no data keys for this node: {error}. Check CODEPODS_STORE_KMS_KEY and that the "
            "node's policy allows kms:Encrypt and kms:Decrypt with it."
        ) from error
    except BotoCoreError as error:
        raise StoreUnavailable(f"the KMS does not answer: {error}") from error
