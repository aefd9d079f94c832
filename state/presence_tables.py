"""The tables of who is there and of what follows from it, as SQLModel rows: the rest of state.tables."""

from datetime import datetime

from sqlalchemy import BigInteger, Boolean, Index, Integer, Text, text
from sqlmodel import SQLModel

from state.columns import IDENTITY, NODE, RECONCILER, TIME, of, one_of, ref
from state.lifecycle import Rule


class PodPresenceRow(SQLModel, table=True):
    """The newest look at who is in a pod: state.lifecycle.Presence. Told all the time, so never in `pod`."""

    __tablename__ = "pod_presence"
    __table_args__ = (
        Index("pod_presence_asked", "node_id", postgresql_where=text("look_asked_at IS NOT NULL")),
        {"postgresql_with": {"fillfactor": 80}},
    )

    pod_id: str = of(IDENTITY, Text, ref("pod"), primary_key=True)
    node_id: str = of(NODE, Text, ref("node"))
    epoch: int = of(NODE, BigInteger)
    started_at: datetime = of(NODE, TIME)
    seen_at: datetime = of(NODE, TIME)
    connections: int = of(NODE, Integer, default="0")
    connected_at: datetime | None = of(NODE, TIME, null=True)
    gone_at: datetime | None = of(NODE, TIME, null=True)
    heartbeat_at: datetime | None = of(NODE, TIME, null=True)
    active_at: datetime | None = of(NODE, TIME, null=True)
    busy: bool = of(NODE, Boolean, default="false")
    busy_at: datetime | None = of(NODE, TIME, null=True)
    busy_with: str = of(NODE, Text, default="''")
    cpu_millis: int = of(NODE, Integer, default="0")
    look_asked_at: datetime | None = of(RECONCILER, TIME, null=True)


class PodPolicyRow(SQLModel, table=True):
    """What the policies last decided about a pod, and when they look at it next."""

    __tablename__ = "pod_policy"
    __table_args__ = (
        one_of("rule", Rule, "pod_policy_rule_is_a_known_rule"),
        Index("pod_policy_due", "next_look_at", postgresql_where=text("next_look_at IS NOT NULL")),
        Index("pod_policy_warned", "pod_id", postgresql_where=text("warned_at IS NOT NULL")),
        {"postgresql_with": {"fillfactor": 80}},
    )

    pod_id: str = of(IDENTITY, Text, ref("pod"), primary_key=True)
    next_look_at: datetime | None = of(RECONCILER, TIME, null=True)
    rule: str | None = of(RECONCILER, Text, null=True)
    reason: str | None = of(RECONCILER, Text, null=True)
    stops_at: datetime | None = of(RECONCILER, TIME, null=True)
    warned_at: datetime | None = of(RECONCILER, TIME, null=True)
    can_extend: bool = of(RECONCILER, Boolean, default="true")
