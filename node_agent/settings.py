"""The agent's settings, from the environment: `CODEPODS_AGENT_<NAME>`, or `CODEPODS_<NAME>` for all programs.

docs/settings.md lists them; this is where they are defined.
"""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, AliasGenerator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from state.logs import Level, LogFormat
from state.wire import SYNC_WAIT_S_MAX, Identifier


def _names(field: str) -> AliasChoices:
    return AliasChoices(f"CODEPODS_AGENT_{field.upper()}", f"CODEPODS_{field.upper()}")


def _processors() -> int:
    return os.cpu_count() or 1


class Settings(BaseSettings):
    """Everything that can be set. Units are in the names."""

    model_config = SettingsConfigDict(
        alias_generator=AliasGenerator(validation_alias=_names),
        populate_by_name=True,
        frozen=True,
        extra="ignore",
    )

    node_id: Identifier
    gateway_url: str = "http://127.0.0.1:7081"
    node_token: SecretStr = SecretStr("")
    # A CA bundle for a gateway with a certificate of its own.
    gateway_ca_file: Path | None = None
    data_dir: Path = Path("/var/lib/codepods")
    # Where archives and labs are: `file:///path` or `s3://bucket/prefix`.
    store_url: str = "file:///var/lib/codepods/store"
    # Either of them: what is written to the store is sealed (docs/encryption.md).
    store_key_file: Path | None = None
    store_kms_key: str | None = None
    # None: the engine that DOCKER_HOST names, or the local socket.
    docker_host: str | None = None

    # The address that pods' IDE ports are bound to. nginx must be able to reach it, nobody else.
    publish_address: str = "127.0.0.1"
    # What to tell nginx, if it is another address than the one bound to (0.0.0.0, or a NAT).
    advertise_address: str | None = None
    # Networks that pods may not reach, besides link-local: the control plane, the other nodes.
    blocked_networks: tuple[str, ...] = ()
    # None: as the outgoing interface of this node.
    pod_mtu_bytes: Annotated[int, Field(ge=576, le=9216)] | None = None

    # Without `sysbox-runc` in the engine, pods are started with runc only if this is set: their users are
    # root inside, and only the kernel's own walls keep them there.
    accept_unsandboxed: bool = False

    # How to get at pods' changes: `fast` reads the engine's own directory, `safe` asks its public API and is
    # slower, `auto` tries the fast way at the agent's start, and takes the safe one where that does not work.
    archive_way: Literal["auto", "fast", "safe"] = "auto"

    # Whether images of pods are copied to the store, once each, so that a restore needs no registry; and how
    # long after its start the agent first looks which are not there yet.
    keep_images: bool = True
    keep_images_after_s: Annotated[float, Field(ge=0)] = 60.0

    # What this node offers to pods; None: all of the machine.
    cpu_millis: Annotated[int, Field(gt=0)] | None = None
    memory_mib: Annotated[int, Field(gt=0)] | None = None

    # More starts at a time only make all of them wait (docs/bench.md).
    starts_at_once: Annotated[int, Field(gt=0)] = Field(default_factory=lambda: 2 * _processors())
    # Archives that are compressed and sent at a time; one more may be looked through or read back.
    uploads_at_once: Annotated[int, Field(gt=0)] = 2
    workers_max: Annotated[int, Field(gt=0)] = 16
    # Chores on the store (clearing away, reading back, downloads) that this node does at a time; 0: none.
    chores_at_once: Annotated[int, Field(ge=0)] = 1
    # What all chores of this node together may read from the store a second.
    chore_bytes_per_s: Annotated[int, Field(gt=0)] = 32_000_000
    queue_length_max: Annotated[int, Field(gt=0)] = 256
    # A pull is given up when nothing has come for so long, or when it has taken so long in all.
    pull_silence_s_max: Annotated[float, Field(gt=0)] = 120.0
    pull_timeout_s_max: Annotated[float, Field(gt=0)] = 3600.0
    start_timeout_s_max: Annotated[float, Field(gt=0)] = 60.0
    sync_wait_s: Annotated[float, Field(ge=0, le=SYNC_WAIT_S_MAX)] = 10.0
    stop_grace_s: Annotated[float, Field(ge=0)] = 20.0

    # How often to look who is in the pods, and from which use of CPU on a pod counts as at work: an open,
    # untouched editor uses 10 (docs/presence.md).
    presence_every_s: Annotated[float, Field(gt=0, le=30)] = 2.0
    busy_cpu_millis: Annotated[int, Field(gt=0)] = 100

    log_format: LogFormat = "auto"
    log_level: Level = "info"

    @property
    def archives_under_way_max(self) -> int:
        """Archive steps that are begun at a time: those that compress and send, and those before or after."""
        return self.uploads_at_once + 1

    @property
    def upstream_address(self) -> str:
        """The address under which nginx finds this node's pods."""
        return self.advertise_address or self.publish_address

    @property
    def probe_address(self) -> str:
        """The address under which this node itself finds its pods."""
        return "127.0.0.1" if self.publish_address == "0.0.0.0" else self.publish_address  # noqa: S104
