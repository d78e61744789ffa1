"""What tests of the doors share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.data_plane import WHOLE
from tests.support.scripted_upstream import ScriptedUpstream, json_answer


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """An upstream that plays exact bytes, for the gateways of a module; "m" is answered until a test plays it anew."""
    scripted = ScriptedUpstream()
    scripted.play("m", json_answer("200 OK", WHOLE))
    yield scripted
    scripted.close()
