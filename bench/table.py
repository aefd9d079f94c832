"""The table of a bench: one comparison in each row."""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison. The ratio is what the target bounds, from above or (`at_least`) from below.
    `fastest` is the ratio of both sides' fastest rounds: the least disturbed ones."""

    name: str
    ours: str
    base: str
    ratio: float
    target: float | None = None
    at_least: bool = False
    fastest: float | None = None

    @property
    def missed(self) -> bool:
        """Whether the target is not reached."""
        if self.target is None:
            return False
        return self.ratio < self.target if self.at_least else self.ratio > self.target

    @property
    def wanted(self) -> str:
        """The target in words."""
        return "" if self.target is None else f"{'≥' if self.at_least else '≤'} {self.target:g}"


def show(found: list[Row]) -> None:
    """The table."""
    table = Table("what", "codepods", "beside it", "ratio", "of the fastest", "target")
    for row in found:
        best = f"{row.fastest:.2f}" if row.fastest else ""
        told = f"[red]{row.wanted} missed" if row.missed else row.wanted
        table.add_row(row.name, row.ours, row.base, f"{row.ratio:.2f}", best, told)
    Console(width=160).print(table)


def mb(size_bytes: float) -> str:
    """Megabytes for people."""
    return f"{size_bytes / 1e6:.2f} MB"


def ms(seconds: float) -> str:
    """Seconds for people."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"
