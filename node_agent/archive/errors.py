"""What can go wrong in archive and restore. `code` is stable; the message says what, why, what to do."""


class ArchiveError(Exception):
    """Base. `retryable`: the same step may work later with nothing changed by anyone."""

    code = "archive_error"
    retryable = False


class ManifestInvalid(ArchiveError):
    """A manifest that cannot be read: not ours, cut, changed, or of a newer format."""

    code = "manifest_invalid"


class CaptureFailed(ArchiveError):
    """The tree could not be read whole. Nothing was committed; the source is untouched."""

    code = "capture_failed"
    retryable = True


class SourceChanged(CaptureFailed):
    """The tree changed while it was read. Nothing was committed; the source is untouched."""

    code = "source_changed"


class ArchiveConflict(ArchiveError):
    """Another archive is already committed under this epoch and attempt. It was left as it is."""

    code = "archive_conflict"


class ArchiveCorrupt(ArchiveError):
    """A blob in the store is missing, or is not what its manifest says."""

    code = "archive_corrupt"


class RestoreCorrupt(ArchiveCorrupt):
    """A blob turned out wrong while it was unpacked. The target holds half a tree: discard it."""

    code = "restore_corrupt"


class RestoreFailed(ArchiveError):
    """This node could not unpack a blob that is well. The target holds half a tree: discard it."""

    code = "restore_failed"
    retryable = True


class RestoreDiskFull(RestoreFailed):
    """The node's disk is full. The target holds half a tree: discard it."""

    code = "restore_disk_full"
