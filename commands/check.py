"""The operator's command `flask --app app check`: whether what the gateway needs is there, right now."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import click
from flask.cli import with_appcontext

from accounts.client_address import FORWARDED_FOR
from billing import set_aside
from commands.printing import json_option, services, show
from db import DatabaseError
from replicas.processes import reports
from start_up import what_database_does
from upstream.check import check as check_upstream

ANSWERS: dict[int | None, str] = {
    None: "does not open with ENCRYPTION_KEY",
    0: "OpenRouter does not answer",
    200: "accepted by OpenRouter",
    401: "refused by OpenRouter",
}


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, whether it is in order, and what was seen."""

    check: str
    ok: bool
    found: str


@click.command("check", params=[json_option()])
@with_appcontext
def check() -> None:
    """Check configuration, database, OpenRouter, other upstreams and Redis, a line each.

    Exits with 1 if anything is out of order.

    A configuration that is refused is told by every command, with all its faults, and 1 too.
    """
    found = [*_configuration(), *_journal(), *_database(), *_proxies(), *_openrouter(), *_upstreams(), *_redis()]
    show(map(asdict, found), "Check")
    sys.exit(0 if all(finding.ok for finding in found) else 1)


def _configuration() -> Iterator[Finding]:
    config = services().config
    told = f"APP_ENV={config.app_env}, {config.openrouter_api_url}"
    yield Finding("configuration", True, told if config.admin_token else f"{told}, no ADMIN_TOKEN")


def _journal() -> Iterator[Finding]:
    """Silent if nothing is set aside."""
    if count := set_aside.count(services().journal.folder):
        yield Finding("journal", False, f"{count} records are set aside; `flask --app app usage repair` shows them")


def _database() -> Iterator[Finding]:
    db = services().db
    try:
        is_current = db.is_current()
        db.set_clock(services().clock)
    except DatabaseError as error:
        yield Finding("database", False, f"{what_database_does(error)} ({type(error).__name__}), {db.kind}")
        return
    yield Finding("database", is_current, f"{db.kind}, its schema is {'' if is_current else 'not '}this version's")
    clock = services().clock
    yield Finding("clock", clock.is_right, f"{abs(clock.skew_seconds):.1f} s from the database's")


def _proxies() -> Iterator[Finding]:
    """Silent unless a running gateway was told of addresses by somebody whom it does not believe."""
    try:
        told = [one.keys.get(FORWARDED_FOR) for one in reports(services().db, services().clock.now())]
    except DatabaseError:
        return  # its line has said so
    for address in sorted({str(one["reason"]) for one in told if one}):
        found = f"{address} sends X-Forwarded-For and is not in TRUSTED_PROXIES: all who come by it count as one"
        yield Finding("reverse proxy", False, found)


def _openrouter() -> Iterator[Finding]:
    try:
        statuses = services().probe.statuses()
    except DatabaseError:
        return  # its line has said so
    if not statuses:
        yield Finding("pool", False, "no usable key; key_rotation.py mints them, and `pool add` takes them")
    for name, status in statuses.items():
        yield Finding(f"pool key {name}", status == 200, ANSWERS.get(status, f"OpenRouter answers {status}"))


def _upstreams() -> Iterator[Finding]:
    try:
        active = [row for row in services().upstreams.rows() if row.terms.is_active]
    except DatabaseError:
        return  # its line has said so
    for upstream in active:
        checked = check_upstream(services().upstreams, upstream)
        found = "answers" if checked.ok else checked.reason or f"answers {checked.status}"
        yield Finding(f"upstream {checked.name}", checked.ok, found)


def _redis() -> Iterator[Finding]:
    if services().config.redis_url:
        status = services().rate_limits.check_cache()
        yield Finding("redis", status == "ok", status)
