"""How the programs log: one line for each event on standard error, as JSON or for people."""

import logging
import sys
from typing import Literal

import structlog

LogFormat = Literal["auto", "json", "text"]
Level = Literal["debug", "info", "warning", "error"]


def configure(log_format: LogFormat, level: Level = "info") -> None:
    """Send structlog from this level on, and the standard logging of libraries from warnings on, there.

    `auto` is text at a terminal and JSON elsewhere.
    """
    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *(_as_json() if as_json else _as_text()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")


def _as_json() -> tuple[structlog.typing.Processor, ...]:
    return structlog.processors.format_exc_info, structlog.processors.JSONRenderer()


def _as_text() -> tuple[structlog.typing.Processor, ...]:
    # Plain tracebacks: the richer ones print local variables, and tokens are among them.
    return (structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),)
