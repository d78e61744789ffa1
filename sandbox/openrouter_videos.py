"""Videos in the stand-in: jobs that take their time, are billed when they are over, and have a film then.

POST /sandbox/settings sets `video_ms`, how long a job takes, and `video_bytes`, how large its film is. POST
/sandbox/videos {"id": ID, "status": "failed", "cost": 0} ends a job at once, with another end or cost; without an id,
all that are under way.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sandbox.http_server import Reply
from sandbox.openrouter_accounts import Books, Generation, Key, dollars
from sandbox.openrouter_calls import check_required, check_types, count_tokens
from sandbox.openrouter_endpoint import Call, as_json
from sandbox.openrouter_faults import ROWS, Refused, bad_request
from sandbox.openrouter_keys import nano_dollars
from sandbox.openrouter_models import Model, find_model
from sandbox.openrouter_scenarios import MODEL_PREFIX

SECOND_NANO = 50_000_000  # of film; the list of models says so too
SECONDS = 4  # of a film whose length nobody said
TYPES_OF_FIELDS: dict[str, tuple[type, ...]] = {
    "model": (str,),
    "prompt": (str,),
    "duration": (int,),
    "resolution": (str,),
    "aspect_ratio": (str,),
    "size": (str,),
    "seed": (int,),
    "generate_audio": (bool,),
    "frame_images": (list,),
    "input_references": (list,),
    "callback_url": (str,),
}
FILM_HEAD = bytes.fromhex("0000001866747970") + b"mp42\0\0\0\0mp42isom"  # what follows is no film that could be seen
OVER = ("completed", "failed", "cancelled", "expired")


@dataclass(slots=True)
class Job:
    """A video that is made."""

    id: str
    key: Key
    model: Model
    prompt_tokens: int
    cost_nano: int
    takes_seconds: float
    generation_id: str
    begun: float = field(default_factory=time.monotonic)
    end: str = ""

    def status(self) -> str:
        """Return how far it has come."""
        is_early = time.monotonic() - self.begun < self.takes_seconds / 2
        return self.end or ("pending" if is_early else "in_progress")

    def described(self, base_url: str = "") -> dict[str, Any]:
        """Return it as OpenRouter shows it; base_url: where films are."""
        told: dict[str, Any] = {"id": self.id, "polling_url": f"/api/v1/videos/{self.id}", "status": self.status()}
        if self.end == "completed":
            told["generation_id"] = self.generation_id
            told["unsigned_urls"] = [f"{base_url}/api/v1/videos/{self.id}/content?index=0"]
            told["usage"] = {"cost": dollars(self.cost_nano), "is_byok": False}
        elif self.end:
            told["error"] = "Upstream error from Google: the film could not be made"
        return told


class Videos:
    """`/videos` and what is below it."""

    def __init__(self, books: Books, new_generation_id: Callable[[], str]) -> None:
        self._books = books
        self._new_generation_id = new_generation_id
        self._jobs: dict[str, Job] = {}

    def start(self, call: Call) -> Reply:
        document = call.json_object()
        check_types(document, TYPES_OF_FIELDS)
        check_required(document, "model")
        name = document["model"]
        if name.startswith(MODEL_PREFIX) and name.removeprefix(MODEL_PREFIX) in ROWS:
            raise Refused(name.removeprefix(MODEL_PREFIX))
        model = find_model(name, "videos")
        if model is None:
            raise Refused("400-model", MODEL=name, ACCOUNT=call.account.id)
        if not (document.get("prompt") or document.get("frame_images") or document.get("input_references")):
            raise bad_request("prompt: Invalid input: expected string, received undefined")
        seconds = SECONDS if document.get("duration") is None else document["duration"]
        if seconds < 1:
            raise bad_request("duration: Too small: expected number to be >=1")
        cost_nano = SECOND_NANO * seconds
        self._books.reserve(call.key, cost_nano, 0)
        takes_seconds = call.settings.video_ms / 1000
        tokens = count_tokens([document.get("prompt") or ""])
        job_id = f"job-{random.getrandbits(80):020x}"
        job = Job(job_id, call.key, model, tokens, cost_nano, takes_seconds, self._new_generation_id())
        self._jobs[job.id] = job
        asyncio.get_running_loop().call_later(takes_seconds, self._finish, job, "completed")
        return as_json(job.described(), 202)

    def get(self, call: Call) -> Reply:
        """Return a job, or its film; to any key of the account, unless the settings say otherwise."""
        job_id, _, below = call.rest.partition("/")
        job = self._jobs.get(job_id)
        is_same_key = job and (job.key is call.key or not call.settings.generation_same_key_only)
        if job is None or job.key.account_id != call.account.id or not is_same_key or below not in ("", "content"):
            raise Refused("404")
        if not below:
            host = call.exchange.header(b"host").decode("latin-1")
            return as_json(job.described(f"http://{host}"))
        if call.query().get("index", "0") != "0":
            raise bad_request("index: there is no such film")
        if job.end != "completed":
            raise bad_request("The video is not completed")
        return Reply(200, FILM_HEAD.ljust(call.settings.video_bytes, b"\0"), b"", b"video/mp4")

    def change(self, wishes: dict[str, Any]) -> object:
        """End jobs as the control API asks."""
        status = wishes.get("status", "completed")
        if status not in OVER:
            raise bad_request(f"status is one of {', '.join(OVER)}")
        cost_nano = nano_dollars("cost", wishes["cost"]) if "cost" in wishes else None
        jobs = [job for job in self._jobs.values() if not job.end and wishes.get("id") in (None, job.id)]
        for job in jobs:
            self._finish(job, status, cost_nano)
        return {"jobs": [job.described() for job in self._jobs.values()]}

    def _finish(self, job: Job, status: str, cost_nano: int | None = None) -> None:
        """End a job; what did not come to its end is free."""
        if job.end:
            return
        self._books.release(job.key, job.cost_nano)
        job.end = status
        job.cost_nano = (job.cost_nano if status == "completed" else 0) if cost_nano is None else cost_nano
        if status != "completed":
            return
        generation = Generation(
            id=job.generation_id,
            account_id=job.key.account_id,
            key_hash=job.key.hash,
            model=job.model.canonical_slug,
            provider=job.model.provider,
            created=self._books.now(),
            streamed=False,
            cancelled=False,
            finish_reason=None,
            prompt_tokens=job.prompt_tokens,
            completion_tokens=0,
            cost_nano=job.cost_nano,
            elapsed_ms=1000 * (time.monotonic() - job.begun),
            api_type="videos",
        )
        self._books.add_generation(job.key, job.model.id, generation)
