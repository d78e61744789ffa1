"""OpenRouter's videos: a call starts a job, which is asked about later, and its film is fetched when it is done.

What a job answers is written anew from a list: its addresses lead back here, where it is known whose it is.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any

from formats import body
from formats.chat import ModelApi
from foundation import json_text
from upstream.disclosure import hide_account

Json = dict[str, Any]

JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~:-]{0,127}")  # as it may stand in a path
PATH = "/api/v1/videos"
MAX_FILMS = 32  # of one job


class VideosApi(ModelApi):
    """The format of POST /videos. What a job cost is known when it is over."""

    name = "videos"
    path = "/videos"
    read = staticmethod(body.read_video)
    reads_tail = False
    is_text = False
    is_job = True

    def _has_said(self, payload: Json) -> bool:
        return job_id_in(payload) is not None

    def usage_in(self, _payload: Json) -> Json | None:
        """Nothing: a job has not cost anything yet."""
        return None


def job_id_in(payload: Json) -> str | None:
    """OpenRouter's name for the job; None for what is none, or can't be asked for."""
    name, status = payload.get("id"), payload.get("status")
    return name if isinstance(name, str) and isinstance(status, str) and JOB_ID.fullmatch(name) else None


def generation_id_in(job: Json) -> str | None:
    """The name of the generation that a job became; None before that."""
    name = job.get("generation_id")
    return name if isinstance(name, str) and name.isascii() and 0 < len(name) <= 64 else None


def shown(job: Json, job_id: str, public_url: str = "") -> bytes:
    """A job, which says how far it has come, as its caller may see it. public_url: ours; paths alone without one.

    What is null is left out, because OpenRouter's clients refuse null.
    """
    path = f"{PATH}/{job_id}"
    told: Json = {"id": job_id, "polling_url": path, "status": job["status"]}
    if generation_id := generation_id_in(job):
        told["generation_id"] = generation_id
    if films := job.get("unsigned_urls"):
        count = min(len(films), MAX_FILMS) if isinstance(films, list) else 0
        told["unsigned_urls"] = [f"{public_url}{path}/content?index={at}" for at in range(count)]
    if isinstance(usage := job.get("usage"), dict):
        told["usage"] = {"cost": _dollars(usage.get("cost")), "is_byok": usage.get("is_byok") is True}
    if error := job.get("error"):
        words = error.get("message") if isinstance(error, dict) else error
        told["error"] = str(words or "The job failed")
    return hide_account(json_text.write(told).decode()).encode()


def _dollars(cost: object) -> float | None:
    if isinstance(cost, bool) or not isinstance(cost, int | float | Decimal):
        return None
    try:
        dollars = float(cost)
    except OverflowError:  # of an integer; of a fraction it is infinite
        return None
    return dollars if math.isfinite(dollars) and dollars >= 0 else None
