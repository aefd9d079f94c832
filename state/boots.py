"""The names of an agent's runs: a number that only goes up, and the machine that it runs on.

Names of one node are compared as text, so numbers have leading zeros. Agents before 1.1 had chance in the
machine's place, which says nothing about their machine.
"""

import re

NUMBER_DIGITS = 20
# As PostgreSQL reads it, too. Hexadecimal digits alone were chance.
MACHINE_PATTERN = "-m([0-9a-z]+)$"

_NUMBER = re.compile(rf"\d{{{NUMBER_DIGITS}}}(?=-)")
_MACHINE = re.compile(MACHINE_PATTERN)


def boot_id(number: int, machine: str) -> str:
    """Of the run with this number; `machine` has small letters and digits only, or is empty: not known."""
    return f"{number:0{NUMBER_DIGITS}d}-m{machine}"


def number_of(name: str) -> int:
    """0 for a name that no agent gives itself."""
    found = _NUMBER.match(name)
    return int(found[0]) if found else 0


def is_other_machine(name: str, other: str) -> bool:
    """Whether both say where they run, and it is not the same machine."""
    machines = [found[1] for found in map(_MACHINE.search, (name, other)) if found]
    return len(machines) == 2 and machines[0] != machines[1]
