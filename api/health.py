"""The handlers for whoever watches the program: does it live, can it serve."""

from api import wire, wire_archives
from api.operation import Answer, Call
from api.problems import ProblemError
from state import alarms, migrate


async def healthz(_call: Call[wire.NoQuery, None]) -> Answer:
    """The process answers. Says nothing about the database, so that its outage restarts nobody."""
    return Answer(wire.Health())


async def readyz(call: Call[wire.NoQuery, None]) -> Answer:
    """The database answers and has the schema of this version. Alarms are told, and keep nobody out."""
    problem = await call.deps.run(migrate.schema_problem, call.deps.db)
    if problem is not None:
        raise ProblemError("schema_mismatch", problem)
    raised = await call.deps.run(alarms.count_open, call.deps.db)
    return Answer(wire_archives.Readiness(alarms=raised))
