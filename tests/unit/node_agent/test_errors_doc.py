"""docs/errors.md, which tells people what the codes of failed steps and chores mean."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
SAID = re.compile(r'\bcode ?= ?"([a-z_]+)"')
# Bases that are never raised themselves, and what is told under another code.
NEVER_SHOWN = {
    "archive_error",
    "restore_disk_full",
    "step_failed",
    "store_invalid_range",
    "store_not_offered",
}


def test_every_code_that_can_be_met_is_explained() -> None:
    """Whatever a node's agent answers stands in one of the tables; NEVER_SHOWN has no code for nothing."""
    sources = [*(ROOT / "node_agent").rglob("*.py"), ROOT / "state/results.py", ROOT / "state/chores.py"]
    said = {code for source in sources for code in SAID.findall(source.read_text())}
    rows = [row for row in (ROOT / "docs/errors.md").read_text().splitlines() if row.startswith("| `")]
    explained = {code for row in rows for code in re.findall("`([a-z_]+)`", row.split("|")[1])}

    assert said - explained == NEVER_SHOWN
