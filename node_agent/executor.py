"""One action from its arrival to its result: look, decide, do, and look again."""

import errno
import threading

import structlog

from node_agent.errors import Later, StepError, TakenBack
from node_agent.host import disk_errors
from node_agent.look import look
from node_agent.parts import Fence, Parts, ProgressNote, no_note
from node_agent.perform import Performer
from node_agent.steps import Done, check_epoch, next_step
from state.wire import Action, ArchiveMade, StepDone, StepFailed

# The longest way is eight steps; more than this means that somebody undoes what we do.
EFFECTS_PER_ACTION_MAX = 20
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})

log = structlog.get_logger(__name__)


class Executor:
    """Carries out actions on the parts. Safe to use from several threads, one action per target at a time."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def execute(
        self, action: Action, taken_back: threading.Event | None = None, note: ProgressNote = no_note
    ) -> StepDone | StepFailed:
        """Bring about the action's end state, from whatever is there. Raises TakenBack, Later."""
        logger = log.bind(action=action.id, verb=action.step.verb, target=action.target, epoch=action.epoch)
        try:
            done = self._carry_out(action, taken_back or threading.Event(), note)
        except StepError as error:
            logger.warning("action.failed", code=error.code, permanent=error.permanent, why=error.message)
            return _failed(action, error)
        except TakenBack:
            logger.info("action.taken_back")
            raise
        except Later:
            logger.debug("action.later")
            raise
        except OSError as error:
            logger.exception("action.exhausted" if error.errno in _EXHAUSTED else "action.broke")
            return _failed(action, _exhausted(error) if error.errno in _EXHAUSTED else _unexpected(error))
        except Exception as error:  # one bad thing stays one bad thing (LAW 12)
            logger.exception("action.broke")
            return _failed(action, _unexpected(error))
        logger.info("action.done")
        return StepDone(action_id=action.id, archive=done.archive)

    def _carry_out(self, action: Action, taken_back: threading.Event, note: ProgressNote) -> Done:
        check_epoch(action, self._parts.journal.highest(action.workspace_id))
        with disk_errors("write the agent's journal"):
            self._parts.journal.see(action.workspace_id, action.epoch)
        fence = Fence(action, self._parts.journal, taken_back)
        performer = Performer(self._parts, action, fence, note)
        made: ArchiveMade | None = None
        for _ in range(EFFECTS_PER_ACTION_MAX):
            step = next_step(action, look(self._parts, action, made))
            if isinstance(step, Done):
                return step
            log.debug("step", action=action.id, step=type(step).__name__)
            made = performer.perform(step) or made
        raise StepError(
            f"After {EFFECTS_PER_ACTION_MAX} effects the step has still not come to its end: something else "
            "keeps changing the pod. See the agent's log, and who else uses this engine.",
            code="no_progress",
        )


def _exhausted(error: OSError) -> StepError:
    return StepError(
        f"The agent of this node has run out of files, processes or memory of its own ({error}). Nothing is "
        "lost, and it is tried again. Raise the agent's limits (LimitNOFILE, TasksMax), or look at what else "
        "runs on the node.",
        code="agent_exhausted",
    )


def _unexpected(error: Exception) -> StepError:
    message = f"The agent met an error it did not expect ({type(error).__name__}: {error}). See its log."
    return StepError(message, code="internal_error")


def _failed(action: Action, error: StepError) -> StepFailed:
    return StepFailed(action_id=action.id, code=error.code, message=error.message, permanent=error.permanent)
