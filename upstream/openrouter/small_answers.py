"""OpenRouter's answers to small questions: how long and how large they may be, and what users are told without one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from foundation.deadline import TimeIsUp
from foundation.errors import UpstreamFailed, UpstreamTimeout
from upstream.connection import UpstreamError

ANSWER_SECONDS = 10.0
MAX_ANSWER_BYTES = 64 * 1024


@contextmanager
def told_to_users() -> Iterator[None]:
    """Raise UpstreamTimeout or UpstreamFailed where no answer comes."""
    try:
        yield
    except TimeIsUp:
        raise UpstreamTimeout("OpenRouter did not answer in time; try again") from None
    except UpstreamError:
        raise UpstreamFailed("OpenRouter can't be reached at present; try again") from None
