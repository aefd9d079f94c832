"""Which values the API allows: types that check them and describe them in the OpenAPI document. Pure."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StringConstraints

# Postgres' bigint, in which generations and event ids are kept.
BIGINT_MAX = 2**63 - 1
PAGE_SIZE_MAX = 500
WAIT_S_MAX = 25.0
POD_ID_PATTERN = r"^p-[a-z2-7]{12}$"
NODE_ID_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
TOKEN_ID_PATTERN = r"^t-[a-z2-7]{12}$"  # noqa: S105 - the shape of an id, which is no secret

User = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$"),
    Field(
        description="Whom the pod belongs to: letters, digits and . _ @ + -, at most 128.", examples=["alice"]
    ),
]
Name = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"),
    Field(description="Tells a user's pods apart: lower case, digits and inner dashes, at most 40."),
]
Lab = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"),
    Field(description="The lab loaded into /workspaces/<lab>, at most 63 characters.", examples=["hello"]),
]
# Docker's own grammar of references: [host[:port]/]path[:tag][@digest], the path in lower case.
_IMAGE = (
    r"^([A-Za-z0-9]([A-Za-z0-9.-]{0,250}[A-Za-z0-9])?(:[0-9]{1,5})?/)?"
    r"[a-z0-9]+((\.|_|__|-{1,8})[a-z0-9]+){0,16}(/[a-z0-9]+((\.|_|__|-{1,8})[a-z0-9]+){0,16}){0,8}"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[a-f0-9]{64})?$"
)
Image = Annotated[
    str,
    StringConstraints(pattern=_IMAGE, max_length=400),
    Field(description="An image reference: [host/]path[:tag][@sha256:…].", examples=["codepods/pod:latest"]),
]
PodId = Annotated[
    str,
    StringConstraints(pattern=POD_ID_PATTERN),
    Field(description="A pod's id, as given by the API."),
]
NodeId = Annotated[str, StringConstraints(pattern=NODE_ID_PATTERN), Field(description="A node's id.")]
TokenId = Annotated[
    str,
    StringConstraints(pattern=TOKEN_ID_PATTERN),
    Field(description="A token's id, which is not the token."),
]
TokenName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"),
    Field(description="Who uses the token, for the event history.", examples=["revpro"]),
]
Reason = Annotated[
    str,
    StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=300),
    Field(description="Why, for the event history: one line, at most 300 characters."),
]


def _json_number(value: Any) -> Any:
    """In JSON 1000.0 is an integer as 1000 is, but "1000" and true are not."""
    if isinstance(value, str | bool):
        raise ValueError("not a number")
    return value


def _query_number(value: Any) -> Any:
    """Plain decimals: no signs, spaces or underscores, which pydantic would let pass."""
    if isinstance(value, str) and not _QUERY_NUMBER.fullmatch(value):
        raise ValueError("not a plain decimal number")
    return value


_QUERY_NUMBER = re.compile(r"[0-9]{1,19}(\.[0-9]{1,20})?(e-[0-9]{1,3})?", re.ASCII)

# Bounds come first in each of these: what stands behind a validator is not in the OpenAPI document.
JsonNumber = BeforeValidator(_json_number)
QueryNumber = BeforeValidator(_query_number)
CpuMillis = Annotated[
    int,
    Field(strict=False, ge=100, le=64_000, description="Limit of CPU time, thousandths of a core."),
    JsonNumber,
]
MemoryMib = Annotated[
    int, Field(strict=False, ge=256, le=262_144, description="Limit of memory, MiB."), JsonNumber
]
Pids = Annotated[
    int, Field(strict=False, ge=256, le=32_768, description="Limit of processes and threads."), JsonNumber
]
Generation = Annotated[int, Field(strict=False, ge=1, le=BIGINT_MAX), JsonNumber]
ExtensionSeconds = Annotated[int, Field(strict=False, ge=1, le=31_536_000), JsonNumber]
Limit = Annotated[int, Field(ge=1, le=PAGE_SIZE_MAX, description="How many to give at most."), QueryNumber]
WaitSeconds = Annotated[float, Field(ge=0, le=WAIT_S_MAX), QueryNumber]
EventId = Annotated[int, Field(ge=0, le=BIGINT_MAX), QueryNumber]
