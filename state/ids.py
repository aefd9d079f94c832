"""The shapes of ids and names, and the making of new ids: the only module with randomness in state/.

An id is a letter for the noun, a dash and 12 characters of base32: 60 random bits. Names that come from
outside (users, pods, labs, images) are checked against the patterns below, by the API and again by the
database.
"""

import base64
import secrets
import uuid

ID_CHARACTERS = 12
POD_ID_PATTERN = r"^p-[a-z2-7]{12}$"
WORKSPACE_ID_PATTERN = r"^w-[a-z2-7]{12}$"
ARCHIVE_ID_PATTERN = r"^a-[a-z2-7]{12}$"
TOKEN_ID_PATTERN = r"^t-[a-z2-7]{12}$"  # noqa: S105 - a shape, no secret

# A user id is revpro's: account names, e-mail addresses and UUIDs fit. Nothing in it can leave a path.
USER_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$"
# Part of URLs and of container names.
POD_NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
NODE_ID_PATTERN = POD_NAME_PATTERN
# A directory under /workspaces.
LAB_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
IMAGE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._/:@+-]*$"
IMAGE_CHARS_MAX = 400


def new_pod_id() -> str:
    """A new pod's id, such as `p-3kq7c2v5xw4a`."""
    return _new("p")


def new_workspace_id() -> str:
    """A new workspace's id, such as `w-3kq7c2v5xw4a`."""
    return _new("w")


def new_archive_id() -> str:
    """A new archive's id, such as `a-3kq7c2v5xw4a`."""
    return _new("a")


def new_token_id() -> str:
    """A new API token's public id, such as `t-3kq7c2v5xw4a`."""
    return _new("t")


def new_action_id() -> str:
    """A new action's id: a random UUID, which also names its attempt in logs of every program."""
    return str(uuid.uuid4())


def new_secret() -> str:
    """43 URL-safe characters: 256 random bits, for tokens and passwords."""
    return secrets.token_urlsafe(32)


def _new(letter: str) -> str:
    random = base64.b32encode(secrets.token_bytes(8)).decode().lower()
    return f"{letter}-{random[:ID_CHARACTERS]}"
