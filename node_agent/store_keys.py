"""`codepods-store-keys`: making master keys, and wrapping data keys anew, for operators: docs/encryption.md.

Reads CODEPODS_STORE_URL, CODEPODS_STORE_KEY_FILE and CODEPODS_STORE_KMS_KEY as the node agent does.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from node_agent.data_keys import DataKeys
from node_agent.master_keys import new_key_file
from node_agent.open_store import open_masters, open_store
from node_agent.store import StoreError

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)

EXIT_FAILED = 1


class StoreSettings(BaseSettings):
    """What of the agent's settings these commands need."""

    model_config = SettingsConfigDict(env_prefix="CODEPODS_", extra="ignore")

    store_url: str = Field()
    store_key_file: Path | None = None
    store_kms_key: str | None = None


@app.command("new")
def new(file: Path, key_id: Annotated[str, typer.Argument(help="such as 2026-11")]) -> None:
    """Make a master key: in a new file, or as the current one of a file that is there."""
    new_key_file(file, key_id)
    print(f"{key_id} is the current master key of {file}. Keep a copy where no node and no bucket is.")


@app.command("status")
def status() -> None:
    """Which master key wraps how many data keys."""
    for master_id, count in sorted(_keys().masters_in_use().items()):
        print(f"{count:8}  {master_id}")


@app.command("rewrap")
def rewrap() -> None:
    """Wrap all data keys under the current master key. Safe to repeat, and while nodes run."""
    done, found = _keys().rewrap()
    print(f"{done} of {found} data keys were wrapped anew; all are under the current master key now.")


def _keys() -> DataKeys:
    settings = StoreSettings()
    masters = open_masters(settings.store_key_file, settings.store_kms_key)
    if masters is None:
        raise ValueError("the store is not sealed: set CODEPODS_STORE_KEY_FILE or CODEPODS_STORE_KMS_KEY")
    return DataKeys(open_store(settings.store_url), masters)


def main() -> None:
    """Entry point `codepods-store-keys`."""
    try:
        app()
    except (StoreError, ValidationError, ValueError, OSError) as error:
        print(f"codepods-store-keys: {error}", file=sys.stderr)
        sys.exit(EXIT_FAILED)


if __name__ == "__main__":
    main()
