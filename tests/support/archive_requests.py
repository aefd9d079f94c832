"""What tests of archives ask for: the workspace of one user, at its first placement."""

from datetime import UTC, datetime

from node_agent.archive.commit import ArchiveRequest
from state.model import TargetKind

REQUEST = ArchiveRequest(
    kind=TargetKind.WORKSPACE,
    target_id="w-1",
    user_id="alice",
    epoch=1,
    attempt=1,
    number=1,
    created_at=datetime(2026, 1, 2, tzinfo=UTC),
    fingerprint={"tree": "f"},
    method="volume",
)
