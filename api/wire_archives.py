"""What is asked and told about archives and alarms. Pure; part of the wire, see `api.wire`."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from api.values import BIGINT_MAX, JsonNumber
from api.wire import Alarm, Pod, Query, Reply, Request
from state.model import ExportForm, ExportWhat, ImportForm, What

ArchiveNumber = Annotated[int, Field(strict=False, ge=1, le=BIGINT_MAX), JsonNumber]


class RestoreAt(Request):
    """Go back to an earlier archive. What is there now is saved first, as a new archive."""

    number: ArchiveNumber
    what: What = Field(
        default=What.BOTH,
        strict=False,
        description="With `both` the number is the pod's, and the user's files are those of the same moment.",
    )


class DownloadQuery(Query):
    """What to download, and how."""

    format: ExportForm = Field(
        default=ExportForm.TAR,
        strict=False,
        description="`tar`: all of it, exactly; `zip`: files, folders and links; `oci`: an image.",
    )
    what: ExportWhat = Field(
        default=ExportWhat.WORKSPACE,
        strict=False,
        description="`workspace`: the user's files; `pod`: what was changed in the image; `all`: both.",
    )
    at: Annotated[int, Field(strict=False, ge=1, le=BIGINT_MAX)] | None = Field(
        default=None,
        strict=False,
        description="The archive's number; with `all`, the pod's. Default: the current one.",
    )


class ImportQuery(Query):
    """What is sent."""

    format: ImportForm = Field(
        default=ImportForm.TAR,
        strict=False,
        description="`tar`: the user's files; `oci`: an image of a pod, made of an image that is kept here.",
    )


class Imported(Reply):
    """What was sent is an archive now. Nothing uses it until it is gone back to, by `number` and `what`."""

    number: int
    what: What


class Generation(Reply):
    """One archive that can be gone back to."""

    archive_id: str
    what: str = Field(description="`pod`: what is installed in it; `workspace`: the user's files.")
    number: int
    committed_at: datetime
    size_bytes: int
    current: bool = Field(description="The next restore takes this one.")
    live: bool = Field(description="Taken while the pod ran.")
    damaged: str | None = Field(description="Why it is not what was saved; null while nothing is known.")
    whole_at: datetime = Field(description="When it was last read back and was whole.")
    notices: list[str] = Field(description="What could not be kept.")


class GenerationList(Reply):
    """The archives of a pod and of its user's files, newest first."""

    archives: list[Generation]


class Readiness(Reply):
    """The program can serve. What the alarms are about is told by `GET /api/v1/alarms`, to those who may."""

    status: Literal["ok"] = "ok"
    alarms: int = Field(description="How many alarms are open.")


class AlarmList(Reply):
    """What somebody should look at, oldest first."""

    alarms: list[Alarm]


class Recovery(Reply):
    """What recovering found, did, and leaves to somebody."""

    pod: Pod
    found: list[str]
    done: list[str]
    advice: list[str]
