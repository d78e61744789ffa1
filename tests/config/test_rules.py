"""What settings must be like beside others: in production, with a database, log-ins, quotas."""

from __future__ import annotations

import subprocess

import pytest

from config import sources
from tests.support.rows import each_row
from tests.support.settings import PRODUCTION, SIGN_ON, STRONG, fault, faults


@pytest.mark.parametrize("name", ["SECRET_KEY", "ENCRYPTION_KEY"])
def test_production_refuses_a_missing_secret_and_says_how_to_make_one(name):
    line = fault(**{key: value for key, value in PRODUCTION.items() if key != name})
    assert line.startswith(f"{name}: is missing")
    assert "openssl rand" in line


def test_the_way_to_make_a_secret_that_the_faults_name_is_accepted():
    made = {}
    for line in faults(APP_ENV="production"):
        command = line.split("`")[1]
        made[line.split(":")[0]] = subprocess.run(
            command, shell=True, capture_output=True, text=True, check=True
        ).stdout
    assert faults(APP_ENV="production", **made) == []


def test_production_refuses_debug_and_takes_off_for_an_answer():
    assert fault(**PRODUCTION, FLASK_DEBUG="true") == "FLASK_DEBUG: must not be on in production"
    assert faults(**PRODUCTION, FLASK_DEBUG="0") == []
    assert faults(FLASK_DEBUG="1") == []


@each_row(
    "weak",
    [
        "",
        "secret",
        "password1",
        "Admin@123456",
        "mysql-password",
        "Sunshine-2026",
        "root",
        "mysql",
        "12345678901",
        "changeme-now",
        "a-b-c-d",
    ],
)
def test_production_refuses_a_weak_database_password(weak):
    line = fault(**PRODUCTION, DB_HOST="db", DB_PASSWORD=weak)
    assert line.startswith("DB_PASSWORD: is missing or weak")
    assert faults(DB_HOST="db", DB_PASSWORD=weak) == []


@pytest.mark.parametrize("weak", ["", ":@", "root@", "root:@", "root:root@", "root:pass%77ord@", "root:change-me-now@"])
def test_production_refuses_a_weak_password_in_the_database_url(weak):
    if "@" in weak:
        line = fault(**PRODUCTION, DATABASE_URL=f"mysql://{weak}db/openrouter_proxy")
        assert line.startswith("DATABASE_URL: has no password or a weak one")
        assert faults(DATABASE_URL=f"mysql://{weak}db/openrouter_proxy") == []
    assert faults(**PRODUCTION, DATABASE_URL=f"mysql://{weak}/db?unix_socket=/run/mysqld.sock") == []


def test_production_takes_a_strong_database_password():
    assert faults(**PRODUCTION, DB_HOST="db", DB_PASSWORD="kZ4-pw9!-x") == []
    assert faults(**PRODUCTION, DATABASE_URL="mysql://app:kZ4-pw9!-x@db/openrouter_proxy") == []
    assert faults(**PRODUCTION, DATABASE_URL="sqlite:////var/lib/proxy.db") == []


def test_a_database_that_is_set_by_halves_or_twice_is_refused():
    twice = sources.problems({"DB_HOST": "db", "DATABASE_URL": "mysql://db/x"})
    halved = sources.problems({"DB_PASSWORD": "a-good-one-4711", "DB_NAME": "x"})
    assert [line.partition(":")[0] for line in twice + halved] == ["DATABASE_URL", "DATABASE_URL"]
    assert "SQLite" in halved[0]


@pytest.mark.parametrize("url", ["http://openrouter.ai/api/v1", "http://127.0.0.1.evil.com/", "http://10.0.0.1/api/v1"])
def test_plain_http_to_openrouter_is_refused(url):
    assert "must use https" in fault(OPENROUTER_API_URL=url)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/api/v1", "http://localhost/v1/", "http://[::1]:8080/x", "https://a"]
)
def test_plain_http_to_this_machine_is_accepted(tmp_path, url):
    loaded = sources.load({"OPENROUTER_API_URL": url, "DATA_DIR": str(tmp_path)})
    assert loaded.openrouter_api_url == url.rstrip("/")


@pytest.mark.parametrize("app_env", ["development", "production"])
def test_providers_need_an_id_a_secret_and_the_public_url(app_env):
    values = PRODUCTION if app_env == "production" else {}
    assert faults(**values, **SIGN_ON) == []
    for name in SIGN_ON:
        complaints = faults(**values, **{key: value for key, value in SIGN_ON.items() if key != name})
        assert complaints, name
        assert name in " ".join(complaints)
        assert "kZ4-pw9!" not in str(complaints)


@pytest.mark.parametrize("name", ["PUBLIC_URL", "GITHUB_URL", "GITHUB_API_URL", "LINUXDO_URL", "OIDC_ISSUER"])
def test_log_ins_never_cross_a_network_in_clear_in_production(name):
    assert faults(**SIGN_ON | {name: "http://127.0.0.1:8080"}) == []
    [complaint] = faults(**PRODUCTION, **SIGN_ON | {name: "http://127.0.0.1:8080"})
    assert complaint.startswith(f"{name}: must use https")


@pytest.mark.parametrize(
    "url", ["https://gateway.test/path", "gateway.test", "ftp://gateway.test", "https://a@b", "https://a/?x"]
)
def test_the_public_url_is_an_address_without_path(url):
    assert [line.partition(":")[0] for line in faults(PUBLIC_URL=url)] == ["PUBLIC_URL"]
    assert sources.load({"PUBLIC_URL": "https://gateway.test/"}).public_url == "https://gateway.test"


def test_an_issuer_is_taken_as_it_is_written():
    assert sources.load(SIGN_ON).oidc_issuer == "https://login.test/realm/"


def test_the_own_address_is_https_in_production(tmp_path):
    assert "PUBLIC_URL: must use https in production" in "\n".join(
        sources.problems({"PUBLIC_URL": "http://x.example", "APP_ENV": "production"})
    )
    for url in ("https://x.example:8443/", "http://127.0.0.1:5000", "https://[::1]"):
        loaded = sources.load({"PUBLIC_URL": url, "DATA_DIR": str(tmp_path)})
        assert loaded.public_url == url.rstrip("/")


def test_quotas_that_make_no_sense_are_refused():
    assert faults(QUOTA_USD="5", QUOTA_SOFT_USD="5", QUOTA_PERIOD="week", QUOTA_RECOVERY="steady") == []
    assert fault(QUOTA_USD="5", QUOTA_SOFT_USD="6").startswith("QUOTA_SOFT_USD: must not be above QUOTA_USD")
    assert fault(QUOTA_PERIOD="year").startswith("QUOTA_PERIOD: ")
    assert fault(QUOTA_USD="none", QUOTA_RECOVERY="steady").startswith(
        "QUOTA_RECOVERY: can be steady only with QUOTA_USD"
    )
    assert fault(QUOTA_USD="5", QUOTA_PERIOD="none", QUOTA_RECOVERY="steady").startswith("QUOTA_RECOVERY: ")


@pytest.mark.parametrize("name", ["SECRET_KEY", "ADMIN_TOKEN"])
@pytest.mark.parametrize(
    "weak",
    ["0123456789abcdef0123456789abcdef", "Password2026!Password2026!Passwd!", "qwertyuiop1234567890asdfghjklzxcv"],
)
def test_production_refuses_secrets_that_are_long_and_guessable(name, weak):
    assert fault(**PRODUCTION | {name: weak}).startswith(f"{name}: is ")
    assert faults(**PRODUCTION | {name: STRONG}) == []


def test_production_lets_strangers_spend_without_limit_only_if_told_so_twice():
    told = fault(REGISTRATION="open", QUOTA_USD="none", **PRODUCTION)
    assert told.startswith("QUOTA_USD: must not be none with REGISTRATION=open")
    assert "ALLOW_OPEN_WITHOUT_QUOTA=true" in told
    for settings in (
        {"REGISTRATION": "open"},
        {"REGISTRATION": "open", "QUOTA_USD": "none", "ALLOW_OPEN_WITHOUT_QUOTA": "true"},
        {"REGISTRATION": "approval", "QUOTA_USD": "none"},
        {"QUOTA_USD": "none"},
    ):
        assert faults(**settings, **PRODUCTION) == []
    assert faults(REGISTRATION="open", QUOTA_USD="none") == []


def test_who_may_sign_up_is_strict_in_production_by_default(tmp_path):
    here = {"DATA_DIR": str(tmp_path)}
    assert sources.load(here).registration_mode == "open"
    loaded = sources.load(PRODUCTION | here)
    assert (loaded.registration_mode, loaded.quota_usd) == ("invite", 10)
    assert sources.load(PRODUCTION | here | {"REGISTRATION": "closed"}).registration_mode == "closed"
    assert fault(REGISTRATION="everybody").startswith("REGISTRATION: ")


def test_keys_must_be_renewed_at_least_an_hour_before_they_expire():
    assert faults(KEY_LIFETIME_HOURS="25", KEY_ROTATION_INTERVAL_HOURS="24") == []
    assert fault(KEY_LIFETIME_HOURS="25", KEY_ROTATION_INTERVAL_HOURS="24.5").startswith("KEY_ROTATION_INTERVAL_HOURS")
