"""Settings: every fault at once and before anything is written, secrets from files, generated or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import sources
from config.settings import SECRET_NAMES, Config
from tests.support.rows import each_row
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


def test_development_listens_on_the_loopback_production_on_all_addresses():
    assert sources.load(PRODUCTION).listen_host == "0.0.0.0"
    assert sources.load(PRODUCTION | {"HOST": "10.0.0.7"}).listen_host == "10.0.0.7"
    assert Config().listen_host == "127.0.0.1"


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
        "OPENROUTER_PROVISION_KEY": OPENROUTER_KEY,
        "OPENROUTER_API_KEYS": f"{OPENROUTER_KEY}\n{OPENROUTER_KEY[:-1]}",
    } | dict.fromkeys(CLIENT_SECRETS, "kZ4-pw9!")
    (tmp_path / "secret").write_text(values[name] + "\r\n")
    more = {"DB_HOST": "db"} if name == "DB_PASSWORD" else {}
    more |= SIGN_ON if name in CLIENT_SECRETS else {}
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


@pytest.mark.parametrize(
    "url",
    ["gateway.example.net", "https://x/path", "https://a@x", "https://x?y", "https://x#", "https://x y", "ftp://x"],
)
def test_the_own_address_is_one_without_a_path(url):
    assert "PUBLIC_URL: must be " in fault(PUBLIC_URL=url)


NOT_PLAIN = (
    "openrouter.ai ftp://a https:// https://u:p@a https://a?x=1 https://a#x https://[a https://é https://a:99999"
)


@each_row(
    "url", [*NOT_PLAIN.split(), "https://a:b", "https://a b", "https://a/\nX-Evil:1", "https://a/\tb", "https://a/\x7f"]
)
@each_row("name", ["APP_HOSTNAME", "OPENROUTER_API_URL"])
def test_what_is_not_a_plain_url_is_refused(name, url):
    assert fault(**{name: url}).startswith(f"{name}: must be a URL")


@pytest.mark.parametrize("title", ["My\nApp", "Café", "a\x7fb", "x" * 201])
def test_a_title_that_cannot_travel_in_a_header_is_refused(title):
    assert fault(APP_TITLE=title).startswith("APP_TITLE: ")


@pytest.mark.parametrize(("text", "value"), [("none", None), (" NONE ", None), ("2.5", 2.5), ("10", 10.0)])
def test_the_limit_of_a_key_may_be_none(tmp_path, text, value):
    assert sources.load({"KEY_LIMIT_USD": text, "DATA_DIR": str(tmp_path)}).key_limit_usd == value


@pytest.mark.parametrize("name", ["QUOTA_USD", "QUOTA_SOFT_USD"])
@pytest.mark.parametrize(("text", "value"), [("none", None), (" NONE ", None), ("0", 0.0), ("2.5", 2.5)])
def test_a_quota_may_be_none(tmp_path, name, text, value):
    assert getattr(sources.load({name: text, "DATA_DIR": str(tmp_path)}), name.lower()) == value


@each_row("name", ["QUOTA_USD", "QUOTA_SOFT_USD"])
@each_row("text", ["-1", "nan", "inf", "1e10", "ten"])
def test_a_quota_that_is_no_amount_is_refused(name, text):
    assert fault(**{name: text}).startswith(f"{name}: ")


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e999", "ten"])
def test_a_limit_that_is_no_amount_is_refused(text):
    assert fault(KEY_LIMIT_USD=text).startswith("KEY_LIMIT_USD: ")


@pytest.mark.parametrize("text", ["{0},{1}", " {0} ,, {1}, ", "{0}\n{1}\n", "{0} {1}"])
def test_openrouter_keys_are_separated_by_commas_or_white_space(tmp_path, text):
    keys = [OPENROUTER_KEY, OPENROUTER_KEY[:-8]]
    loaded = sources.load({"OPENROUTER_API_KEYS": text.format(*keys), "DATA_DIR": str(tmp_path)})
    assert [key.get_secret_value() for key in loaded.openrouter_api_keys] == keys


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("DEDICATED_KEYS", "on", "yes"),
        ("DEDICATED_KEY_LIMIT_USD", "0.01", "0"),
        ("DEDICATED_KEY_LIMIT_USD", "0.5", "none"),
        ("DEDICATED_KEY_LIMIT_RESET", "none", "hourly"),
        ("DEDICATED_KEY_LIFETIME_DAYS", "1", "0.5"),
    ],
)
def test_users_own_keys_have_a_limit_and_a_life(name, good, bad):
    assert faults(**{name: good}) == []
    assert fault(**{name: bad}).startswith(name)


@each_row("name", ["JWT_EXPIRATION_HOURS", "REFRESH_TOKEN_DAYS", "KEEPALIVE_SECONDS", "POOL_SIZE", "PORT"])
@each_row("value", ["-1", "nan", "inf", "1e30", "", "seven", "0x10"])
def test_numbers_out_of_range_are_refused(name, value):
    assert [line.split(":")[0] for line in faults(**{name: value})] == ([name] if value else [])


# ── rate limits


@pytest.mark.parametrize("value", ["10.0.0.1/8", "10.0.0.0/33", "proxy.example.com", "10.0.0.0/8;fd00::/8", "UNIX"])
def test_what_is_no_network_is_refused_with_what_is_accepted(value):
    assert (
        fault(TRUSTED_PROXIES=f"10.0.0.0/8, {value}")
        == "TRUSTED_PROXIES: must hold networks like 10.0.0.0/8, addresses, or `unix`"
    )


def test_trusted_proxies_are_networks_addresses_and_the_unix_socket():
    settings = sources.load({"TRUSTED_PROXIES": "10.0.0.0/8,fd00::/8 192.0.2.7, unix"})
    assert settings.trusted_proxies == ("10.0.0.0/8", "fd00::/8", "192.0.2.7", "unix")
    assert Config().trusted_proxies == ()


@each_row("name", [name.upper() for name in Config.model_fields if "rate_limit" in name])
def test_a_limit_is_a_whole_number_and_never_negative(name):
    for value in ("-1", "1.5", "many", "1000000001"):
        assert name in fault(**{name: value})
    assert faults(**{name: "0"}) == faults(**{name: "1000000000"}) == []


def test_the_port_of_redis_is_a_number_and_the_complaint_does_not_quote_the_password():
    complaint = fault(REDIS_URL="redis://:kZ4#pw9!@cache:63x/0")
    assert "REDIS_URL: is not a URL" in complaint
    assert "pw9" not in complaint


@each_row(
    "url",
    [
        "https://proxy:3128",
        "socks5://proxy:3128",
        "proxy:3128",
        "http://proxy",
        "http://:3128",
        "http://proxy:3128/path",
        "http://proxy:x",
        "http://app:kZ4#pw9!@proxy:3128",
        "http://app:kZ4 pw9!@proxy:3128",
    ],
)
def test_an_outbound_proxy_is_a_plain_http_url_with_a_port_and_the_complaint_does_not_quote_it(url):
    complaint = fault(OUTBOUND_PROXY=url)
    assert "OUTBOUND_PROXY: must be http://host:port" in complaint
    assert "pw9" not in complaint


@pytest.mark.parametrize("url", ["http://proxy:3128", "http://app:kZ4%40pw9!@10.0.0.7:3128/", "http://[fd00::7]:80"])
def test_an_outbound_proxy_may_have_a_user_and_a_password(url):
    assert faults(OUTBOUND_PROXY=url) == []


@pytest.mark.parametrize("text", ["kZ4-pw9!", "{}", '["kZ4-pw9!"]', '[{"api_key": "kZ4-pw9!"}', "[" * 100_000, "7"])
def test_upstreams_are_a_list_of_objects_and_the_complaint_does_not_quote_them(text):
    complaint = fault(UPSTREAMS=text)
    assert "UPSTREAMS: must be a JSON list of objects" in complaint
    assert "pw9" not in complaint
