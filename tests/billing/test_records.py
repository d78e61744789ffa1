"""A record's line: what it was is what is read, and a line that was torn or flipped is no record."""

from __future__ import annotations

import pytest

from billing.records import fault_of, line_of, record_of
from tests.support.rows import each_row

RECORD = {"request_id": "0" * 32, "attempt": 1, "state": "settled", "cost_nano": 150, "model": "a/b"}


def test_a_line_is_the_record_again_and_json_for_everybody():
    line = line_of(RECORD)
    assert line.startswith(b'{"crc":"')
    assert line.endswith(b"}\n")
    assert record_of(line) == record_of(line.rstrip()) == RECORD


@each_row("place", range(8, len(line_of(RECORD)) - 1))
def test_no_flipped_bit_and_no_torn_end_passes(place):
    line = line_of(RECORD)
    flipped = line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :]
    if place not in {16, 17}:  # between checksum and record
        with pytest.raises(ValueError, match=r"."):
            record_of(flipped)
    with pytest.raises(ValueError, match=r"."):
        record_of(line[:place])


def test_names_of_a_newer_version_are_no_fault():
    assert fault_of(RECORD | {"invented_later": [1]}) is None
