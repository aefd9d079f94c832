"""What was revoked, as nginx's gate and the edge read it: one file, written whole. Pure.

`nginx_njs/claims.js` is the other half of `stops`; tests/njs holds the two to the same answers.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Self

# Beside the key ring, which the same programs write and read.
REVOKED_FILE = "revoked.json"
# How long a revocation is kept: longer than anything that was sealed before can last. A link is good for a
# day at most, a cookie for as long as nginx is told (`session_lifetime_s`, bounded by this).
KEPT_S = 30 * 24 * 3600


class Kind(StrEnum):
    """What can be revoked: all that a key sealed, a pod's sessions, one session, a user's sessions."""

    KEY = "key"
    POD = "pod"
    SESSION = "session"
    USER = "user"


@dataclass(frozen=True, slots=True)
class Visit:
    """By what somebody is in: the key that sealed it, whose it is, and when it was issued (Unix seconds)."""

    key: str
    pod: str
    session: str
    user: str
    issued_at: int


@dataclass(frozen=True, slots=True)
class Revoked:
    """By kind: subject → the second up to which what was issued is revoked."""

    key: Mapping[str, int] = field(default_factory=dict)
    pod: Mapping[str, int] = field(default_factory=dict)
    session: Mapping[str, int] = field(default_factory=dict)
    user: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, found: Iterable[tuple[Kind, str, int]]) -> Self:
        """From (kind, subject, second)."""
        rows = list(found)
        return cls(**{kind.value: {s: at for k, s, at in rows if k is kind} for kind in Kind})

    @classmethod
    def read(cls, text: str) -> Self:
        """From the file. Raises `ValueError`."""
        try:
            raw = json.loads(text)
            return cls(**{k.value: {str(s): int(at) for s, at in raw[k.value].items()} for k in Kind})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a file of revocations: {error!r}") from error

    def text(self) -> str:
        """What the file says."""
        return json.dumps(asdict(self), sort_keys=True)

    def stops(self, visit: Visit) -> bool:
        """Whether this visit was revoked. A key is for good: whoever stole it makes tokens of any age."""
        return visit.key in self.key or any(
            visit.issued_at <= before.get(subject, -1)
            for before, subject in (
                (self.pod, visit.pod),
                (self.session, visit.session),
                (self.user, visit.user),
            )
        )
