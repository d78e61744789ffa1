"""A gateway with one of each kind of caller, and the list of all its routes: for tests that ask every route something."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import requests
from flask import Flask

import tables
from config.settings import Config
from db import Database, Transaction, database_url
from foundation.crypto import sha256_hex
from replicas import revisions
from serving.door import PATHS
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.sandbox.conftest import Running
from tests.support.gateway import Gateway, new_derived_key, wait_for
from web.api.table import register_api
from web.openapi import readers
from web.operation import Operation

ADMIN_TOKEN = "Qd81-operators-own-Zx7Kp3Vt0Lm9Rw2Yc"
CANARY = "kestrel-of-the-owner"  # in the names of what is the owner's
KINDS = ("nobody", "owner", "other", "silenced", "admin", "operator", "api token", "client key", "auditor")
PEOPLE = ("owner", "other", "silenced", "admin", "auditor")


@cache
def flask_app() -> Flask:
    """All routes of the program, without its services."""
    app = Flask(__name__, static_folder=None)
    register_api(app)
    app.register_blueprint(readers.routes)
    return app


def declared() -> dict[str, Operation]:
    """What every route of Flask's declares, by method and path, as `GET /admin/quotas/{kind}/{number}`."""
    app, found = flask_app(), {}
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(?:[^:>]*:)?(\w+)>", r"{\1}", rule.rule)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            found[f"{method} {path}"] = getattr(app.view_functions[rule.endpoint], "operation", None)
    return found


def all_routes() -> list[str]:
    """Every method of every path; model calls too."""
    found = {f"POST {path}" for path in PATHS} | declared().keys()
    return sorted(found, key=lambda route: (route.partition(" ")[2], route))


@dataclass
class Person:
    """Somebody with an account and a session."""

    id: int
    account: dict[str, str]
    token: str
    refresh_token: str


class World:
    """The gateway, its people and what they own."""

    def __init__(self, start: Callable[..., Gateway], stand_in: Running, url: str, **settings: Any) -> None:
        account = stand_in.new_account(balance=1000)["id"]
        key = stand_in.new_key(account=account)["key"]
        self.stand_in = stand_in
        self.gateway = start(
            DATABASE_URL=url,
            SECRET_KEY=SECRET_KEY,
            ENCRYPTION_KEY=ENCRYPTION_KEY,
            ADMIN_TOKEN=ADMIN_TOKEN,
            METRICS_TOKEN=ADMIN_TOKEN[::-1],
            OPENROUTER_API_URL=stand_in.address,
            OPENROUTER_API_KEYS=key,
            SERVER_THREADS=32,
            API_TOKEN_RATE_LIMIT_PER_HOUR=0,
            PUBLIC_URL="https://gateway.test",
            GITHUB_CLIENT_ID="app",
            GITHUB_CLIENT_SECRET="secret-of-app",
            **settings,
        )
        self.db = Database(database_url(Config(database_url=url)))
        self.cleanups: list[Callable[[], object]] = []
        self.is_worn = True  # by requests of all sorts
        self.pool_key = f"env/{sha256_hex(key)[:12]}"
        self._http = requests.Session()
        self._http.trust_env = False  # or it looks for a proxy's settings with every request
        self.owner, self.other, self.silenced, self.admin, self.auditor = (self.new_person() for _ in PEOPLE)
        self.api_token = self.made("/api/tokens", self.owner, name="reader")["token"]
        self.client_key = self.made("/api/api-keys", self.owner, name="caller")["key"]
        self.change_user(self.silenced, state="silenced")
        self.change_user(self.admin, role="admin")
        self.change_user(self.auditor, role="auditor")
        wait_for(lambda: self.ask("silenced", "POST", "/v1/chat/completions", {}).status_code == 403)
        wait_for(lambda: self.ask("admin", "GET", "/admin/quotas").status_code == 200)
        wait_for(lambda: self.ask("auditor", "GET", "/admin/quotas").status_code == 200)
        wait_for(lambda: self.ask("owner", "GET", "/v1/models").status_code == 200)  # is fetched at the start
        self._calls: dict[int, str] = {}

    def owners_call(self) -> str:
        """The id of a call that the owner has made with the client key, and that everybody knows of by now."""
        if self.owner.id not in self._calls:
            answer = wait_for(self._called)
            self._calls[self.owner.id] = name = answer.headers["X-Generation-Id"]
            wait_for(lambda: self.ask("owner", "GET", f"/v1/generation?id={name}").status_code == 200)
        return self._calls[self.owner.id]

    def owners_job(self) -> str:
        """The id of a video that the owner has had made with the client key."""
        asked = {"model": "google/veo-3.1", "prompt": "Hi", "duration": 4}
        answer = wait_for(lambda: (made := self.gateway.post("/v1/videos", asked, self.client_key)).ok and made)
        job_id: str = answer.json()["id"]
        self.stand_in.control("POST", "videos", id=job_id)
        return job_id

    def _called(self) -> requests.Response | None:
        answer = self.gateway.chat(self.client_key, max_tokens=5)
        return answer if answer.status_code == 200 else None

    def close(self) -> None:
        self._http.close()
        self.db.close()

    def new_person(self) -> Person:
        """Somebody who has just registered and logged in."""
        account = {"username": f"{secrets.token_hex(8)}@example.com", "derived_key": new_derived_key()}
        assert self.gateway.post("/register", account).status_code == 201
        return self.logged_in(account)

    def logged_in(self, account: dict[str, str]) -> Person:
        """A new session of somebody."""
        told = self.gateway.post("/login", account).json()
        return Person(told["user"]["id"], account, told["access_token"], told["refresh_token"])

    def revive(self) -> None:
        """Make up for what requests of all sorts have done: new people for those whose sessions, rights or keys are gone.

        A user may have so many keys and no more, so one who has many is replaced too.
        """
        counts = [self.ask("owner", "GET", path) for path in ("/api/tokens", "/api/api-keys")]
        quotas = [self.ask(kind, "GET", "/api/quota") for kind in ("owner", "client key")]
        answers = [*counts, *quotas, self.ask("api token", "GET", "/api/v1/stats")]
        is_whole = all(answer.status_code == 200 for answer in answers)
        calls = [self.ask(kind, "POST", "/v1/chat/completions", {}) for kind in ("owner", "client key")]
        is_whole = is_whole and all(
            answer.status_code == 400 for answer in calls
        )  # else who was let in is not any more
        if (
            not is_whole
            or any(answer.json()["total"] > 10 for answer in counts)
            or any(answer.json()["limit_usd"] is not None for answer in quotas)
        ):
            self.owner = self.new_person()
            self.api_token = self.made("/api/tokens", self.owner, name="reader")["token"]
            self.client_key = self.made("/api/api-keys", self.owner, name="caller")["key"]

    def change_user(self, person: Person, **columns: str) -> None:
        """Change an account behind the gateway's back."""

        def change(tx: Transaction) -> None:
            tx.execute(tables.users.update().where(tables.users.c.id == person.id).values(columns))
            revisions.bump(tx, "users")

        self.db.transact(change)

    def owns(self, kind: str) -> Person:
        """Whose objects a caller of this kind asks for: one's own if one is silenced, else the owner's."""
        return self.silenced if kind == "silenced" else self.owner

    def credential(self, kind: str) -> str | None:
        """What a caller of this kind sends as bearer."""
        people = {name: getattr(self, name).token for name in PEOPLE}
        programs = {"operator": ADMIN_TOKEN, "api token": self.api_token, "client key": self.client_key}
        return (people | programs | {"nobody": None})[kind]

    def ask(
        self, kind: str, method: str, path: str, body: object = None, bearer: str | None = None
    ) -> requests.Response:
        """Send a request as a caller of this kind. bearer: another credential of theirs."""
        token = bearer or self.credential(kind)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self._http.request(
            method, self.gateway.url + path, json=body, headers=headers, timeout=30, allow_redirects=False
        )

    def made(self, path: str, person: Person, **body: Any) -> Any:
        """What a person makes by posting."""
        answer = self.gateway.post(path, body, person.token)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def dump(self) -> dict[str, dict[str, list[Any]]]:
        """Every row of every table as text: by table and column, in the order of the rows' keys."""
        found: dict[str, dict[str, list[Any]]] = {}
        with self.db.reading() as tx:
            for name, table in tables.metadata.tables.items():
                rows = tx.execute(table.select().order_by(*table.primary_key.columns)).mappings().all()
                found[name] = {column.name: [repr(row[column.name]) for row in rows] for column in table.columns}
        return found
