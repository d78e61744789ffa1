"""The load of the soak: users of several kinds, who call in five formats, streamed and not, whatever answers."""

from __future__ import annotations

import itertools
import json
import random
import re
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

from billing.quotas.rows import Quotas
from config.settings import Config
from db import Database
from foundation.clock import Clock
from tests.money_soak.hosts import Replica
from tests.support.billing import status_of
from tests.support.gateway import read_all, user_id_of

CALLERS = 12
PAUSE_SECONDS = 0.5
LIMITS = (1000, "day"), (1000, "none"), (0.004, "day"), (0.004, "none")
SAID = [{"role": "user", "content": "Count."}]
FORMATS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": SAID, "max_tokens": 50},
    "/v1/completions": {"prompt": "Count.", "max_tokens": 50},
    "/v1/messages": {"messages": SAID, "max_tokens": 50},
    "/v1/responses": {"input": "Count.", "max_output_tokens": 50},
    "/v1/embeddings": {"input": "Count."},
}
# Most answers come at once. Some take seconds, so that a kill meets them at every place; some break off upstream.
WAYS = ["chunks=6&pace_ms=2"] * 20 + ["chunks=30&pace_ms=80"] * 8
WAYS += [f"chunks=6&pace_ms=2&break_how=reset&break_at={place}" for place in ("headers", "middle")]
NAME = re.compile(rb"\r\nx-generation-id: *([\w-]+)\r\n", re.IGNORECASE)


def new_callers(replica: Replica, db: Database) -> list[str]:
    """The credentials of who calls: without limits, with quotas and with budgets of client keys, large and small."""
    gateway, quotas = replica.gateway, Quotas(db, Clock(), Config())
    credentials = [gateway.new_user()]
    for usd, period in LIMITS:
        token = gateway.new_user()
        quotas.set(f"user/{user_id_of(token)}", round(usd * 10**9), None, period, "reset")
        credentials.append(token)
    for usd, period in LIMITS:
        budget = {"limit_usd": usd, "period": period, "recovery": "reset"}
        answer = gateway.post("/api/api-keys", {"name": "soak", "budget": budget}, gateway.new_user())
        assert answer.status_code == 201, answer.text
        credentials.append(answer.json()["key"])
    return credentials


class Load:
    """Calls until it is told to stop. seen: the ids of answers that reached a client; statuses: 0 for no answer."""

    def __init__(self, replicas: Sequence[Replica], credentials: Sequence[str]) -> None:
        self.seen: set[str] = set()
        self.statuses: Counter[int] = Counter()
        self._replicas = replicas
        self._credentials = credentials
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CALLERS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        choice = random.Random(number)
        paths = itertools.cycle(FORMATS)
        while not self._stopping.wait(choice.random() * 2 * PAUSE_SECONDS):
            who = choice.randrange(len(self._credentials))
            # A model of its own for each caller and way, so that answers whose id nobody learnt can be told apart.
            model = f"sandbox/stream?{choice.choice(WAYS)}&comment_ms={60_000 + who}"
            path = next(paths)
            body = {"model": model, **FORMATS[path]}
            if path != "/v1/embeddings" and choice.random() < 0.6:
                body["stream"] = True
            leaves = choice.random() < 0.1
            answer = self._ask(choice.choice(self._replicas), self._credentials[who], path, body, leaves)
            with self._lock:
                self.statuses[status_of(answer)] += 1
                head, end, _ = answer.partition(b"\r\n\r\n")
                if end and status_of(answer) == 200:
                    self.seen.update(name.decode() for name in NAME.findall(head + b"\r\n"))

    def _ask(self, replica: Replica, credential: str, path: str, body: dict[str, Any], leaves: bool) -> bytes:
        """The answer, or what came of it."""
        try:
            head = f"Authorization: Bearer {credential}\r\n"
            connection = replica.gateway.open_raw(json.dumps(body).encode(), head, path)
            if not leaves:
                return read_all(connection)
            with connection:
                return connection.recv(2000)
        except OSError:  # killed, or starting again
            return b""
