"""Why a step could not be done: one small family, with stable codes and messages for people.

Every code is explained in docs/errors.md. `permanent` is for what trying again cannot help.
"""

MESSAGE_LENGTH_MAX = 2000  # state.wire.StepFailed.message


class StepError(Exception):
    """A step failed. `code` is stable; the message says what, why, and what to do."""

    code = "step_failed"
    permanent = False

    def __init__(self, message: str, *, code: str | None = None, permanent: bool | None = None) -> None:
        super().__init__(message)
        self.code = code or type(self).code
        self.permanent = type(self).permanent if permanent is None else permanent

    @property
    def message(self) -> str:
        """For the user; cut to what the wire takes."""
        return str(self)[:MESSAGE_LENGTH_MAX]


class EngineUnavailable(StepError):
    """The container engine did not answer. Nothing may be concluded about containers."""

    code = "engine_unavailable"


class EngineTooOld(EngineUnavailable):
    """The engine's API is older than what the agent needs."""

    code = "engine_too_old"


class EngineRefused(StepError):
    """The engine answered, and would not do it."""

    code = "engine_refused"


class NotFound(StepError):
    """What the step is about is not in the engine (any more)."""

    code = "not_found"


class Conflict(StepError):
    """The name is taken, or the thing is in use or in a state that does not allow the step."""

    code = "conflict"


class DiskFull(StepError):
    """No room on the node's disk."""

    code = "disk_full"


class ImageNotFound(StepError):
    """The image is neither on the node nor in its registry."""

    code = "image_not_found"
    permanent = True


class StopIgnored(StepError):
    """A pod's processes outlive SIGKILL."""

    code = "stop_ignored"


class PullTimeout(StepError):
    """An image does not come from its registry, or too slowly."""

    code = "image_pull_timeout"


class StaleEpoch(StepError):
    """The action is of an earlier placement than one this node has seen (LAW 5)."""

    code = "stale_epoch"


class ProofVoid(StepError):
    """The proof that a copy may go does not hold when looked at live. The copy is kept (LAW 8)."""

    code = "proof_void"


class Later(Exception):
    """The step is one of too many of its kind just now. It has had no effect, and is begun again."""


class TakenBack(Exception):
    """The action is no longer wanted. It ends without a result."""
