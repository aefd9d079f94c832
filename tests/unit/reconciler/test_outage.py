"""Telling of an outage."""

from structlog.testing import capture_logs

from reconciler.outage import Outage


def test_a_long_outage_is_told_ever_more_rarely_and_its_end_once() -> None:
    """A poll a second for ten minutes leaves a dozen lines, not six hundred."""
    now = [0.0]
    outage = Outage("database", lambda: now[0])
    with capture_logs() as lines:
        for second in range(600):
            now[0] = float(second)
            outage.met(OSError("refused"))
        outage.over()
        outage.over()

    told = [line["for_s"] for line in lines if line["event"] == "database_away"]
    assert told[:6] == [0, 1, 3, 7, 15, 31]
    assert len(told) < 20
    assert [line["after_s"] for line in lines if line["event"] == "database_back"] == [599]


def test_the_next_outage_is_told_at_once() -> None:
    """However long the one before had made it fall silent."""
    outage = Outage("database", lambda: 0.0)
    with capture_logs() as lines:
        for _ in range(2):
            outage.met(OSError("refused"))
            outage.met(OSError("refused"))
            outage.over()

    assert [line["event"] for line in lines] == ["database_away", "database_back"] * 2
