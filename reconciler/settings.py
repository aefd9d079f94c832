"""The reconciler's settings, from CODEPODS_… environment variables. Durations are in seconds."""

from datetime import timedelta
from functools import partial
from typing import Any, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from state.lifecycle import LifeLimits
from state.logs import Level
from state.model import Limits

_DEFAULTS = Limits()
# A stop may take its grace of 10 s and be noticed a second late; the rest is for clocks of different speed.
FENCE_MARGIN_S = 30.0
_LIFE = LifeLimits()
YEAR_S = 365 * 86_400
# Where there is no idle limit.
DEFAULT_EXTENSION = timedelta(hours=1)


def _seconds(of: timedelta, description: str) -> Any:
    return Field(of.total_seconds(), gt=0, description=f"{description} Seconds.")


def _limit(of: timedelta | None, description: str) -> Any:
    default_s = of.total_seconds() if of else 0.0
    return Field(default_s, ge=0, le=YEAR_S, description=f"{description} Seconds; 0: without a limit.")


_count = partial(Field, ge=1)


class Settings(BaseSettings):
    """What may be set. Every bound of `state.model.Limits` is here, under its own name."""

    model_config = SettingsConfigDict(env_prefix="CODEPODS_", extra="ignore", frozen=True)

    database_url: SecretStr = Field(
        description="PostgreSQL 15 or newer, as postgresql://user:password@host/name."
    )
    gateway_host: str = Field("127.0.0.1", description="Address that the gateway listens on for nodes.")
    gateway_port: int = Field(7081, ge=0, le=65535, description="Its port; 0 takes any free one and logs it.")
    hints_host: str = Field("127.0.0.1", description="Address where nginx's hints about sockets arrive.")
    hints_port: int = Field(
        0, ge=0, le=65535, description="Its UDP port; 0: none, nodes are then looked at in their own time."
    )
    log_level: Level = Field("info", description="Least severe level that is logged.")

    actions_per_pass_max: int = _count(
        default=_DEFAULTS.actions_per_pass_max, description="Steps that one pass may enqueue."
    )
    open_actions_per_node_max: int = _count(
        default=_DEFAULTS.open_actions_per_node_max,
        description="Actions a node may have open at a time.",
    )
    open_starts_per_node_max: int = _count(
        default=_DEFAULTS.open_starts_per_node_max,
        description="Pods that a node may be starting at a time; one to two per core is best.",
    )
    node_silent_after: float = _seconds(
        _DEFAULTS.node_silent_after, "How long a node may be quiet before its pods count as unknown."
    )
    silent_share_max: float = Field(
        _DEFAULTS.silent_share_max,
        gt=0,
        le=1,
        description="Share of silent nodes above which nothing is stopped, archived or removed.",
    )
    self_fence_after: float = _seconds(
        _DEFAULTS.self_fence_after,
        "How long a node without contact keeps pods running that may go on elsewhere (failover).",
    )
    failover_after: float = _seconds(
        _DEFAULTS.failover_after,
        "How long its node must be silent before such a pod goes on elsewhere.",
    )
    checkpoint_every: float = Field(
        _DEFAULTS.checkpoint_every.total_seconds(),
        ge=0,
        description="How often running pods are saved, if something changed; 0: never. Seconds.",
    )
    archive_grace: float = _seconds(
        _DEFAULTS.archive_grace, "How long a container is kept after it was archived."
    )
    warm_after: float = _limit(
        _DEFAULTS.warm_after, "After how long a stopped pod is saved ahead of its archival; it stays."
    )
    backoff_first: float = _seconds(_DEFAULTS.backoff_first, "The wait after the first failure of a step.")
    backoff_max: float = _seconds(_DEFAULTS.backoff_max, "The longest wait between two tries of a step.")
    healthy_after: float = _seconds(
        _DEFAULTS.healthy_after, "How long a pod must have run before its exit is not taken for a crash loop."
    )
    archives_kept: int = _count(
        default=_DEFAULTS.archives_kept, description="Newest archives of a pod or workspace that are kept."
    )
    archive_days_kept: int = Field(
        _DEFAULTS.archive_days_kept, ge=0, description="Days of which the last archive is kept besides."
    )
    deleted_pods_kept: float = _seconds(
        _DEFAULTS.deleted_pods_kept, "How long the archives of a deleted pod are kept."
    )
    scrub_every: float = _seconds(
        _DEFAULTS.scrub_every, "How often each archive is read back to see that it is whole."
    )
    sweep_age: float = _seconds(
        _DEFAULTS.sweep_age, "How old an object must be to be cleared away: longer than any upload takes."
    )
    sweep_confirm_after: float = _seconds(
        _DEFAULTS.sweep_confirm_after, "How long after it was first seen unreferenced it may be cleared away."
    )
    sweep_share_max: float = Field(
        _DEFAULTS.sweep_share_max,
        gt=0,
        le=1,
        description="Share of the bytes of a pod's or workspace's archives above which nothing is cleared.",
    )

    @model_validator(mode="after")
    def _fence_comes_first(self) -> Self:
        if self.failover_after < self.self_fence_after + FENCE_MARGIN_S:
            raise ValueError(
                f"CODEPODS_FAILOVER_AFTER ({self.failover_after:g} s) must be at least {FENCE_MARGIN_S:g} s "
                f"above CODEPODS_SELF_FENCE_AFTER ({self.self_fence_after:g} s): a pod takes a while to stop"
            )
        return self

    closed_grace: float = _limit(
        _LIFE.closed_grace, "How long a pod runs on after its last tab was closed, or its work ended."
    )
    idle_limit: float = _limit(
        _LIFE.idle_limit, "How long an open tab may go untouched, and a started pod without a visit."
    )
    busy_max: float = _limit(_LIFE.busy_max, "How long work keeps a pod running with nobody there.")
    lifetime_max: float = _limit(_LIFE.lifetime, "How long a pod may run at a time, whatever goes on in it.")
    archive_after: float = _limit(_LIFE.archive_after, "After how long a stopped pod is archived.")
    warning_before: float = _seconds(_LIFE.warning, "How long before a stop whoever is there is told.")

    def life_limits(self) -> LifeLimits:
        """How long pods may go on as they are, where neither they nor their users say."""
        return LifeLimits(
            closed_grace=_span(self.closed_grace),
            idle_limit=_span(self.idle_limit),
            busy_max=_span(self.busy_max),
            lifetime=_span(self.lifetime_max),
            archive_after=_span(self.archive_after),
            warning=timedelta(seconds=self.warning_before),
        )

    def extension(self) -> timedelta:
        """By how much "keep it running" in an editor puts a stop off."""
        return timedelta(seconds=self.idle_limit) if self.idle_limit else DEFAULT_EXTENSION

    def limits(self) -> Limits:
        """The bounds as the planner wants them."""
        return Limits(
            actions_per_pass_max=self.actions_per_pass_max,
            open_actions_per_node_max=self.open_actions_per_node_max,
            open_starts_per_node_max=self.open_starts_per_node_max,
            node_silent_after=timedelta(seconds=self.node_silent_after),
            silent_share_max=self.silent_share_max,
            self_fence_after=timedelta(seconds=self.self_fence_after),
            failover_after=timedelta(seconds=self.failover_after),
            checkpoint_every=timedelta(seconds=self.checkpoint_every),
            archive_grace=timedelta(seconds=self.archive_grace),
            warm_after=_span(self.warm_after),
            backoff_first=timedelta(seconds=self.backoff_first),
            backoff_max=timedelta(seconds=self.backoff_max),
            healthy_after=timedelta(seconds=self.healthy_after),
            archives_kept=self.archives_kept,
            archive_days_kept=self.archive_days_kept,
            deleted_pods_kept=timedelta(seconds=self.deleted_pods_kept),
            sweep_age=timedelta(seconds=self.sweep_age),
            sweep_confirm_after=timedelta(seconds=self.sweep_confirm_after),
            sweep_share_max=self.sweep_share_max,
            scrub_every=timedelta(seconds=self.scrub_every),
        )


def _span(seconds: float) -> timedelta | None:
    return timedelta(seconds=seconds) if seconds else None
