"""The operations about archives, downloads and imports: a part of the table of all operations."""

from api import archives, downloads, imports, wire, wire_archives
from api.describing import HANDLE_PODS, LOOK, LOOK_AT_PODS, NO_BODY, POD, PREFIX, operation
from api.operation import AnyOperation
from api.wire import NoQuery

ARCHIVE_OPERATIONS: tuple[AnyOperation, ...] = (
    operation(
        "GET",
        f"{POD}/archives",
        archives.list_archives,
        LOOK_AT_PODS,
        {200: wire_archives.GenerationList},
        "The archives of a pod and of its user's files that can be gone back to, newest first.",
        query=NoQuery,
        body=NO_BODY,
    ),
    operation(
        "GET",
        f"{POD}/download",
        downloads.download_pod,
        HANDLE_PODS,
        {},
        "Download the user's files, what is installed in the pod, or both, from their archives.",
        query=wire_archives.DownloadQuery,
        body=NO_BODY,
        codes=(
            "archive_not_found",
            "archive_damaged",
            "too_many_waiting",
            "download_failed",
            "download_not_begun",
        ),
        streams=("application/x-tar", "application/zip"),
    ),
    operation(
        "POST",
        f"{POD}:import",
        imports.import_files,
        HANDLE_PODS,
        {201: wire_archives.Imported},
        "Send a tar of files, or an image of a pod: it becomes an archive, to be gone back to.",
        query=wire_archives.ImportQuery,
        body=NO_BODY,
        codes=("too_many_waiting", "import_failed", "import_cut"),
        takes_stream="application/x-tar",
    ),
    operation(
        "POST",
        f"{POD}:restore",
        archives.restore_pod_at,
        HANDLE_PODS,
        {202: wire.Pod},
        "Go back to an earlier archive, after saving what is there now. Repeats safely.",
        query=NoQuery,
        body=wire_archives.RestoreAt,
        codes=("pod_deleted", "archive_not_found", "archive_damaged", "restore_under_way"),
    ),
    operation(
        "POST",
        f"{POD}:recover",
        archives.recover_pod,
        HANDLE_PODS,
        {200: wire_archives.Recovery},
        "From any stuck state: say what is wrong, save what is there, start anew. Deletes nothing.",
        query=NoQuery,
        body=NO_BODY,
        codes=("pod_deleted",),
    ),
    operation(
        "GET",
        f"{PREFIX}/alarms",
        archives.list_alarms,
        LOOK,
        {200: wire_archives.AlarmList},
        "What somebody should look at, oldest first.",
        query=NoQuery,
        body=NO_BODY,
    ),
)
