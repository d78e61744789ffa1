"""`flask --app app check`: a line for each thing that the gateway needs, and an exit code for programs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app import create_command_line
from config.settings import Config
from pool.life import PoolKeySource
from services import build
from tables import pool_keys
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.support.gateway import free_port, on_terminal, run

FLASK = ("-m", "flask", "--app", "app")


@pytest.fixture
def settings(migrated_database_url: str, stand_in: Any) -> dict[str, Any]:
    """What a gateway needs that is in order: with one key."""
    key = stand_in.new_key(account=stand_in.new_account(balance=10)["id"])["key"]
    found = {"SECRET_KEY": SECRET_KEY, "ENCRYPTION_KEY": ENCRYPTION_KEY, "DATABASE_URL": migrated_database_url}
    return found | {"OPENROUTER_API_URL": stand_in.address, "OPENROUTER_API_KEYS": key}


def checked(**settings: Any) -> tuple[int, dict[str, tuple[bool, str]]]:
    """The exit code, and what was found by name."""
    ended = run(*FLASK, "check", **settings)
    found = [json.loads(line) for line in ended.stdout.splitlines()]
    assert settings["OPENROUTER_API_KEYS"] not in ended.stdout + ended.stderr
    return ended.returncode, {one["check"]: (one["ok"], one["found"]) for one in found}


def test_all_is_well(settings, tmp_path):
    code, found = checked(**settings, DATA_DIR=tmp_path)
    assert code == 0
    [key_name] = [name for name in found if name.startswith("pool key ")]
    assert list(found) == ["configuration", "database", "clock", key_name]
    assert found[key_name] == (True, "accepted by OpenRouter")
    assert all(ok for ok, _ in found.values())


def test_a_person_gets_a_table_and_with_json_lines(settings, tmp_path):
    shown = on_terminal(*FLASK, "check", **settings, DATA_DIR=tmp_path, COLUMNS=200)
    assert shown.returncode == 0
    assert "accepted by OpenRouter" in shown.stdout
    assert "│" in shown.stdout
    as_json = on_terminal(*FLASK, "check", "--json", **settings, DATA_DIR=tmp_path, LOG_LEVEL="ERROR")
    assert [json.loads(line)["ok"] for line in as_json.stdout.splitlines()] == [True] * 4


def test_each_thing_that_is_out_of_order_is_told_and_the_exit_code_is_1(settings, tmp_path, stand_in):
    nobody = f"http://127.0.0.1:{free_port()}"
    unknown = {"OPENROUTER_API_KEYS": f"sk-or-v1-{'0f' * 32}"}
    silent = {"OPENROUTER_API_URL": nobody}
    redis = {"REDIS_URL": nobody.replace("http", "redis")}
    for wrong, told in (
        (unknown, "refused by OpenRouter"),
        (silent, "OpenRouter does not answer"),
        (redis, "unreachable"),
    ):
        code, found = checked(**settings | {"DATA_DIR": tmp_path} | wrong)
        assert code == 1
        assert told in [text for ok, text in found.values() if not ok]


def test_each_active_upstream_is_asked(settings, tmp_path, stand_in):
    listed = [{"name": "here", "base_url": stand_in.address, "api_key": settings["OPENROUTER_API_KEYS"]}]
    listed += [{"name": "gone", "base_url": f"http://127.0.0.1:{free_port()}"}]
    listed += [{"name": "off", "base_url": f"http://127.0.0.1:{free_port()}", "is_active": False}]
    more = {"DATA_DIR": tmp_path, "ALLOW_PRIVATE_UPSTREAMS": "true", "UPSTREAMS": json.dumps(listed)}
    code, found = checked(**settings, **more)
    assert code == 1
    assert found["upstream here"] == (True, "answers")
    assert not found["upstream gone"][0]
    assert "upstream off" not in found


def test_a_database_that_is_away_is_one_line_of_the_check(tmp_path):
    away = {"DATABASE_URL": "mysql://root@127.0.0.1:1/x", "OPENROUTER_API_KEYS": f"sk-or-v1-{'0f' * 32}"}
    code, found = checked(DATA_DIR=tmp_path, SECRET_KEY=SECRET_KEY, ENCRYPTION_KEY=ENCRYPTION_KEY, **away)
    assert code == 1
    assert [name for name, (ok, _) in found.items() if not ok] == ["database"]


def test_redis_has_a_line_of_its_own_where_it_is_used(settings, tmp_path, redis_server):
    code, found = checked(**settings, DATA_DIR=tmp_path, REDIS_URL=redis_server.url)
    assert (code, found["redis"]) == (0, (True, "ok"))


def test_a_configuration_that_is_refused_is_told_with_exit_code_1(settings, tmp_path):
    ended = run(*FLASK, "check", **settings | {"DATA_DIR": tmp_path, "SECRET_KEY": "short", "PORT": "x"})
    assert ended.returncode == 1
    assert "SECRET_KEY" in ended.stderr
    assert "PORT" in ended.stderr


def test_an_empty_pool_an_old_schema_and_a_sealed_key_are_faults(empty_database_url):
    services = build(Config(database_url=empty_database_url, encryption_key=ENCRYPTION_KEY, secret_key=SECRET_KEY))
    command = create_command_line(services).test_cli_runner()

    def faults() -> set[str]:
        ended = command.invoke(args=["check"])
        found = [json.loads(line) for line in ended.stdout.splitlines()]
        assert ended.exit_code == (0 if all(one["ok"] for one in found) else 1)
        return {one["check"] for one in found if not one["ok"]}

    assert faults() == {"pool"}
    services.pool_keys.add("sk-or-v1-" + "a1b2" * 16, "mine", PoolKeySource.OPERATOR)
    services.db.transact(lambda tx: tx.execute(pool_keys.update().values(api_key="gAAAA-damaged")))
    assert faults() == {"pool key mine"}
    services.db.transact(lambda tx: tx.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'"))
    assert faults() == {"pool key mine", "database"}
    services.db.close()
