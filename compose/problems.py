"""What goes wrong on one machine, told to the person at the terminal."""


class ProblemError(Exception):
    """Something the operator can put right. The message says what, why, and what to do."""
