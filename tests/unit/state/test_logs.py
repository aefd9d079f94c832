"""What the programs print of themselves."""

import json
import subprocess
import sys

import pytest

from state.logs import LogFormat

FAILING = """
import structlog, sys
from state import logs
logs.configure(sys.argv[1])
def failing(token):
    raise ValueError("it did not work")
try:
    failing("the token")
except ValueError:
    structlog.get_logger().exception("failed", pod="p-1")
structlog.get_logger().debug("unasked")
"""


def logged(log_format: LogFormat) -> str:
    """What a program logs of an error."""
    argv = [sys.executable, "-c", FAILING, log_format]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stderr


@pytest.mark.parametrize("log_format", ["text", "json", "auto"])
def test_an_error_is_logged_with_its_lines_and_without_what_was_in_its_variables(
    log_format: LogFormat,
) -> None:
    """Tokens are among them."""
    lines = logged(log_format)
    assert "it did not work" in lines
    assert "in failing" in lines
    assert "the token" not in lines.replace('failing("the token")', "")
    assert "unasked" not in lines


def test_where_no_terminal_is_each_event_is_a_line_of_json() -> None:
    """With its level and time."""
    (event,) = map(json.loads, logged("auto").splitlines())
    assert (event["event"], event["level"], event["pod"]) == ("failed", "error", "p-1")
    assert event["timestamp"].endswith("Z")
