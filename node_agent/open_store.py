"""From a store URL to a store."""

from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from node_agent.data_keys import DataKeys
from node_agent.directory_store import DirectoryStore
from node_agent.kms_keys import KmsMasterKeys
from node_agent.master_keys import FileMasterKeys, MasterKeys, TwoMasters
from node_agent.s3_store import S3Store
from node_agent.sealed_store import SealedStore
from node_agent.store import Store
from node_agent.uploads import UploadJournal


def open_store(url: str, journal: UploadJournal | None = None) -> Store:
    """`file:///path`, or `s3://bucket/prefix?endpoint=http://host:port&region=name`.

    S3 credentials come from where AWS tools look: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the shared
    files, or the instance's role. With a journal, a write that was cut off is gone on with. Nothing is
    contacted yet: call `probe`. Raises ValueError on another URL.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return DirectoryStore(Path(unquote(parts.path)), journal)
    if parts.scheme == "s3" and parts.netloc:
        options = parse_qs(parts.query, strict_parsing=bool(parts.query))
        _refuse_unknown_options(url, options)
        return S3Store(
            parts.netloc,
            prefix=parts.path.strip("/"),
            endpoint_url=options.get("endpoint", [None])[0],
            region=options.get("region", [None])[0],
            journal=journal,
        )
    raise ValueError(
        f"store URL {url!r} is not understood: use file:///absolute/path, or "
        "s3://bucket/prefix?endpoint=http://host:port&region=name"
    )


def open_masters(key_file: Path | None, kms_key: str | None) -> MasterKeys | None:
    """The master keys that the settings name; None where nothing is to be sealed. Contacts nobody yet.

    Raises OSError or ValueError for a file that cannot be used.
    """
    older = FileMasterKeys(key_file) if key_file is not None else None
    if kms_key is None:
        return older
    current = KmsMasterKeys(kms_key)
    return TwoMasters(current, older) if older is not None else current


def sealed(store: Store, masters: MasterKeys | None) -> Store:
    """The store, sealed if there are master keys."""
    return store if masters is None else SealedStore(store, DataKeys(store, masters))


def _refuse_unknown_options(url: str, options: dict[str, list[str]]) -> None:
    unknown = sorted(options.keys() - {"endpoint", "region"})
    if unknown:
        raise ValueError(
            f"store URL {url!r} has unknown options {', '.join(unknown)}: endpoint and region exist"
        )
