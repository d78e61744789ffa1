"""Small charts: errors at the foot of the bars, and a line that breaks where nothing was answered."""

from web.pages.sparkline import sparkline


def point(calls: int, errors: int = 0, ms: int | None = None) -> dict:
    return {"calls": calls, "errors": errors, "first_byte_p95_ms": ms}


def test_errors_stand_below_what_was_fine():
    found = sparkline([point(4, 1), point(2)])
    fine = found["fine"]
    assert found["errors"] == "M0.0 150.0h288.0v50.0h-288.0z"
    assert fine.startswith("M0.0 0.0h288.0v150.0")
    assert fine.count("M") == 2


def test_the_line_breaks_where_there_is_no_time_and_the_slowest_touches_the_top():
    line = sparkline([point(1, ms=100), point(1, ms=200), point(0), point(1, ms=50)])["line"]
    assert line == "M36.0 100.0h72.0L216.0 0.0h72.0M576.0 150.0h72.0"


def test_nothing_is_drawn_of_nothing():
    assert set(sparkline([point(0), point(0)]).values()) == {""}
