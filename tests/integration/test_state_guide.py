"""docs/sql.md: what it shows works, and what it lists is all there is."""

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.rows import dict_row

from state.columns import DESIRED
from state.database import Connection, Database
from state.tables import NodeRow, PodRow

GUIDE = (Path(__file__).parents[2] / "docs" / "sql.md").read_text()
EXAMPLES = re.findall(r"```sql\n(.*?)```", GUIDE.partition("## What a refusal means")[0], re.DOTALL)


@pytest.fixture
def admin(one_pod: Database, admin_url: str) -> Iterator[Connection]:
    """An admin at work."""
    with psycopg.connect(admin_url, row_factory=dict_row, autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_of_the_guide_run(admin: Connection, example: str) -> None:
    """What docs/sql.md shows for looking and editing works as it stands, for an admin."""
    admin.execute(example)


def test_the_guide_names_the_columns_of_the_views(admin: Connection) -> None:
    """All of them, in their order."""
    for view in ("pod_status", "node_status"):
        columns = admin.execute(f"SELECT * FROM {view} LIMIT 0").description or []
        listed = ", ".join(f"`{column.name}`" for column in columns)

        assert f"| `{view}` |" in GUIDE
        assert f"| {listed} |" in GUIDE


def test_the_guide_names_the_columns_that_may_be_edited() -> None:
    """No more, and no fewer."""
    table = GUIDE.partition("| table | column |")[2].partition("\n\n")[0]
    named = re.findall(r"^\| (?:`\w+`)? ?\| `(\w+)` \|", table, re.MULTILINE)

    desired = [
        column.name
        for name in (PodRow.__tablename__, NodeRow.__tablename__)
        for column in PodRow.metadata.tables[str(name)].columns
        if column.info["owner"] is DESIRED
    ]

    assert sorted(named) == sorted(desired)
