"""What each worker keeps of the gate's yes (`nginx_njs/kept.pm`), under Perl as nginx embeds it."""

import subprocess
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from compose.nginx_config import SOURCES

# Reads operations, a line each, and answers each `look` by a line.
DRIVER = """
use kept; $kept::BYTES_MAX = shift;
while (<STDIN>) {
    chomp; my ($what, $key, $now, $until, $text) = split /\t/;
    if ($what eq 'put') { kept::put($key, $text, $until, $now) } else { print kept::look($key, $now), "\n" }
}
"""
Operation = tuple[str | int, ...]
KEYS = st.sampled_from(["a", "b", "another pod's cookie"])
NOW = st.integers(100, 125)
PUT = st.tuples(st.just("put"), KEYS, NOW, st.integers(95, 130), st.sampled_from(["yes", "other"]))
LOOK = st.tuples(st.just("look"), KEYS, NOW)


def answers(operations: Sequence[Operation], bytes_max: int = 1000) -> list[str]:
    """What one worker says to these, in turn."""
    lines = "".join("\t".join(map(str, operation)) + "\n" for operation in operations)
    command = ["perl", f"-I{SOURCES}", "-e", DRIVER, str(bytes_max)]
    return subprocess.run(command, input=lines, text=True, check=True, capture_output=True).stdout.split("\n")


@settings(max_examples=60)
@given(st.lists(PUT | LOOK, max_size=25))
def test_nothing_is_said_but_what_was_kept_last_and_is_good_in_this_second(
    operations: list[Operation],
) -> None:
    """Never under another key, before the second it was kept in or after its last, however the clock goes."""
    kept: dict[Operation, tuple[int, int, str]] = {}
    said = iter(answers(operations))
    for what, *rest in operations:
        if what == "put":
            key, now, until, text = rest
            kept[(key,)] = (int(now), int(until), str(text))
        else:
            key, now = rest
            since, until, text = kept.get((key,), (0, -1, ""))
            answer = next(said)
            assert answer in ("", text)
            assert answer == "" or since <= int(now) <= until


@settings(max_examples=40)
@given(st.lists(PUT, max_size=20), KEYS, NOW)
def test_what_was_kept_is_said_at_once(before: list[Operation], key: str, now: int) -> None:
    """Whatever was kept before it."""
    operations = [*before, ("put", key, now, now + 4, "yes"), ("look", key, now)]

    assert answers(operations)[0] == "yes"


def test_memory_is_bounded_and_the_newest_stay() -> None:
    """Two generations of 100 bytes: of a hundred browsers with 10 bytes each, the last ten are known."""
    puts: list[Operation] = [("put", f"key-{n:03}", 100, 104, "yes") for n in range(100)]
    looks: list[Operation] = [("look", f"key-{n:03}", 100) for n in range(100)]
    said = answers([*puts, *looks], bytes_max=100)[:100]

    assert said[-10:] == ["yes"] * 10
    assert said.count("yes") <= 20
