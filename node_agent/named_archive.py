"""Which archive a chore is about, as the database has it."""

from pydantic import BaseModel, ConfigDict, ValidationError

from node_agent.chores import ChoreContext, ChoreError
from node_agent.sweep import check_installation


class NamedArchive(BaseModel):
    """An archive in the store of one installation."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    store_id: str
    manifest_key: str
    manifest_digest: str


def named_archive(context: ChoreContext) -> NamedArchive:
    """What the chore's request names. Raises ChoreError where it cannot be read, or is of another store."""
    try:
        named = NamedArchive.model_validate(context.chore.request)
    except ValidationError as error:
        raise ChoreError("The request cannot be read.", code="unreadable", permanent=True) from error
    check_installation(context.store, named.store_id)
    return named
