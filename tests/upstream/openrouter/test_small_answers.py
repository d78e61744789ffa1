"""What users are told where OpenRouter's answer does not come."""

from __future__ import annotations

import pytest

from foundation.deadline import TimeIsUp
from foundation.errors import UpstreamFailed, UpstreamTimeout
from upstream.connection import UpstreamError
from upstream.openrouter.small_answers import told_to_users


@pytest.mark.parametrize(("happened", "told"), [(TimeIsUp(), UpstreamTimeout), (UpstreamError(), UpstreamFailed)])
def test_what_did_not_come_is_told_without_its_cause(happened, told):
    with pytest.raises(told) as raised, told_to_users():
        raise happened
    assert raised.value.__suppress_context__


def test_an_answer_that_comes_passes():
    with told_to_users():
        pass
