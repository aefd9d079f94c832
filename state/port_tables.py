"""The table of ports that are open to others: see state.tables for how tables are written down."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Integer, Text
from sqlmodel import SQLModel

from state.columns import API, DATABASE, IDENTITY, TIME, of, one_of, ref

SHARED = ("link", "public")


class PodPortRow(SQLModel, table=True):
    """One port of one pod that its user has opened to others. A private port has no row."""

    __tablename__ = "pod_port"
    __table_args__ = (
        CheckConstraint("port BETWEEN 1 AND 65535", name="pod_port_is_1_to_65535"),
        one_of("visibility", SHARED, "pod_port_visibility_is_link_or_public"),
    )

    pod_id: str = of(IDENTITY, Text, ref("pod"), primary_key=True)
    port: int = of(IDENTITY, Integer, primary_key=True, autoincrement=False)
    visibility: str = of(API, Text)
    link_id: str = of(API, Text)  # opens the application to whoever has it; a new one ends the old links
    changed_at: datetime = of(DATABASE, TIME, default="now()")
