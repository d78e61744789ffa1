"""The database's TLS: verified by DB_SSL_CA on real servers, refused in a sentence, and told where production has none."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from config import sources
from config.database_tls import is_unverified
from config.settings import Config
from db import Database, DatabaseError, database_url, is_away
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.support.mariadb import DatabaseServer
from tests.support.mysql import UNPACKED, MySqlServer


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority, `ca.pem`, that has signed a server of 127.0.0.1, and with a stranger's, `other.pem`."""
    folder = tmp_path_factory.mktemp("tls")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    new_key = ["-newkey", "rsa:2048", "-nodes", "-days", "30"]
    for name in ("ca", "other"):
        files = ["-keyout", f"{name}-key.pem", "-out", f"{name}.pem", "-subj", f"/CN={name}"]
        subprocess.run(["openssl", "req", "-x509", *new_key, *files], cwd=folder, check=True, capture_output=True)
    files = ["-keyout", "server-key.pem", "-out", "server.csr", "-subj", "/CN=database"]
    subprocess.run(["openssl", "req", *new_key, *files], cwd=folder, check=True, capture_output=True)
    signing = ["-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "30", "-extfile", "names"]
    command = ["openssl", "x509", "-req", "-in", "server.csr", "-out", "server.pem", *signing]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


def connected(url: str, **settings: Any) -> str:
    """The cipher of a connection, if there is one."""
    database = Database(database_url(Config(database_url=url, **settings)))
    try:
        with database.reading() as tx:
            return str(tx.execute(sa.text("SHOW STATUS LIKE 'Ssl_cipher'")).one()[1])
    finally:
        database.close()


@pytest.mark.parametrize("kind", [DatabaseServer, MySqlServer])
def test_a_server_is_verified_by_its_authority_and_by_its_name(kind, authority, tmp_path):
    if kind is MySqlServer and not UNPACKED.exists():
        pytest.skip("there is no MySQL server: tests/install-servers unpacks one")
    options = [
        f"--ssl-{name}={authority}/{file}.pem"
        for name, file in (("ca", "ca"), ("cert", "server"), ("key", "server-key"))
    ]
    server = kind(tmp_path, *options)
    try:
        database = server.empty_database().rpartition("/")[2]
        server.execute(
            "CREATE USER tls IDENTIFIED BY 'correct-horse-battery'",
            None,
            "ALTER USER tls REQUIRE SSL",
            "GRANT ALL ON *.* TO tls",
        )
        for driver in ("mysql", "mysql+pymysql"):
            url = f"{driver}://tls:correct-horse-battery@127.0.0.1:{server.port}/{database}"
            by_another_name = url.replace("127.0.0.1", "localhost")
            ours, others = ({"db_ssl_ca": authority / name} for name in ("ca.pem", "other.pem"))
            assert connected(url, **ours)
            assert connected(url)  # encrypted, to whoever answers
            assert connected(by_another_name, **ours, db_ssl_mode="verify_ca")
            for wrong in (
                (url, others),
                (by_another_name, ours),
                (by_another_name, others | {"db_ssl_mode": "verify_ca"}),
                (url, {"db_ssl_mode": "off"}),
            ):
                with pytest.raises(DatabaseError):
                    connected(wrong[0], **wrong[1])
    finally:
        server.stop()


def test_a_server_without_tls_is_refused_where_it_has_to_be_verified(authority, tmp_path):
    server = DatabaseServer(tmp_path, "--skip-ssl")
    try:
        for driver in ("mysql", "mysql+pymysql"):
            url = server.empty_database().replace("mysql:", f"{driver}:")
            assert connected(url) == ""
            with pytest.raises(DatabaseError, match=r"TLS|SSL") as raised:
                connected(url, db_ssl_ca=authority / "ca.pem")
            assert not is_away(raised.value)
    finally:
        server.stop()


def test_what_can_not_be_is_told_in_a_sentence(authority, tmp_path):
    (tmp_path / "empty.pem").touch()
    for settings, told in (
        (
            {"DATABASE_URL": "mysql://a:b@127.0.0.1/x?ssl_mode=REQUIRED"},
            "DATABASE_URL: must not have ?ssl...: set DB_SSL_CA",
        ),
        ({"DATABASE_URL": "mysql://a:b@127.0.0.1/x?ssl"}, "DATABASE_URL: must not have ?ssl"),
        ({"DB_SSL_CA": f"{tmp_path}/none.pem"}, "DB_SSL_CA: can't be used as a file of certificates"),
        ({"DB_SSL_CA": f"{tmp_path}/empty.pem"}, "DB_SSL_CA: can't be used as a file of certificates"),
        ({"DB_SSL_MODE": "verify_identity"}, "DB_SSL_MODE: needs DB_SSL_CA"),
        ({"DB_SSL_MODE": "always"}, "DB_SSL_MODE: "),
    ):
        [problem] = sources.problems(settings)
        assert problem.startswith(told)


def test_production_says_where_nobody_asks_the_database_who_it_is(authority):
    secrets = {"secret_key": SECRET_KEY, "encryption_key": ENCRYPTION_KEY, "app_env": "production"}
    password = {"db_password": "Qd81-Zx7Kp3Vt0Lm9Rw2Yc"}
    for settings, expected in (
        ({"db_host": "db.internal", **password}, True),
        ({"database_url": "mysql://a:Qd81-Zx7Kp3Vt0Lm9Rw2Yc@db.internal/x"}, True),
        ({"db_host": "db.internal", **password, "app_env": "development"}, False),
        ({"db_host": "db.internal", **password, "db_ssl_ca": authority / "ca.pem"}, False),
        ({"db_host": "db.internal", **password, "db_ssl_mode": "off"}, False),
        ({"db_host": "127.0.0.1", **password}, False),
        ({"database_url": "sqlite:////data/x.db"}, False),
        ({}, False),
    ):
        assert is_unverified(Config(**secrets | settings)) is expected, settings
