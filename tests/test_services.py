"""The spine: built in order, refused in one line before anything is written, kept fresh while it serves."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet

from accounts.caller import Caller
from accounts.users import UserState
from config.settings import Config
from db import OLDEST_VERSION, Database, NotAnswering, database_url
from formats.body import CallBody
from foundation.clock import Clock
from foundation.crypto import sha256_hex
from foundation.errors import Forbidden, QuotaExceeded, TooManyRequests, Unauthorized
from pool.life import PoolKeySource, PoolKeyState
from replicas.processes import ProcessReport, reports
from services import WATCH_SECONDS, Services, build
from start_up import CannotStart, DatabaseAway, import_keys, import_upstreams, open_database, set_clock
from tables import revisions, sealed_secrets, user_sessions
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.support.gateway import new_derived_key, wait_for

NOBODY = "http://127.0.0.1:1/api/v1"
KEYS = [f"sk-or-v1-{number:064x}" for number in range(3)]
Build = Callable[..., Services]


@pytest.fixture
def settings(migrated_database_url: str, tmp_path: Path) -> dict[str, Any]:
    secrets = {"encryption_key": ENCRYPTION_KEY, "secret_key": SECRET_KEY}
    return {"database_url": migrated_database_url, "data_dir": tmp_path, "openrouter_api_url": NOBODY, **secrets}


@pytest.fixture
def new(settings: dict[str, Any]) -> Iterator[Build]:
    """Build services: each is what a process of its own would have."""
    built: list[Services] = []

    def begin(**more: Any) -> Services:
        built.append(build(Config(**settings | more)))
        return built[-1]

    yield begin
    for services in built:
        services.stop()
        services.db.close()


def count(db: Database, table: str) -> int:
    with db.reading() as tx:
        return tx.scalar(sa.text(f"SELECT COUNT(*) FROM {table}"))


# ── building


def test_an_empty_database_becomes_a_working_service(new):
    services = new()
    assert services.db.is_current()
    key = new_derived_key()
    user_id = services.auth.register("owner", key)
    session, token = services.auth.login("owner", key)
    assert services.auth.authenticate(f"Bearer {token}").user_id == user_id == session.user_id


def test_a_second_process_finds_the_same_people_and_accepts_the_same_tokens(new):
    first, second = new(), new()
    key = new_derived_key()
    first.auth.register("owner", key)
    assert second.users.exists("owner")
    assert first.auth.authenticate(f"Bearer {second.auth.login('owner', key)[1]}")


def test_lifetimes_are_settings(new):
    services = new(jwt_expiration_hours=2, refresh_token_days=3)
    assert services.auth.access_life == timedelta(hours=2)
    services.auth.register("owner", key := new_derived_key())
    services.auth.login("owner", key)
    with services.db.reading() as tx:
        row = tx.execute(sa.select(user_sessions)).one()
    assert row.expires_at - row.created_at == timedelta(days=3)


def test_another_secret_key_keeps_the_accounts_and_refuses_the_tokens(new):
    """Usernames are hidden under a key of their own: SECRET_KEY may be changed."""
    first = new()
    first.auth.register("owner", key := new_derived_key())
    token = first.auth.login("owner", key)[1]
    second = new(secret_key=SECRET_KEY[::-1])
    assert second.auth.login("owner", key)
    with pytest.raises(Unauthorized):
        second.auth.authenticate(f"Bearer {token}")


def test_hashing_is_divided_among_the_workers(new):
    assert new(server_workers=64).auth._hasher._running._initial_value == 1


def test_hashing_leaves_threads_for_everything_else(new):
    for threads in (8, 64, 1100):
        assert new(server_workers=64, server_threads=threads).auth._hasher._waiting._initial_value < threads / 2


# ── refusals


def test_a_wrong_encryption_key_is_refused_before_anything_is_written(new, settings):
    services = new(openrouter_api_keys=KEYS[0])
    services.db.transact(lambda tx: tx.execute(sa.text("DELETE FROM alembic_version")))  # so that it would migrate
    with services.db.reading() as tx:
        before = tx.execute(sa.select(sealed_secrets)).all()
    wrong = Config(**settings | {"encryption_key": Fernet.generate_key().decode(), "openrouter_api_keys": KEYS[1]})
    for attempt in (build, open_database):
        with pytest.raises(CannotStart) as raised:
            attempt(wrong)
        assert "does not open with ENCRYPTION_KEY" in str(raised.value)
        assert "Nothing was written" in str(raised.value)
    assert count(services.db, "alembic_version") == 0
    assert len(services.pool_keys.rows()) == 1
    with services.db.reading() as tx:
        assert tx.execute(sa.select(sealed_secrets)).all() == before


def test_the_schema_of_a_newer_version_that_leaves_this_one_no_room_is_refused(new, settings):
    services = new()
    services.db.transact(lambda tx: tx.execute(sa.text("UPDATE alembic_version SET version_num = '9999'")))
    build(Config(**settings)).db.close()
    needs = {"name": OLDEST_VERSION, "value": 9999}
    services.db.transact(lambda tx: tx.execute(revisions.insert().values(needs)))
    with pytest.raises(CannotStart, match="another version of this program"):
        build(Config(**settings))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"database_url": "sqlite:////nowhere/at/all/x.db"}, "the database refuses"),
        ({"database_url": None, "data_dir": "/dev/null/data"}, "DATA_DIR can't be used"),
    ],
)
def test_what_keeps_it_from_starting_is_told_in_one_line_without_secrets(tmp_path, changed, reason):
    settings = {"encryption_key": ENCRYPTION_KEY, "secret_key": SECRET_KEY, "data_dir": tmp_path}
    with pytest.raises(CannotStart) as raised:
        build(Config(**settings | changed))
    line = str(raised.value)
    assert line.startswith(reason)
    assert "\n" not in line
    assert "geheim12" not in line


def test_a_database_that_refuses_the_log_in_is_not_waited_for(mariadb, tmp_path):
    settings = {"encryption_key": ENCRYPTION_KEY, "secret_key": SECRET_KEY, "data_dir": tmp_path}
    url = mariadb.new_database()
    for wrong in (
        url.replace("root@", "root:geheim12@"),
        f"{url}_there_is_none",
        url.replace("mysql:", "mysql+pymysql:") + "_",
    ):
        with pytest.raises(CannotStart, match="the database refuses") as raised:
            build(Config(database_url=wrong, **settings))
        assert not isinstance(raised.value, DatabaseAway)
        assert "geheim12" not in str(raised.value)


@pytest.mark.parametrize("driver", ["mysql", "mysql+pymysql"])
@pytest.mark.parametrize("host", ["127.0.0.1:1", "no.such.host.invalid"])
def test_a_database_that_is_away_is_waited_for(tmp_path, driver, host):
    url = f"{driver}://root:geheim12@{host}/x"
    config = Config(encryption_key=ENCRYPTION_KEY, secret_key=SECRET_KEY, data_dir=tmp_path, database_url=url)
    with pytest.raises(DatabaseAway, match="the database does not answer") as raised:
        open_database(config)
    assert "geheim12" not in str(raised.value)
    services = build(config)
    assert services.db.is_shut
    for use in (services.pool_keys.rows, lambda: services.users.find("somebody"), lambda: services.db.transact(print)):
        with pytest.raises(NotAnswering):
            use()


def test_a_gateway_needs_a_folder_for_its_journal_and_the_rotation_needs_none(mariadb, tmp_path):
    (tmp_path / "file").touch()
    settings = {"encryption_key": ENCRYPTION_KEY, "secret_key": SECRET_KEY, "data_dir": tmp_path / "file" / "data"}
    config = Config(database_url=mariadb.new_database(), **settings)
    open_database(config)[0].close()
    with pytest.raises(CannotStart, match="DATA_DIR can't be used"):
        build(config)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_folder_of_the_sqlite_file_is_for_its_owner_only(tmp_path):
    folder = tmp_path / "data"
    services = build(Config(encryption_key=ENCRYPTION_KEY, secret_key=SECRET_KEY, data_dir=folder))
    services.db.close()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "openrouter_proxy.db").exists()


# ── keys from the environment


def test_keys_from_the_environment_are_imported_once(new):
    first = new(openrouter_api_keys=",".join(KEYS[:2]))
    assert [row.name for row in first.pool_keys.rows()] == [f"env/{sha256_hex(key)[:12]}" for key in KEYS[:2]]
    assert {row.source for row in first.pool_keys.rows()} == {PoolKeySource.ENVIRONMENT}
    second = new(openrouter_api_keys=",".join(KEYS))
    assert second.pool_keys.rows()[:2] == first.pool_keys.rows()[:2]
    assert len(second.pool_keys.rows()) == 3


def test_a_key_that_was_disabled_or_is_over_does_not_come_back_by_a_start(new):
    services = new(openrouter_api_keys=",".join(KEYS[:2]))
    [first, second] = services.pool_keys.rows()
    services.pool_keys.set_enabled(first.name, False)
    services.pool_keys.move(second.id, PoolKeyState.DEAD)
    again = new(openrouter_api_keys=",".join(KEYS[:2]))
    assert [(row.enabled, row.state) for row in again.pool_keys.rows()] == [
        (False, PoolKeyState.ACTIVE),
        (True, PoolKeyState.DEAD),
    ]
    again.pool.reload()
    assert again.pool.known_count() == 0


def test_a_key_given_twice_is_one(new):
    assert len(new(openrouter_api_keys=f"{KEYS[0]},{KEYS[0]}").pool_keys.rows()) == 1


def test_processes_that_import_together_make_one_row_a_key(new, settings):
    services = [new() for _ in range(3)]
    config = Config(**settings, openrouter_api_keys=",".join(KEYS))
    threads = [threading.Thread(target=import_keys, args=(one.pool_keys, config)) for one in services]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(services[0].pool_keys.rows()) == 3


def upstream(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "base_url": f"https://{name}.example/v1", "api_key": f"sk-{name}-0123456789", **fields}


def test_upstreams_of_the_environment_are_imported_while_there_are_none(new, settings):
    prices = {"*": {"prompt": 0.1, "completion": 0.25}}
    listed = [upstream("one", prices=prices, is_default=True), upstream("two", api_key=None)]
    first = new(upstreams=json.dumps(listed))
    one, two = first.upstreams.rows()
    assert (one.terms.name, one.api_key_hint, one.terms.is_default) == ("one", "6789", True)
    assert one.to_dict()["prices"] == prices
    assert (two.terms.name, two.api_key_hint) == ("two", None)
    assert first.upstreams.keys([one.id]) == {one.id: "sk-one-0123456789"}
    first.upstreams.remove("two")
    again = new(upstreams=json.dumps([*listed, upstream("three")]))
    assert [row.terms.name for row in again.upstreams.rows()] == ["one"]


def test_processes_that_import_upstreams_together_import_them_once(new, settings):
    services = [new() for _ in range(3)]
    config = Config(**settings, upstreams=json.dumps([upstream("one"), upstream("two")]))
    threads = [threading.Thread(target=import_upstreams, args=(each.upstreams, config)) for each in services]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row.terms.name for row in services[0].upstreams.rows()] == ["one", "two"]


@pytest.mark.parametrize(
    ("listed", "complaint"),
    [
        ([upstream("one"), {"name": "two"}], "UPSTREAMS, item 2: base_url must"),
        ([upstream("one", base_url="https://127.0.0.1")], "UPSTREAMS, item 1: base_url can't be used"),
        ([upstream("one", api_key="two words")], "UPSTREAMS, item 1: api_key must"),
        ([upstream("one", key="x")], "UPSTREAMS, item 1: There is no field 'key'"),
        ([upstream("one"), upstream("one")], "UPSTREAMS: There is an upstream named like another one"),
    ],
)
def test_upstreams_that_can_not_be_imported_are_refused_in_one_line(new, listed, complaint):
    with pytest.raises(CannotStart, match=complaint):
        new(upstreams=json.dumps(listed))
    assert new().upstreams.rows() == []


def test_no_key_of_the_environment_is_logged(new, caplog):
    caplog.set_level("DEBUG")
    new(openrouter_api_keys=KEYS[0])
    logged = " ".join(str(record.__dict__) for record in caplog.records)
    assert "pool_key_imported" in logged
    assert KEYS[0] not in logged


# ── keeping fresh


def test_a_start_fills_memory_before_it_returns_and_begins_its_threads_once(new):
    services = new(openrouter_api_keys=KEYS[0])
    assert services.pool.known_count() == 0
    before = set(threading.enumerate())
    services.start()
    services.start()
    assert services.pool.known_count() == 1
    begun = set(threading.enumerate()) - before
    begun = {thread for thread in begun if thread.name != "dial"}  # which they begin for a while
    assert sorted(thread.name for thread in begun) == sorted(services.background())
    services.stop()
    wait_for(lambda: not begun & set(threading.enumerate()))


def test_a_change_in_one_process_is_in_force_in_another_within_two_seconds(new):
    here, there = new(), new()
    there.start()
    tokens = {}
    for name in ("owner", "teammate", "stranger"):
        here.auth.register(name, key := new_derived_key())
        tokens[name] = f"Bearer {here.auth.login(name, key)[1]}"
        assert there.auth.authenticate(tokens[name])
    caller = here.auth.authenticate(tokens["owner"])
    here.auth.logout(caller)
    here.users.set_state(here.users.find("teammate").id, UserState.DISABLED)
    here.pool_keys.add(KEYS[0], "mine", PoolKeySource.OPERATOR)

    def is_refused(name: str) -> bool:
        try:
            there.auth.authenticate(tokens[name])
        except (Unauthorized, Forbidden):
            return True
        return False

    wait_for(lambda: is_refused("owner") and is_refused("teammate") and there.pool.known_count() == 1)
    assert not is_refused("stranger")
    assert WATCH_SECONDS <= 1  # with as much again for the reading


def test_the_counts_in_memory_are_written_at_the_end(new):
    services = new(openrouter_api_keys=KEYS[0])
    services.start()
    for _ in range(3):
        services.pool.pick()
    services.stop()
    assert services.pool_keys.rows()[0].use_count == 3


def reported(services: Services) -> list[ProcessReport]:
    return reports(services.db, datetime.now(UTC))


def test_a_process_reports_what_it_knows_before_start_returns_and_again_within_seconds(new):
    services = new(openrouter_api_keys=KEYS[0])
    assert reported(services) == []
    services.start()
    [first] = reported(services)
    assert (first.id, first.keys_revision) == (services.process.id, services.watcher.seen("api_keys"))
    assert first.keys_revision > 0
    services.pool_keys.add(KEYS[1], "mine", PoolKeySource.OPERATOR)
    [later] = wait_for(lambda: [each for each in reported(services) if each.keys_revision > first.keys_revision])
    assert later.id == first.id
    assert later.beat_at > first.beat_at


def test_what_could_be_read_at_the_start_stays_though_the_rest_could_not(new):
    """As when the database goes away in the middle of it."""
    services = new(openrouter_api_keys=KEYS[0])
    services.pool_keys.add(KEYS[1], "mine", PoolKeySource.OPERATOR)
    services.db.transact(lambda tx: tx.execute(sa.text("ALTER TABLE upstreams RENAME TO upstreams_away")))
    services.start()
    assert not services.auth.is_informed
    assert services.pool.known_count() == 2
    services.db.transact(lambda tx: tx.execute(sa.text("ALTER TABLE upstreams_away RENAME TO upstreams")))
    wait_for(lambda: services.auth.is_informed)
    assert services.pool.known_count() == 2


def test_a_process_that_has_ended_leaves_no_report_behind(new):
    services, other = new(), new()
    services.start()
    other.start()
    services.stop()
    assert [each.id for each in reported(services)] == [other.process.id]


def test_a_quota_that_another_process_sets_is_in_force_within_two_seconds(new):
    services, other = new(quota_usd=5), new(quota_usd=5)
    services.start()
    services.quota_slices.top_up()
    owner, stranger = Caller(1, "session", 2e9), Caller(2, "session", 2e9)
    services.quota_slices.reserve(owner, 10**9)
    other.quotas.set("user/1", 10**9, None, "month", "reset")
    wait_for(lambda: dict(services.quota_slices.headers(owner))["X-Quota-Limit"] == "1")
    with pytest.raises(QuotaExceeded):
        services.quota_slices.reserve(owner, 1)
    services.quota_slices.reserve(stranger, 10**9)


def test_a_report_that_has_begun_at_the_end_comes_before_the_leave(new):
    services = new()
    begun, ending = threading.Event(), threading.Event()
    report = services.pool.report

    def slow_report() -> dict[str, Any]:
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            ending.wait(10)
        return report()

    services.pool.report = slow_report
    services.start()
    assert begun.wait(20)
    threading.Timer(0.3, ending.set).start()
    services.stop()
    wait_for(lambda: not [thread for thread in threading.enumerate() if thread.name == "keep-fresh"])
    assert reported(services) == []


def test_counts_that_cannot_be_written_at_the_end_are_a_warning(tmp_path, caplog):
    settings = {"encryption_key": ENCRYPTION_KEY, "secret_key": SECRET_KEY, "data_dir": tmp_path}
    services = build(Config(openrouter_api_keys=KEYS[0], openrouter_api_url=NOBODY, **settings))
    services.start()
    services.pool.pick()
    services.db.transact(lambda tx: tx.execute(sa.text("DROP TABLE api_keys")))
    services.stop()
    assert [record.levelno for record in caplog.records if record.getMessage() == "counts_lost"] == [logging.WARNING]
    services.pool._uses.clear()  # or they would be missed again when the tests end
    services.db.close()


def test_keys_are_asked_about_in_the_background(new, stand_in):
    services = new(openrouter_api_keys=stand_in.new_key()["key"], openrouter_api_url=stand_in.address)
    services.start()
    wait_for(lambda: services.pool_keys.rows()[0].account_id)
    wait_for(lambda: services.pool.verdicts.to_ask(1) == [] and services.pool.usable_count() == 1)


def test_prices_are_learned_in_the_background_and_kept_for_the_next_start(new, stand_in):
    chat, first = CallBody("openai/gpt-4o-mini", False, None, 1000), new(openrouter_api_url=stand_in.address)
    assert first.prices.most_nano(chat, 0) == 25_000_000
    first.start()
    wait_for(lambda: first.prices.most_nano(chat, 0) == 600_000)
    wait_for((first.config.data_dir / "model_prices.json").exists)
    second = new()
    second.start()
    wait_for(lambda: second.prices.most_nano(chat, 0) == 600_000)


@pytest.mark.parametrize(("setting", "workers", "each"), [(0, 4, 0), (8, 1, 8), (9, 4, 2), (3, 4, 1)])
def test_the_calls_that_a_key_may_carry_are_divided_among_the_workers(new, setting, workers, each):
    services = new(openrouter_api_keys=KEYS[0], key_max_in_flight=setting, server_workers=workers)
    services.pool.reload()
    for _ in range(each or 50):
        services.pool.pick()
    if each:
        with pytest.raises(TooManyRequests):
            services.pool.pick()


def test_the_background_thread_outlives_a_fault(new, caplog):
    services = new()
    services.start()
    services.watcher.watch("nonsense", lambda: {}["a row that nobody understands"])
    services.pool_keys.add(KEYS[0], "mine", PoolKeySource.OPERATOR)
    wait_for(lambda: services.pool.known_count() == 1)
    wait_for(lambda: [record.getMessage() for record in caplog.records].count("background_fault") >= 2)


def test_the_database_file_is_where_the_settings_say(tmp_path):
    config = Config(data_dir=tmp_path)
    assert database_url(config).database == str(Path(tmp_path) / "openrouter_proxy.db")


# ── clocks


@pytest.mark.parametrize("hours", [26, -26])
def test_a_host_whose_clock_is_hours_off_is_refused_and_the_others_serve(new, hours):
    others = new()
    with pytest.raises(CannotStart, match=f"26.0 h {'ahead of' if hours > 0 else 'behind'} the database's"):
        set_clock(others.db, Clock(lambda: time.time() + hours * 3600))
    others.start()
    assert abs(others.clock.skew_seconds) < 5


@pytest.mark.parametrize("minutes", [2, -2])
def test_hosts_whose_clocks_are_minutes_apart_tell_one_time_and_operators_hear_of_it(new, caplog, minutes):
    right, wrong = new(), new()
    wrong.clock._host_time = lambda: time.time() + minutes * 60  # from now on
    for services in (right, wrong):
        services.start()
    assert (right.clock.is_right, wrong.clock.is_right) == (True, False)
    assert abs((right.clock.now() - wrong.clock.now()).total_seconds()) < 5
    key = new_derived_key()
    right.auth.register("ann@example.com", key)
    token = right.auth.login("ann@example.com", key)[1]
    assert wrong.auth.authenticate(f"Bearer {token}")
    [told] = [record for record in caplog.records if record.getMessage() == "clock_wrong"]
    assert told.levelname == "WARNING"
