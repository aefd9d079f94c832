"""Everything the API refuses or fails with: stable codes, and the exception that carries one. Pure.

docs/api.md has the same table for people; tests/unit/api/test_problems.py holds the two together.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from api.wire import BODY_BYTES_MAX, FieldProblem, Problem

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Kind:
    """What all problems of one code have in common."""

    status: int
    title: str
    hint: str
    retry_after_s: int | None = None


KINDS: Mapping[str, Kind] = {
    "malformed_json": Kind(400, "The body is not JSON", "Send one JSON object, encoded as UTF-8."),
    "token_missing": Kind(
        401,
        "A token is needed",
        "Send the header `Authorization: Bearer <token>`; an admin can make a token.",
    ),
    "token_refused": Kind(
        401,
        "The token is not valid",
        "Check that it was copied whole; if it was revoked, ask an admin for another.",
    ),
    "scope_refused": Kind(
        403, "The token may not do this", "Use a token with one of the scopes named in `detail`."
    ),
    "port_sharing_refused": Kind(
        403, "The operator does not let ports be opened so far", "Choose a visibility that lets fewer in."
    ),
    "not_found": Kind(404, "There is nothing here", "See /api/v1/openapi.json for what there is."),
    "pod_not_found": Kind(404, "There is no such pod", "List the user's pods with GET /api/v1/pods?user=…"),
    "node_not_found": Kind(404, "There is no such node", "List the nodes with GET /api/v1/nodes."),
    "token_not_found": Kind(404, "There is no such token", "List the tokens with GET /api/v1/tokens."),
    "method_not_allowed": Kind(
        405, "This path does not take this method", "Use one of those in the `Allow` header."
    ),
    "body_too_slow": Kind(408, "The body did not arrive in time", "Send it again."),
    "pod_differs": Kind(
        409,
        "The pod exists, and is made otherwise",
        "Leave out what differs to open it as it is, or give another name to make a second pod.",
    ),
    "archive_not_found": Kind(
        404, "There is no such archive", "List what there is with GET /api/v1/pods/{pod_id}/archives."
    ),
    "archive_damaged": Kind(
        409,
        "The archive is damaged",
        "Go back to another; this one is kept and read again from time to time.",
    ),
    "restore_under_way": Kind(
        409, "It is going back to another archive", "Wait until that is done, then ask again."
    ),
    "node_alive": Kind(
        409,
        "The node is alive",
        "Cordon it instead; only a node that is silent can be declared lost.",
    ),
    "port_refused": Kind(
        409, "This port cannot be opened to others", "Choose another port, or make one private first."
    ),
    "download_failed": Kind(
        502, "The download could not be made", "Read `detail`; another format may do, or ask again."
    ),
    "import_failed": Kind(
        422, "What was sent did not become an archive", "Read `detail`; send a tar, plain or compressed."
    ),
    "import_cut": Kind(
        503,
        "It was cut before it was an archive",
        "Send it again: a node that is there takes it. The nodes: GET /api/v1/nodes.",
        retry_after_s=10,
    ),
    "download_not_begun": Kind(
        503, "No node had time for the download", "Ask again later.", retry_after_s=30
    ),
    "generation_conflict": Kind(
        409, "The pod was changed meanwhile", "Read it again, decide again, and send its present generation."
    ),
    "pod_put_away": Kind(
        409, "The pod is not wanted running", "Open it; a pod that is stopped is not kept, it is opened."
    ),
    "pod_deleted": Kind(410, "The pod was deleted", "A deleted pod does not come back. Create another."),
    "body_too_large": Kind(413, "The body is too large", f"Send at most {BODY_BYTES_MAX} bytes."),
    "media_type_refused": Kind(
        415, "The body is not declared as JSON", "Send `Content-Type: application/json`."
    ),
    "unknown_field": Kind(
        422,
        "The request has a field that is not known",
        "Leave it out, or correct its spelling: see `errors`.",
    ),
    "invalid_field": Kind(
        422, "A field has a value that is not allowed", "Correct the fields named in `errors`."
    ),
    "extension_refused": Kind(
        409,
        "It cannot be kept until then",
        "Give one of `seconds` and `until`, within what the installation allows.",
    ),
    "too_many_requests": Kind(
        429,
        "The token asks too often",
        "Wait as long as `Retry-After` says; ask for lists, or wait in the API (`wait_s`), not in a loop.",
        1,
    ),
    "too_many_waiting": Kind(
        429,
        "Too many requests are waiting for pods",
        "Wait a second and ask again, or ask without waiting.",
        1,
    ),
    "too_many_revocations": Kind(
        429,
        "Too many revocations are in force",
        "Revoke what they have in common: the user, the pod, or the key.",
        60,
    ),
    "internal_error": Kind(
        500,
        "Something is wrong in codepods",
        "Try once more. If it stays, give an operator the `instance` of this: the log has the cause.",
    ),
    "database_unavailable": Kind(
        503,
        "The database does not answer",
        "Try again in a few seconds; pods that are open go on working.",
        2,
    ),
    "schema_mismatch": Kind(
        503,
        "The database has another schema",
        "Operator: run the migrations of this version, then restart.",
        10,
    ),
    "keyring_unavailable": Kind(
        503,
        "Links cannot be made now",
        "Operator: the keyring file is missing or damaged; the log says which.",
        10,
    ),
    "pod_not_running": Kind(
        503, "The pod does not run yet", "Look again in a moment; the start page does so by itself.", 2
    ),
    "pod_unreachable": Kind(
        503,
        "The pod's node reports an address no link may name",
        "Operator: correct the address that the node's agent advertises.",
        10,
    ),
}

# What any operation may answer, whatever it is about.
COMMON_CODES = ("internal_error", "database_unavailable")


class ProblemError(Exception):
    """An answer that is a problem. `detail` says what is wrong with this request, and why."""

    def __init__(
        self,
        code: str,
        detail: str,
        errors: tuple[FieldProblem, ...] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.errors = errors
        self.headers = dict(headers or {})

    @property
    def kind(self) -> Kind:
        """What all problems of this code have in common."""
        return KINDS[self.code]


def body(error: ProblemError, instance: str) -> Problem:
    """The problem document; `instance` is the URI of this occurrence."""
    return Problem(
        type=f"urn:codepods:problem:{error.code}",
        title=error.kind.title,
        status=error.kind.status,
        code=error.code,
        detail=error.detail,
        hint=error.kind.hint,
        instance=instance,
        errors=list(error.errors) or None,
    )


def headers(error: ProblemError) -> dict[str, str]:
    """The header fields that go with the problem."""
    retry = error.kind.retry_after_s
    return {**({"Retry-After": str(retry)} if retry is not None else {}), **error.headers}
