"""The table of problem codes, and docs/api.md which tells it to people."""

import re
from pathlib import Path

from api import problems
from api.operations import OPERATIONS

DOCS = Path(__file__).parents[3] / "docs" / "api.md"
ROUTING_CODES = {"not_found", "method_not_allowed"}


def test_the_docs_list_every_code_with_its_status() -> None:
    """docs/api.md has exactly the codes of the program, each with its HTTP status."""
    rows = re.findall(r"^\| (\d{3}) \| `([a-z_]+)` \|", DOCS.read_text(), re.MULTILINE)

    assert {(str(kind.status), code) for code, kind in problems.KINDS.items()} == set(rows)
    assert len(rows) == len(problems.KINDS)


def test_every_code_belongs_to_an_operation() -> None:
    """No code is in the table for nothing, and no operation names one that is not there."""
    used = {code for operation in OPERATIONS for code in operation.codes}

    assert set(problems.KINDS) == used | ROUTING_CODES


def test_every_problem_says_what_to_do() -> None:
    """Titles say what; hints are sentences that say what to do."""
    for kind in problems.KINDS.values():
        assert kind.hint.endswith((".", "…"))
        assert not kind.title.endswith(".")
