"""OpenRouter's jobs that make videos, asked for with the pool key that started them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from config.version import USER_AGENT
from foundation import json_text
from foundation.deadline import Deadline, NothingYet, TimeIsUp
from foundation.errors import AppError, BadRequest, Busy, NotFound, UpstreamFailed
from upstream.connection import UpstreamError
from upstream.http import Exchange, UpstreamHttp
from upstream.openrouter.small_answers import ANSWER_SECONDS, MAX_ANSWER_BYTES, told_to_users

ANOTHER_KEY_MAY = {401, 403, 404}
FIRST_BYTE_SECONDS, IDLE_SECONDS, TICK_SECONDS = 60.0, 60.0, 0.5
MEDIA = "video/"  # anything else a browser might take for a page
NO_FILMS = ("text/", "application/json")


class VideoJobs:
    """Asks for jobs and films. authorizations: what may ask for a job, by the id of the pool key that started it.

    job_id: as formats/videos.py takes it, so that it may stand in a path.
    """

    def __init__(self, authorizations: Callable[[int], Iterable[bytes]], upstream: UpstreamHttp) -> None:
        self._authorizations = authorizations
        self._upstream = upstream

    def find(self, job_id: str, pool_key_id: int) -> dict[str, Any] | None:
        """A job as OpenRouter describes it; None if it does not."""
        try:
            return self.get(job_id, pool_key_id)
        except AppError:
            return None

    def get(self, job_id: str, pool_key_id: int) -> dict[str, Any]:
        """The same. Raises NotFound, Busy, UpstreamFailed, UpstreamTimeout."""
        status, body = 401, b""
        with told_to_users():
            for authorization in self._authorizations(pool_key_id):
                status, body = self._upstream.get(f"/videos/{job_id}", authorization, ANSWER_SECONDS, MAX_ANSWER_BYTES)
                if status not in ANOTHER_KEY_MAY:
                    break
        if status != 200:
            raise _refused(status)
        try:
            job = json_text.parse_exact(body)
        except json_text.BadJson:
            job = None
        if not isinstance(job, dict) or not isinstance(job.get("status"), str):
            raise UpstreamFailed("OpenRouter did not answer with a job; try again")
        return job

    def film(self, job_id: str, index: int, pool_key_id: int) -> Film:
        """The film of a job, to be read and closed. Raises as `get`, and BadRequest."""
        head = self._upstream.request_line("GET", f"/videos/{job_id}/content?index={index}")
        head += f"Accept: */*\r\nAccept-Encoding: identity\r\nUser-Agent: {USER_AGENT}\r\n".encode("ascii")
        status = 401
        for authorization in self._authorizations(pool_key_id):
            film = Film(self._upstream.exchange(head + authorization))
            status = film.open()
            if status == 200 and film.is_one:
                return film
            film.close()
            if status == 200:
                raise UpstreamFailed("OpenRouter did not answer with a film; try again")
            if status not in ANOTHER_KEY_MAY:
                break
        if status == 400:
            raise BadRequest(
                "OpenRouter has no such film of this job: `index` counts from 0, and the job must be completed"
            )
        raise _refused(status)


class Film:
    """A film on its way down; little of it is held at any time."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._deadline = Deadline(FIRST_BYTE_SECONDS)

    def open(self) -> int:
        """The answer's status. Raises UpstreamFailed, UpstreamTimeout."""
        try:
            with told_to_users():
                self._exchange.wait_head(self._deadline)
            self._deadline.renew(IDLE_SECONDS)
        except BaseException:
            self.close()
            raise
        return self._exchange.status

    @property
    def is_one(self) -> bool:
        """False for a page or an error in its place, and for what came compressed though nobody asked for that."""
        headers = self._exchange.headers
        is_encoded = headers.get("content-encoding", "identity").lower() != "identity"
        return not is_encoded and not headers.get("content-type", "").lower().startswith(NO_FILMS)

    @property
    def media(self) -> str:
        """Its type."""
        told = self._exchange.headers.get("content-type", "")
        return told if told.lower().startswith(MEDIA) and told.isascii() else "application/octet-stream"

    @property
    def size(self) -> str | None:
        """Its bytes, where that was told."""
        return self._exchange.headers.get("content-length")

    def __iter__(self) -> Film:
        return self

    def __next__(self) -> bytes:
        self._deadline.look_up_in(TICK_SECONDS)
        try:
            piece = self._exchange.read(self._deadline)
        except NothingYet:
            return b""  # by which granian notices that its client has gone
        except (UpstreamError, TimeIsUp) as error:
            # Its length tells the client; without one the missing last chunk does, but under granian, which sends it.
            raise ConnectionAbortedError("the film broke off") from error
        if not piece:
            raise StopIteration
        self._deadline.renew(IDLE_SECONDS)
        return piece

    def close(self) -> None:
        """End the exchange; at once if it was not whole."""
        self._exchange.close()


def _refused(status: int) -> AppError:
    if status == 404:
        return NotFound("OpenRouter has no such video, or has it no more; a film is there once its job is completed")
    if status in {401, 403}:  # our keys that are refused, not the caller's
        return Busy("The key that started this job is gone, and no other may ask for it; tell the operator", 60)
    if status in {402, 429}:
        return Busy("OpenRouter can't be asked for videos at present; try again shortly", 5)
    return UpstreamFailed(f"OpenRouter answered with status {status}; try again")
