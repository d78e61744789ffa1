"""What operators' programs print, in a pipe. Tables on terminals are tested with the programs that print them."""

from datetime import UTC, datetime

import orjson

from foundation.terminal import show


def test_a_pipe_gets_one_json_line_a_row(capsys):
    show([{"name": "[a]", "at": datetime(2026, 11, 21, tzinfo=UTC), "limit": None}, {"name": "b"}], "Title")
    lines = [orjson.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [{"name": "[a]", "at": "2026-11-21T00:00:00+00:00", "limit": None}, {"name": "b"}]


def test_a_pipe_gets_nothing_for_no_rows(capsys):
    show([], "Title")
    assert capsys.readouterr().out == ""
