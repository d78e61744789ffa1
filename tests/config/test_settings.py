"""Settings: every fault at once and before anything is written, secrets from files, generated or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import sources
from config.settings import SECRET_NAMES, Config
from tests.support.alarms import SECRET as WEBHOOK_SECRET
from tests.support.settings import (
    CLIENT_SECRETS,
    FERNET,
    OPENROUTER_KEY,
    OTHER_FERNET,
    PRODUCTION,
    SIGN_ON,
    STRONG,
    fault,
    faults,
)

# ── what a start needs


def test_no_settings_at_all_are_enough_for_development():
    assert sources.problems({}) == []


def test_production_settings_with_strong_secrets_have_no_faults():
    assert faults(**PRODUCTION) == []


def test_defaults_are_those_of_the_original_table(tmp_path):
    loaded = sources.load({"DATA_DIR": str(tmp_path)})
    assert (loaded.port, loaded.db_name) == (5000, "openrouter_proxy")
    assert (loaded.app_hostname, loaded.app_title) == ("https://myapp.com", "MyApp")
    assert (loaded.db_host, loaded.db_port, loaded.db_user) == (None, 3306, "root")
    assert not loaded.flask_debug
    assert loaded.openrouter_api_url == "https://openrouter.ai/api/v1"


def test_every_setting_has_a_help_text():
    assert [name for name, field in Config.model_fields.items() if not field.description] == []


def test_wrong_types_missing_secrets_and_unreadable_files_are_reported_in_one_go(tmp_path):
    found = faults(
        APP_ENV="production",
        PORT="http",
        SERVER="tomcat",
        ENCRYPTION_KEY_FILE=tmp_path / "nowhere",
        DB_HOST="db",
        DB_PASSWORD="root",
        FLASK_DEBUG="1",
        OPENROUTER_API_URL="http://openrouter.ai/api/v1",
        OPENROUTER_API_KEYS="hunter2",
        REDIS_URL="memcached://cache",
        DATABASE_URL="oracle://db",
    )
    assert sorted(line.split(":")[0] for line in found) == [
        "DATABASE_URL",
        "DB_PASSWORD",
        "ENCRYPTION_KEY_FILE",
        "FLASK_DEBUG",
        "OPENROUTER_API_KEYS",
        "OPENROUTER_API_URL",
        "PORT",
        "REDIS_URL",
        "SECRET_KEY",
        "SERVER",
    ]


def test_faults_are_one_line_each_and_counted(tmp_path):
    with pytest.raises(sources.ConfigError) as raised:
        sources.load({"PORT": "x", "SERVER": "y", "DATA_DIR": str(tmp_path / "data")})
    lines = str(raised.value).splitlines()
    assert lines[0] == "Cannot start: 2 problems in the configuration."
    assert [line.strip() for line in lines[1:]] == raised.value.problems
    with pytest.raises(sources.ConfigError, match="1 problem in"):
        sources.load({"PORT": "x"})


@pytest.mark.parametrize("values", [{}, {"PORT": "x"}, PRODUCTION, {"APP_ENV": "production"}])
def test_looking_for_faults_writes_nothing(tmp_path, values):
    sources.problems(values | {"DATA_DIR": str(tmp_path / "data")})
    assert list(tmp_path.iterdir()) == []


def test_a_refused_start_writes_nothing(tmp_path):
    with pytest.raises(sources.ConfigError):
        sources.load({"DATA_DIR": str(tmp_path / "data"), "PORT": "x"})
    assert list(tmp_path.iterdir()) == []


def test_what_the_calling_program_requires_is_reported_with_the_rest():
    found = sources.problems({"PORT": "x"}, required=["OPENROUTER_PROVISION_KEY"])
    assert [line.split(":")[0] for line in found] == ["OPENROUTER_PROVISION_KEY", "PORT"]
    assert sources.problems({"OPENROUTER_PROVISION_KEY": OPENROUTER_KEY}, ["OPENROUTER_PROVISION_KEY"]) == []


def test_a_required_value_that_development_generates_is_required_in_production_only():
    assert sources.problems({}, ["DEPLOYMENT_ID"]) == []
    assert sources.problems(PRODUCTION, ["DEPLOYMENT_ID"]) == ["DEPLOYMENT_ID: is missing"]


def test_a_required_value_whose_file_cannot_be_read_is_reported_once(tmp_path):
    values = {"OPENROUTER_PROVISION_KEY_FILE": str(tmp_path / "nowhere")}
    found = sources.problems(values, ["OPENROUTER_PROVISION_KEY"])
    assert found == [f"OPENROUTER_PROVISION_KEY_FILE: cannot read {tmp_path}/nowhere (FileNotFoundError)"]


def test_an_empty_value_counts_as_not_set():
    values = dict.fromkeys((name.upper() for name in Config.model_fields), "")
    assert sources.problems(values) == []
    assert sources.problems(dict.fromkeys(values, "  \n")) == []
    assert [line.split(":")[0] for line in sources.problems(values | {"APP_ENV": "production"})] == [
        "SECRET_KEY",
        "ENCRYPTION_KEY",
    ]


# ── secrets


@pytest.mark.parametrize("separator", [",", " ", "\n", ", "])
def test_encryption_keys_are_a_list_newest_first(separator):
    loaded = sources.load(PRODUCTION | {"ENCRYPTION_KEY": separator.join([OTHER_FERNET, FERNET])})
    assert loaded.encryption_keys == [OTHER_FERNET, FERNET]


# ── secrets from files

WEBHOOK = {"ALERT_WEBHOOK_URL": "https://hooks.test/kZ4-pw9!", "ALERT_WEBHOOK_SECRET": WEBHOOK_SECRET}


def test_a_secret_may_come_from_a_file_and_loses_its_line_end(tmp_path):
    (tmp_path / "key").write_text(f"{STRONG}\n")
    loaded = sources.load({"APP_ENV": "production", "SECRET_KEY_FILE": str(tmp_path / "key"), "ENCRYPTION_KEY": FERNET})
    assert loaded.secret_key.get_secret_value() == STRONG


@pytest.mark.parametrize("name", sorted(SECRET_NAMES))
def test_every_secret_may_come_from_a_file(tmp_path, name):
    values = {
        "SECRET_KEY": STRONG,
        "ACCEPTED_SECRET_KEYS": f"{STRONG}\n{STRONG[::-1]}",
        "ENCRYPTION_KEY": FERNET,
        "ADMIN_TOKEN": STRONG,
        "METRICS_TOKEN": STRONG,
        "DB_PASSWORD": "kZ4-pw9!",
        "DATABASE_URL": "mysql://app:kZ4-pw9!@db/x",
        "REDIS_URL": "redis://:kZ4-pw9!@cache/0",
        "OUTBOUND_PROXY": "http://app:kZ4-pw9!@proxy:3128",
        "UPSTREAMS": '[{"name": "local", "api_key": "kZ4-pw9!"}]',
        **WEBHOOK,
        "SMTP_PASSWORD": "kZ4-pw9!",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-key=kZ4-pw9!",
        "OPENROUTER_PROVISION_KEY": OPENROUTER_KEY,
        "OPENROUTER_API_KEYS": f"{OPENROUTER_KEY}\n{OPENROUTER_KEY[:-1]}",
    } | dict.fromkeys(CLIENT_SECRETS, "kZ4-pw9!")
    (tmp_path / "secret").write_text(values[name] + "\r\n")
    more = {"DB_HOST": "db"} if name == "DB_PASSWORD" else {}
    more |= SIGN_ON if name in CLIENT_SECRETS else {}
    more |= {one: values[one] for one in WEBHOOK} if name in WEBHOOK else {}
    more |= {"SMTP_USER": "mailer"} if name == "SMTP_PASSWORD" else {}
    more = {setting: value for setting, value in more.items() if setting != name}
    loaded = sources.load({f"{name}_FILE": str(tmp_path / "secret"), "DATA_DIR": str(tmp_path / "data"), **more})
    value = getattr(loaded, name.lower())
    texts = [one.get_secret_value() for one in (value if isinstance(value, tuple) else [value])]
    assert texts == values[name].split("\n")
    assert set(SECRETS_OF_MODEL) == SECRET_NAMES


SECRETS_OF_MODEL = [name.upper() for name, field in Config.model_fields.items() if "SecretStr" in str(field.annotation)]


@pytest.mark.parametrize(
    ("content", "wording"),
    [
        (None, "cannot read"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff\xfe", "cannot read"),
        ("folder", "cannot"),
    ],
    ids=["missing", "empty", "blank", "not-text", "folder"],
)
def test_a_secret_file_that_gives_nothing_is_a_fault(tmp_path, content, wording):
    path = tmp_path / "key"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    values = {key: value for key, value in PRODUCTION.items() if key != "SECRET_KEY"}
    line = fault(**values, SECRET_KEY_FILE=path)
    assert line.startswith("SECRET_KEY_FILE: ")
    assert wording in line
    assert str(path) in line


def test_a_secret_given_twice_is_a_fault(tmp_path):
    (tmp_path / "key").write_text(STRONG)
    line = fault(**PRODUCTION, SECRET_KEY_FILE=tmp_path / "key")
    assert line == "SECRET_KEY_FILE: SECRET_KEY is set too; give one of them"


def test_a_weak_secret_from_a_file_is_refused_too(tmp_path):
    (tmp_path / "key").write_text("dev_secret_key")
    assert "SECRET_KEY: is known or weak" in fault(SECRET_KEY_FILE=tmp_path / "key")


# ── no secret shows


def test_printing_the_settings_shows_no_secret(tmp_path):
    values = PRODUCTION | {
        "ADMIN_TOKEN": STRONG[::-1],
        "DB_PASSWORD": "kZ4-pw9!-db",
        "DATABASE_URL": "mysql://app:kZ4-pw9!-url@db/x",
        "REDIS_URL": "redis://:kZ4-pw9!-redis@cache/0",
        "OUTBOUND_PROXY": "http://app:kZ4-pw9%40-proxy@proxy:3128",
        "UPSTREAMS": '[{"api_key": "kZ4-pw9!-upstream"}, {"api_key": null}]',
        "OPENROUTER_PROVISION_KEY": "sk-or-v1-provision-0123456789",
        "OPENROUTER_API_KEYS": OPENROUTER_KEY,
    }
    loaded = sources.load(values)
    shown = f"{loaded!r} {loaded} {loaded.model_dump()} {loaded.model_dump_json()}"
    for secret in [STRONG, FERNET, STRONG[::-1], "kZ4", "provision-0123", OPENROUTER_KEY[9:]]:
        assert secret not in shown


def test_every_secret_text_in_use_is_known_to_the_redaction():
    values = PRODUCTION | {
        "ACCEPTED_SECRET_KEYS": f"{STRONG[1:]},{STRONG[2:]}",
        "ENCRYPTION_KEY": f"{OTHER_FERNET},{FERNET}",
        "ADMIN_TOKEN": STRONG[::-1],
        "DB_PASSWORD": "kZ4-pw9!-db",
        "DATABASE_URL": "mysql://app:kZ4%2Fpw9%40-url@db/x",
        "REDIS_URL": "redis://:kZ4-pw9!-redis@cache/0",
        "OUTBOUND_PROXY": "http://app:kZ4-pw9%40-proxy@proxy:3128",
        "UPSTREAMS": '[{"api_key": "kZ4-pw9!-upstream"}, {"api_key": null}]',
        "OPENROUTER_PROVISION_KEY": "sk-or-v1-provision-0123456789",
        "OPENROUTER_API_KEYS": OPENROUTER_KEY,
    }
    assert set(sources.load(values).secret_values()) == {
        STRONG,
        STRONG[1:],
        STRONG[2:],
        STRONG[::-1],
        FERNET,
        OTHER_FERNET,
        OPENROUTER_KEY,
        "kZ4-pw9!-db",
        "kZ4%2Fpw9%40-url",
        "kZ4/pw9@-url",
        "kZ4-pw9!-redis",
        "kZ4-pw9%40-proxy",
        "kZ4-pw9@-proxy",
        "kZ4-pw9!-upstream",
        "sk-or-v1-provision-0123456789",
    }


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=60)
NAMES = sorted(name.upper() for name in Config.model_fields)


@given(st.dictionaries(st.sampled_from(NAMES), texts))
def test_no_value_whatever_breaks_the_check_and_no_secret_is_echoed(values):
    for line in sources.problems(values):
        name = line.split(":")[0]
        assert name in NAMES
        secret = values.get(name, "").strip()
        if name in SECRET_NAMES and len(secret) > 12:
            assert secret not in line
        assert "\n" not in line


# ── single settings


# ── rate limits
