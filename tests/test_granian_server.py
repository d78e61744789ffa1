"""granian ends when it is told to, whatever its workers are at."""

import pytest


@pytest.mark.parametrize("attempt", range(2))
def test_told_to_end_while_workers_still_load_the_server_ends_at_once(start, tmp_path, attempt):
    gateway = start(DATA_DIR=tmp_path / "data", SERVER_WORKERS=4)  # ready as soon as one of them is
    assert gateway.stop() == 0
