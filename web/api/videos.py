"""Videos: a job that was started at POST /v1/videos (serving/door.py), asked for until its film is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from flask import Blueprint, Response, request
from pydantic import Field

from accounts.caller import Caller
from billing import video_jobs
from billing.quotas.rate_limits import Admission
from billing.video_jobs import StartedJob
from formats.registry import VIDEOS
from formats.videos import JOB_ID, MAX_FILMS, shown
from foundation.errors import NotFound
from web.http import services
from web.operation import Number, Query, Shown, Who, operation

routes = Blueprint("videos_api", __name__)

JSON = "application/json"
NO_SUCH_JOB = "There is no such video of yours"
REFUSALS = (404, 502, 503, 504)


class VideoCost(Shown):
    """Dollars, once the job is over."""

    cost: float | None = None
    is_byok: bool = False


class VideoJob(Shown):
    """A job that makes a video, in OpenRouter's form."""

    id: str = Field(examples=["job-abc123"])
    polling_url: str = Field(examples=["/api/v1/videos/job-abc123"])
    status: Literal["pending", "in_progress", "completed", "failed", "cancelled", "expired"]
    generation_id: str | None = Field(None, examples=["gen-xyz789"])
    unsigned_urls: list[str] = Field([], description="Where its films are; they take the same credential")
    usage: VideoCost | None = None
    error: str | None = Field(None, description="Why it failed", examples=["The prompt was refused"])


class WhichFilm(Query):
    """index: of the films that a job made, from 0 on."""

    index: Number = Field(0, ge=0, le=MAX_FILMS - 1, description="Which of the job's films, counted from 0")


@routes.get("/v1/videos/<job_id>")
@routes.get("/api/v1/videos/<job_id>")
@operation("Ask for a video", Who.CALLER, answers={200: VideoJob}, refusals=REFUSALS)
def video(caller: Caller, job_id: str) -> Response:
    """How far a job of yours has come, and what it cost. Counts as a request, like a call: OpenRouter is asked."""

    def ask(started: StartedJob) -> Response:
        job = services().videos.get(started.id, started.pool_key_id)
        services().costs.note_job(started, job)
        return Response(shown(job, started.id, services().config.public_url), mimetype=JSON)

    return _of_own_job(caller, job_id, ask)


@routes.get("/v1/videos/<job_id>/content")
@routes.get("/api/v1/videos/<job_id>/content")
@operation(
    "Fetch a video",
    Who.CALLER,
    query=WhichFilm,
    answers={200: ("video/mp4", "application/octet-stream")},
    refusals=REFUSALS,
)
def film(caller: Caller, job_id: str, query: WhichFilm) -> Response:
    """The film, as it comes from OpenRouter: nothing is kept here. Counts as a request."""

    def fetch(started: StartedJob) -> Response:
        found = services().videos.film(started.id, query.index, started.pool_key_id)
        answer = Response(found, mimetype=found.media)  # closed with the answer
        if found.size:
            answer.headers["Content-Length"] = found.size
        return answer

    return _of_own_job(caller, job_id, fetch)


def _of_own_job(caller: Caller, job_id: str, answer: Callable[[StartedJob], Response]) -> Response:
    """What is answered of a job of the caller's, as a request in the rate limits, until its last byte.

    Raises Forbidden, NotFound, and what `answer` raises.
    """
    if caller.client_key:
        caller.client_key.check_scope(VIDEOS.name)
    admission: Admission = services().rate_limits.admit(caller, services().addresses.of(request.environ))
    try:
        known: Any = JOB_ID.fullmatch(job_id)
        started = known and video_jobs.find(services().db, job_id, caller.user_id, caller.client_key_id)
        if not started:
            raise NotFound(NO_SUCH_JOB)
        found = answer(started)
    except BaseException:
        admission.release(0)
        raise
    found.call_on_close(lambda: admission.release(0))
    return found
