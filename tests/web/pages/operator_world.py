"""A gateway with an operator's pages: its admin and its users as browsers and as programs, and rows of its database."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import requests
from playwright.sync_api import Page

import tables
from config.settings import Config
from db import Database, Transaction, database_url, inserted_id
from replicas import revisions
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.support.gateway import ADMIN_TOKEN, shown, user_id_of, wait_for
from tests.support.usage_rows import row, store

if TYPE_CHECKING:
    from tests.web.pages.conftest import Site

# If any of it became markup, the page would say so: by a dialog, an error in its console, or an element.
PAYLOAD = "\"><img src=x onerror=alert(1)><script>alert(2)</script>'{{7*7}}"


@dataclass
class Somebody:
    """A session of pages as a program uses it."""

    site: Site
    token: str
    cookies: dict[str, str]
    csrf_token: str

    @property
    def id(self) -> int:
        return user_id_of(self.token)

    def ask(self, method: str, path: str, **form: Any) -> requests.Response:
        headers = {"X-CSRF-Token": self.csrf_token} if self.csrf_token else {}
        return requests.request(
            method,
            self.site.url + path,
            data=form or None,
            headers=headers,
            cookies=self.cookies,
            allow_redirects=False,
            timeout=30,
            stream="/live/" in path,
        )


def somebody(site: Site, token: str) -> Somebody:
    """A session of pages of whoever has this access token."""
    began = requests.post(f"{site.url}/session", headers={"Authorization": f"Bearer {token}"}, timeout=30)
    cookies = began.cookies.get_dict()
    text = requests.get(f"{site.url}/dashboard", cookies=cookies, timeout=30).text
    found = re.search(r'name="csrf-token" content="([^"]+)"', text)
    assert found
    return Somebody(site, token, cookies, found[1])


def set_role(site: Site, user_id: int, role: str) -> None:
    """Give somebody a role, by the operator's token."""
    assert site.gateway.ask("PATCH", f"/admin/users/{user_id}", {"role": role}, ADMIN_TOKEN).status_code == 200


def new_admin(site: Site, role: str = "admin") -> Somebody:
    """An admin, or an auditor, whom the gateway knows as one."""
    token = site.new_person()["token"]
    set_role(site, user_id_of(token), role)
    found = somebody(site, token)
    wait_for(lambda: 'href="/operator"' in found.ask("GET", "/dashboard").text)  # not by what counts its requests
    return found


def operator_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of a gateway with an operator and a database that the tests may look into."""
    url = f"sqlite:///{tmp_path_factory.mktemp('operator')}/x.db"
    return {
        "DATABASE_URL": url,
        "SECRET_KEY": SECRET_KEY,
        "ENCRYPTION_KEY": ENCRYPTION_KEY,
        "ADMIN_TOKEN": ADMIN_TOKEN,
        "ALLOW_PRIVATE_UPSTREAMS": "true",
    }


def new_team(site: Site, **people: str) -> int:
    """A team with a quota of $5, and these people in it: their token by their role."""
    body = {"name": f"team-{secrets.token_hex(4)}", "models": ["openai/*"], "quota": {"limit_usd": 5}}
    made: int = shown(site.gateway.ask("POST", "/admin/teams", body, ADMIN_TOKEN), 201)["id"]
    for role, token in people.items():
        member = {"user_id": user_id_of(token), "role": role}
        shown(site.gateway.ask("POST", f"/admin/teams/{made}/members", member, ADMIN_TOKEN), 201)
    return made


@pytest.fixture(scope="module")
def database(site: Site, site_settings: dict[str, Any]) -> Iterator[Database]:
    """The gateway's own database."""
    found = Database(database_url(Config(database_url=site_settings["DATABASE_URL"])))
    yield found
    found.close()


@pytest.fixture(scope="module")
def admin(site: Site) -> Somebody:
    return new_admin(site)


@pytest.fixture(scope="module")
def user(site: Site) -> Somebody:
    return somebody(site, site.new_person()["token"])


@pytest.fixture
def admins_page(page: Page, site: Site, admin: Somebody) -> Page:
    """A browser in which the admin is logged in."""
    site.enter(page.context, {"token": admin.token})
    return page


def add_requests(database: Database, count: int, begin: int = 0, **values: Any) -> None:
    """Requests in the ledger, as many seconds before the last minute, but today's. begin: makes their ids their own."""
    now = datetime.now(UTC)
    midnight, last_minute = now.replace(hour=0, minute=0, second=0, microsecond=0), now - timedelta(minutes=1)
    at = [max(midnight, last_minute - timedelta(seconds=number)) for number in range(count)]
    store(database, [row(begin + number, at[number], **values) for number in range(count)])


def add_pool_key(database: Database, name: str, state: str, **values: Any) -> int:
    """A key of the pool that the rotation has made, without a text; returns its id."""
    now = datetime.now(UTC)
    made = {"name": name, "state": state, "source": "minted", "enabled": True, "use_count": 0}
    made |= {"created_at": now, "updated_at": now, **values}

    def work(tx: Transaction) -> int:
        found = inserted_id(tx.execute(tables.pool_keys.insert().values(made)))
        revisions.bump(tx, "api_keys")
        return found

    return database.transact(work)


def rename_pool_key(database: Database, name: str) -> None:
    """Give the oldest key of the pool another name, behind the gateway's back."""
    database.transact(
        lambda tx: tx.execute(tables.pool_keys.update().where(tables.pool_keys.c.id == 1).values({"name": name}))
    )
