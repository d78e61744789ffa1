"""Fixtures of all tests: both databases, the stand-in, running gateways. Real processes on real sockets throughout."""

from __future__ import annotations

import gc
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from app import create_command_line
from config.settings import Config
from db import Database, database_url
from foundation.crypto import Envelopes
from services import Services, build
from tests.sandbox.conftest import Running, stand_in, start_stand_in  # noqa: F401 - fixtures for every folder
from tests.support import examples  # noqa: F401 - says how many examples Hypothesis tries
from tests.support.browser import browser  # noqa: F401 - a fixture for every folder
from tests.support.data_plane import make_proxy, upstream  # noqa: F401 - fixtures of several files
from tests.support.gateway import Gateway, on_terminal, start_gateway
from tests.support.mariadb import DatabaseServer
from tests.support.movable_clock import MovableClock
from tests.support.mysql import UNPACKED, MySqlServer
from tests.support.redis_server import RedisServer
from tests.support.rotor import account, new_rotor, one, rotor  # noqa: F401 - fixtures of several files
from tests.support.sign_on import started_provider

pytest.register_assert_rewrite("tests.support.money_world")  # its assertions show what they compare

ENCRYPTION_KEY = "b2xkLWZhc2hpb25lZC1idXQtMzItYnl0ZXMtbG9uZyE="  # 32 bytes for tests, known to everybody
SECRET_KEY = "jW4vT9mQ2xK7pR8sY3nB6cF1gH5dL0aZ-for-tests"
# What no log of the whole run may hold: keys, tokens, hashes, ciphertexts, the tests' usernames and questions.
PRIVATE = re.compile(
    r"sk-or-v1-[0-9a-f]{8}|sk-auto-[\w-]{10}|or_api_[\w-]{10}|eyJ[\w-]{10,}\.|\$argon2|gAAAA[\w-]{20}|@example\.com|Hello"
)

# The files whose tests take longest together, longest first.
LONG = (
    "web/pages/test_operator_live.py",
    "gateway/test_connected_calls.py",
    "accounts/test_client_keys_over_http.py",
    "billing/test_money_faults.py",
    "gateway/test_stream_contract.py",
    "pool/test_rotation_torture.py",
    "gateway/test_format_contract.py",
    "web/api/test_upstreams.py",
    "web/test_api_conformance.py",
    "test_key_rotation.py",
    "test_app.py",
    "web/test_access_matrix.py",
    "billing/quotas/test_budget_races.py",
    "web/pages/test_profile.py",
    "test_database_outage.py",
    "web/pages/test_sessions.py",
    "serving/test_door.py",
    "test_services.py",
    "web/api/test_connect.py",
    "billing/test_daily_check.py",
    "test_start_up.py",
    "web/pages/test_connect.py",
    "web/pages/test_keys.py",
    "gateway/test_pool_health.py",
    "billing/test_cost_lookup.py",
    "web/pages/test_operator.py",
    "test_steady_state_queries.py",
    "pool/test_rotation_steps.py",
    "web/pages/test_journeys.py",
    "billing/quotas/test_slices.py",
    "web/pages/test_models.py",
    "bench/test_pages.py",
    "vault/test_reencrypt.py",
    "billing/reports/test_request_log.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: the last of a run would otherwise keep one core busy and the other idle."""
    place = {Path(__file__).parent / name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Spare the collector all modules and thousands of tests, which stay to the end: it took half of collecting."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Once for each kind of database, of which there is one more for what is marked `mysql`."""
    kinds = ["sqlite", "mariadb", *(["mysql"] if metafunc.definition.get_closest_marker("mysql") else [])]
    for name in ("empty_database_url", "modules_database_url"):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, kinds, indirect=True)


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def one_day() -> None:
    """For tests that compare with sums of today, as real clocks tell it: they begin and end on one day."""
    now = datetime.now(UTC)
    left = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0) - now
    if left < timedelta(minutes=2):
        time.sleep(left.total_seconds())


@pytest.fixture
def envelopes() -> Envelopes:
    return Envelopes([ENCRYPTION_KEY])


@contextmanager
def started_server(kind: type[DatabaseServer]) -> Iterator[DatabaseServer]:
    """A database server whose data are in memory if there is room."""
    memory = Path("/dev/shm")
    has_room = memory.is_dir() and shutil.disk_usage(memory).free > 4 << 30
    with tempfile.TemporaryDirectory(prefix="database-", dir=memory if has_room else None) as folder:
        server = kind(Path(folder))
        yield server
        if server.process.poll() is None:
            server.stop()


@pytest.fixture(scope="session")
def mariadb() -> Iterator[DatabaseServer]:
    """One MariaDB server for each test process."""
    with started_server(DatabaseServer) as server:
        yield server


@pytest.fixture(scope="session")
def mysql() -> Iterator[DatabaseServer]:
    """One MySQL server for each test process that has a test for it."""
    if not UNPACKED.exists():
        pytest.skip("there is no MySQL server: tests/install-servers unpacks one")
    with started_server(MySqlServer) as server:
        yield server


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Threads that interrupt each other as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that a test may kill."""
    server = RedisServer(tmp_path)
    yield server
    server.client.close()
    server.kill()


@pytest.fixture
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The DATABASE_URL of an empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/test.db"
    server: DatabaseServer = request.getfixturevalue(request.param)
    return server.empty_database()


@pytest.fixture
def database_server(request: pytest.FixtureRequest, empty_database_url: str) -> DatabaseServer | None:
    """The server that the empty database is at; None for SQLite."""
    kind = request.node.callspec.params["empty_database_url"]
    return None if kind == "sqlite" else request.getfixturevalue(kind)


@pytest.fixture(scope="module")
def modules_database_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The DATABASE_URL of a database once of each kind, for gateways that a module's tests share."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path_factory.mktemp('module')}/x.db"
    server: DatabaseServer = request.getfixturevalue(request.param)
    return server.new_database()


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file as migrations make it."""
    file = tmp_path_factory.mktemp("migrated") / "test.db"
    database = Database(database_url(Config(database_url=f"sqlite:///{file}")))
    database.upgrade()
    database.close()
    return file


@pytest.fixture
def migrated_database_url(empty_database_url: str, database_server: DatabaseServer | None, migrated_file: Path) -> str:
    """The empty database, filled as migrations would, which take longer than most tests."""
    if database_server is None:
        shutil.copy(migrated_file, empty_database_url.removeprefix("sqlite:///"))
    else:
        database_server.fill(empty_database_url)
    return empty_database_url


@pytest.fixture
def db(migrated_database_url: str) -> Iterator[Database]:
    """A migrated database, once of each kind."""
    database = Database(database_url(Config(database_url=migrated_database_url)))
    yield database
    database.close()


@contextmanager
def started_gateways(tmp_path_factory: pytest.TempPathFactory, migrated_file: Path) -> Iterator[Callable[..., Gateway]]:
    """A function that starts gateways, which end when this does. What has no database yet gets a migrated one."""
    started: list[Gateway] = []

    def begin(**settings: Any) -> Gateway:
        folder = tmp_path_factory.mktemp("gateway")
        # Not a thousand threads, which take as long to make as a page.
        settings = {"DATA_DIR": folder / "data", "SERVER_THREADS": 64, **settings}
        database = settings.get("DATABASE_URL", f"sqlite:///{settings['DATA_DIR']}/openrouter_proxy.db")
        if database.startswith("sqlite") and not (file := Path(database.removeprefix("sqlite:///"))).exists():
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.copy(migrated_file, file)
        started.append(start_gateway(folder / "log", **settings))
        return started[-1]

    yield begin
    for gateway in started:
        if gateway.process.poll() is None:
            gateway.process.terminate()
    for gateway in started:
        gateway.stop()
        found = PRIVATE.search(gateway.log())
        assert not found, f"a gateway's log holds {found.group(0)[:20]!r}..."


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, migrated_file: Path) -> Iterator[Callable[..., Gateway]]:
    """Start gateways that end with the module's tests: start(OPENROUTER_API_URL=..., SERVER="gunicorn")."""
    with started_gateways(tmp_path_factory, migrated_file) as begin:
        yield begin


@pytest.fixture(scope="session")
def start_for_all(tmp_path_factory: pytest.TempPathFactory, migrated_file: Path) -> Iterator[Callable[..., Gateway]]:
    """Start gateways that all tests share."""
    with started_gateways(tmp_path_factory, migrated_file) as begin:
        yield begin


@pytest.fixture(scope="session")
def identity_provider() -> Iterator[str]:
    """The address of a stand-in for GitHub, Linux.do and OpenID Connect; it keeps nothing of anybody's."""
    with started_provider() as address:
        yield address


@pytest.fixture(scope="session")
def pool_keys(stand_in: Running) -> list[dict[str, str]]:  # noqa: F811 - the fixture of that name
    """Keys of one account at the stand-in, for the pool of the shared gateways."""
    account_id = stand_in.new_account(balance=1000)["id"]
    return [stand_in.new_key(account=account_id) for _ in range(3)]


@pytest.fixture(scope="session", params=["granian", "gunicorn"])
def gateway(
    request: pytest.FixtureRequest,
    start_for_all: Callable[..., Gateway],
    stand_in: Running,  # noqa: F811
    pool_keys: list[dict[str, str]],
) -> Gateway:
    """A gateway in front of the stand-in, shared by the tests of a process, once under each server."""
    return start_for_all(
        SERVER=request.param,
        SERVER_THREADS=64,
        OPENROUTER_API_URL=stand_in.address,
        OPENROUTER_API_KEYS=",".join(key["key"] for key in pool_keys),
        KEEPALIVE_SECONDS=1,
        UPSTREAM_FIRST_BYTE_TIMEOUT_SECONDS=5,
        UPSTREAM_IDLE_TIMEOUT_SECONDS=4,
    )


@pytest.fixture
def token(gateway: Gateway) -> str:
    """The access token of somebody new."""
    return gateway.new_user()


@pytest.fixture
def services(migrated_database_url: str) -> Iterator[Services]:
    """All services of a process that serves nobody, once on each kind of database."""
    secrets = {"encryption_key": ENCRYPTION_KEY, "secret_key": SECRET_KEY}
    found = build(Config(database_url=migrated_database_url, quota_usd=None, **secrets))
    yield found
    found.db.close()


@pytest.fixture
def command(services: Services) -> Callable[..., Result]:
    """Run a command within this process: what it prints goes to a pipe, so to speak."""
    runner = create_command_line(services).test_cli_runner()
    return lambda *words, stdin=None: runner.invoke(args=[*map(str, words)], input=stdin)


@pytest.fixture
def on_screen(migrated_database_url: str) -> Callable[..., Any]:
    """Run a command on a terminal, on the same database."""
    settings = {"DATABASE_URL": migrated_database_url, "SECRET_KEY": SECRET_KEY, "ENCRYPTION_KEY": ENCRYPTION_KEY}
    settings["LOG_LEVEL"] = "ERROR"  # the log goes to the same terminal

    def run(*words: str, **more: Any) -> Any:
        return on_terminal("-m", "flask", "--app", "app", *words, **settings | more)

    return run
