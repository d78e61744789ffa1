"""Every setting once: name, type, default, help.

What is refused is in config/checks.py and config/rules.py; config/sources.py reads them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic import field_validator as check

from config import checks, rules

ROOT = Path(__file__).resolve().parents[1]
# Connections that a worker keeps open between requests. Both servers count them among those that they serve, and would
# accept no new one once clients and reverse proxies keep as many as there are threads.
IDLE_CONNECTIONS = 8000
# Threads beside those for model calls: for log-ins, for all other requests, and for what is answered at once.
LANE_THREADS = 64
SPARE_THREADS = 2 * LANE_THREADS + 32
# The server ends its processes so much later than calls are ended: by then each has said its last words.
LAST_WORDS_SECONDS = 5


def _split(value: object) -> object:
    return [word for word in re.split(r"[\s,]+", value) if word] if isinstance(value, str) else value


Seconds = Annotated[float, Field(gt=0, le=3600)]
Limit = Annotated[int, Field(ge=0, le=1_000_000_000)]


class Config(BaseModel):
    """The settings, checked and frozen. Field names are the variables' names in lower case."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True, validate_default=True, str_strip_whitespace=True)

    # APP_ENV stands first: what follows is checked against it.
    app_env: Literal["development", "production"] = Field(
        "development", description="production refuses missing or weak secrets; development generates them"
    )
    secret_key: SecretStr = Field(SecretStr(""), description="signs access tokens; at least 32 characters")
    accepted_secret_keys: Annotated[tuple[SecretStr, ...], BeforeValidator(_split)] = Field(
        (), description="more keys whose access tokens are accepted, separated by commas, while SECRET_KEY changes"
    )
    encryption_key: SecretStr = Field(
        SecretStr(""), description="one or more Fernet keys, newest first: encrypts pool keys in the database"
    )
    deployment_id: str = Field(
        "", max_length=64, pattern=r"^[A-Za-z0-9-]*$", description="names this installation's keys at OpenRouter"
    )
    admin_token: SecretStr | None = Field(
        None, description="bearer token of the operator, for /admin; without it only admins by role are let in"
    )
    metrics_token: SecretStr | None = Field(
        None, description="bearer token with which Prometheus reads /metrics; without it there are none"
    )
    api_docs: Literal["auto", "off", "on"] = Field(
        "auto", description="/api/docs, /api/redoc and /api/openapi.json; auto: on in development, off in production"
    )
    host: str = Field("", description="address to listen on; default 127.0.0.1, in production 0.0.0.0")
    port: int = Field(5000, ge=0, le=65535, description="port to listen on")
    server: Literal["granian", "gunicorn"] = Field("granian", description="the WSGI server that `python app.py` starts")
    server_workers: int = Field(1, ge=1, le=64, description="worker processes; about one for each core")
    server_threads: int = Field(1100, ge=8, le=20000, description="model calls that one worker carries at once")
    flask_debug: bool = Field(False, description="log at DEBUG; refused in production")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="how much is logged")
    data_dir: Path = Field(
        Path("data"), description="SQLite file, journal of calls, generated secrets; relative to the project"
    )
    db_host: str | None = Field(None, description="MySQL or MariaDB host; without it, SQLite in DATA_DIR")
    db_port: int = Field(3306, ge=1, le=65535, description="port of DB_HOST")
    db_user: str = Field("root", description="user at DB_HOST")
    db_password: SecretStr | None = Field(None, description="password of DB_USER")
    db_name: str = Field("openrouter_proxy", pattern=r"^[A-Za-z0-9_$-]{1,64}$", description="database at DB_HOST")
    db_ssl_ca: Annotated[Path | None, AfterValidator(checks.authorities)] = Field(
        None,
        description="file with the certificates of authorities, by which the database's is verified; none for no check",
    )
    db_ssl_mode: Literal["auto", "off", "verify_ca", "verify_identity"] = Field(
        "auto", description="verify_identity, as auto with DB_SSL_CA: its name too; verify_ca: any name; off: no TLS"
    )
    database_url: SecretStr | None = Field(
        None, description="instead of DB_*: mysql://, mysql+pymysql://, mariadb:// or sqlite:///path"
    )
    redis_url: Annotated[SecretStr | None, AfterValidator(checks.redis_url)] = Field(
        None, description="counts the rate limits of several replicas together; without it each process counts alone"
    )
    app_hostname: str = Field("https://myapp.com", description="sent to OpenRouter as HTTP-Referer")
    app_title: Annotated[str, AfterValidator(checks.header_text)] = Field(
        "MyApp", max_length=200, description="sent to OpenRouter as X-Title and X-OpenRouter-Title"
    )
    openrouter_api_url: str = Field("https://openrouter.ai/api/v1", description="OpenRouter's API")
    openrouter_provision_key: SecretStr | None = Field(
        None, description="OpenRouter management key; only key_rotation.py needs it, give it to nothing else"
    )
    openrouter_api_keys: Annotated[tuple[SecretStr, ...], BeforeValidator(_split)] = Field(
        (), description="OpenRouter keys to put into the pool at start, separated by commas"
    )
    outbound_proxy: Annotated[SecretStr | None, AfterValidator(checks.http_proxy)] = Field(
        None, description="http://user:password@host:port, an HTTP proxy (CONNECT) to upstreams and identity providers"
    )
    upstreams: Annotated[SecretStr | None, AfterValidator(checks.list_of_objects)] = Field(
        None, description="upstreams beside OpenRouter, a JSON list; imported while the database has none"
    )
    allow_private_upstreams: bool = Field(
        False, description="whether upstreams may have private addresses, and http:// URLs"
    )
    kdf_domain: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="part of every client's key salt; by default the database's own",
    )
    registration: Literal["auto", "closed", "invite", "approval", "open"] = Field(
        "auto",
        description="who may sign up: nobody, whoever has an invitation, whom an operator lets in, or anybody; "
        "auto: invite in production, open in development",
    )
    allow_open_without_quota: bool = Field(
        False, description="whether production may start with REGISTRATION=open and QUOTA_USD=none: strangers spend all"
    )
    operator_second_factor: Literal["optional", "required"] = Field(
        "optional", description="whether whoever works as operator or auditor has to have a second factor"
    )
    jwt_expiration_hours: float = Field(24, gt=0, le=24 * 30, description="life of an access token")
    refresh_token_days: float = Field(7, gt=0, le=365, description="life of a refresh token")
    pool_size: int = Field(5, ge=1, le=10_000, description="keys that key_rotation.py keeps usable")
    key_limit_usd: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        10, description="what one minted key may spend per KEY_LIMIT_RESET; `none` for no limit"
    )
    key_limit_reset: Literal["daily", "weekly", "monthly", "none"] = Field(
        "daily", description="when OpenRouter resets that limit"
    )
    key_lifetime_hours: float = Field(72, ge=2, le=24 * 365, description="a minted key expires after this")
    key_rotation_interval_hours: float = Field(24, gt=0, le=24 * 90, description="a minted key is renewed after this")
    dedicated_keys: Literal["off", "on"] = Field(
        "off", description="whether key_rotation.py mints each active user an OpenRouter key of their own"
    )
    dedicated_key_limit_usd: float = Field(
        5, ge=0.01, le=1_000_000, description="what such a key may spend per DEDICATED_KEY_LIMIT_RESET"
    )
    dedicated_key_limit_reset: Literal["daily", "weekly", "monthly", "none"] = Field(
        "monthly", description="when OpenRouter resets that limit"
    )
    dedicated_key_lifetime_days: float = Field(
        90, ge=1, le=365, description="such a key expires after this; it is renewed after two thirds of it"
    )
    key_max_in_flight: int = Field(
        0, ge=0, le=100_000, description="calls that one OpenRouter key carries at once; 0 for any number"
    )
    upstream_connect_timeout_seconds: Seconds = Field(5, description="to open a connection to OpenRouter")
    upstream_first_byte_timeout_seconds: Seconds = Field(
        300, description="until an answer's first content; comments don't count"
    )
    upstream_idle_timeout_seconds: Seconds = Field(120, description="silence within an answer; comments don't count")
    max_timeout_seconds: int = Field(3600, ge=1, le=86_400, description="the most that X-Timeout may ask for")
    keepalive_seconds: Seconds = Field(4, description="silence in a stream after which the client gets a comment")
    client_body_timeout_seconds: Seconds = Field(
        120, description="until a request's body has come whole; 10 at most where no model is called"
    )
    client_unread_timeout_seconds: Seconds = Field(
        60, description="in which a client takes nothing of its answer; it is let go then"
    )
    drain_delay_seconds: int = Field(
        0,
        ge=0,
        le=600,
        description="how long connections are taken once the service is told to stop, while /readyz says 503: "
        "until the balancer in front has noticed",
    )
    drain_seconds: int = Field(
        120,
        ge=1,
        le=3600,
        description="how long running answers may go on after that; then they end with an error",
    )
    sticky_keys: Literal["off", "session", "user"] = Field(
        "off", description="calls that keep to one pool key: those of a session (session_id) or of a user"
    )
    rate_limit_user_rpm: Limit = Field(0, description="model calls a minute of one user; 0 for any number")
    rate_limit_user_tpm: Limit = Field(0, description="tokens a minute of one user; 0 for any number")
    rate_limit_user_concurrent: Limit | None = Field(
        None,
        description="model calls of one user at once, in each process; "
        "by default an eighth of SERVER_THREADS; 0 for any number",
    )
    rate_limit_key_rpm: Limit = Field(0, description="model calls a minute with one client key; 0 for any number")
    rate_limit_key_tpm: Limit = Field(0, description="tokens a minute with one client key; 0 for any number")
    rate_limit_key_concurrent: Limit | None = Field(
        None,
        description="model calls with one client key at once, in each process; "
        "by default an eighth of SERVER_THREADS; 0 for any number",
    )
    rate_limit_address_rpm: Limit = Field(0, description="model calls a minute from one address; 0 for any number")
    rate_limit_address_concurrent: Limit | None = Field(
        None,
        description="model calls from one address at once, in each process; "
        "by default half of SERVER_THREADS; 0 for any number",
    )
    login_rate_limit_per_minute: Limit = Field(
        5,
        description="log-ins a minute from one address; as many registrations, refreshes, key checks; 0 for any number",
    )
    login_rate_limit_account_per_minute: Limit = Field(
        10, description="log-ins a minute to one account, from anywhere; 0 for any number"
    )
    check_username_rate_limit_per_minute: Limit = Field(
        10, description="questions a minute from one address whether a username is taken; 0 for any number"
    )
    admin_rate_limit_per_minute: Limit = Field(
        120, description="requests a minute to /admin and /operator from one address; 0 for any number"
    )
    page_rate_limit_per_minute: Limit = Field(
        30, description="a stranger's pages a minute, by address; 0 for any number"
    )
    trusted_hosts: Annotated[tuple[str, ...], BeforeValidator(_split)] = Field(
        (), description="names that pages and API answer to, .example.com for all below it; none for any"
    )
    cors_allowed_origins: Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(checks.origins)] = Field(
        (),
        description="origins whose pages may call the API, as https://app.example; `*` for any that has a token: then "
        "log-in and sign-up still need theirs to be named",
    )
    api_token_rate_limit_per_hour: Limit = Field(100, description="requests an hour of one API token; 0 for any number")
    max_client_keys_per_user: int = Field(50, ge=1, le=10_000, description="client keys that a user may have at once")
    max_api_keys_per_user: int = Field(
        10, ge=1, le=1000, description="OpenRouter keys of their own that a user may have watched at once"
    )
    sync_interval_minutes: int = Field(
        60, ge=1, le=24 * 60, description="how often such a key's usage is fetched from OpenRouter"
    )
    public_url: str = Field(
        "",
        description="this gateway's own address as browsers see it, https://host; log-ins elsewhere return to it",
    )
    github_url: str = Field("https://github.com", max_length=255, description="where people log in to GitHub")
    github_api_url: str = Field("https://api.github.com", description="GitHub's API")
    github_client_id: str = Field(
        "", max_length=255, description="of an OAuth app at GitHub; lets people log in with it"
    )
    github_client_secret: SecretStr | None = Field(None, description="secret of that app")
    linuxdo_url: str = Field("https://connect.linux.do", max_length=255, description="where people log in to Linux.do")
    linuxdo_client_id: str = Field("", max_length=255, description="of an application at Linux.do")
    linuxdo_client_secret: SecretStr | None = Field(None, description="secret of that application")
    oidc_name: str = Field(
        "oidc", pattern=r"^[a-z0-9-]{1,24}$", description="short name of the OpenID Connect provider, part of its paths"
    )
    oidc_issuer: str = Field(
        "",
        max_length=255,
        description="its issuer URL exactly as it writes it, where its discovery document is",
    )
    oidc_client_id: str = Field("", max_length=255, description="of a client at that provider")
    oidc_client_secret: SecretStr | None = Field(None, description="secret of that client")
    trusted_proxies: Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(checks.networks)] = Field(
        (), description="networks whose X-Forwarded-For is believed, separated by commas; `unix` for a Unix socket"
    )
    quota_usd: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] | None = Field(
        10,
        description="what each user may spend per QUOTA_PERIOD, unless a quota of their own is set; `none` for any",
    )
    quota_soft_usd: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] | None = Field(
        None, description="from here on a user's answers carry a warning; `none` for no warning"
    )
    quota_period: Literal["day", "week", "month", "none"] = Field(
        "month", description="the time for which QUOTA_USD is; `none` for all time"
    )
    quota_recovery: Literal["reset", "steady"] = Field(
        "reset", description="how a quota recovers: all at once when the period ends, or steadily all the time"
    )
    quota_counts_byok: Literal["off", "on"] = Field(
        "off",
        description="count in quotas what a provider bills for its own key, which OpenRouter used (BYOK); "
        "OpenRouter's fee for that counts in any case",
    )
    credit_without_database_usd: float = Field(
        0,
        ge=0,
        le=1e6,
        allow_inf_nan=False,
        description="what each user may spend in a process that started without its database; 0: calls wait for it",
    )
    log_retention_days: int = Field(
        90, ge=0, le=36_500, description="how long the request log keeps a call; 0 for ever. Statistics stay"
    )
    audit_log_days: int = Field(
        0, ge=0, le=36_500, description="how long the audit log keeps who did what, from which address; 0 for ever"
    )
    hourly_sums_days: int = Field(
        90,
        ge=32,
        le=36_500,
        description="how long sums by hour are kept; never for less time than LOG_RETENTION_DAYS",
    )
    daily_sums_days: int = Field(
        1095, ge=0, le=36_500, description="how long sums by day are kept, which statistics are made of; 0 for ever"
    )
    max_body_bytes: int = Field(48 * 1024 * 1024, ge=1024, description="largest request body")
    body_budget_bytes: int = Field(
        128 * 1024 * 1024,
        ge=2048,
        description="memory of each process for the bodies of calls in flight; one of them may have half of it",
    )

    # In this order for each field: the first complaint is the one that is reported.
    _is_strong = check("secret_key", "encryption_key", "admin_token", "metrics_token")(checks.strong_secret)
    _are_strong = check("accepted_secret_keys")(checks.strong_secrets)
    _is_fernet = check("encryption_key")(checks.fernet_keys)
    _is_there = check("secret_key", "encryption_key")(rules.required_in_production)
    _is_unguessable = check("secret_key", "admin_token", "metrics_token")(rules.unguessable_in_production)
    _no_debug = check("flask_debug")(rules.off_in_production)
    _db_password = check("db_password")(rules.database_password)
    _has_authority = check("db_ssl_mode")(rules.has_authority)
    _database_url = check("database_url")(rules.database_url)
    _url = check("app_hostname", "openrouter_api_url")(rules.url)
    _sign_on_url = check("public_url", "github_url", "github_api_url", "linuxdo_url", "oidc_issuer")(rules.sign_on_url)
    _free_name = check("oidc_name")(checks.provider_name)
    _has_callback = check("github_client_id", "linuxdo_client_id", "oidc_client_id")(rules.has_callback)
    _has_id = check("github_client_secret", "linuxdo_client_secret", "oidc_client_secret")(rules.goes_with_id)
    _is_key = check("openrouter_provision_key", "openrouter_api_keys")(checks.openrouter_keys)
    _is_bounded = check("quota_usd")(rules.bounded_if_open)
    _soft = check("quota_soft_usd")(rules.below_the_quota)
    _steady = check("quota_recovery")(rules.steady_recovery)
    _renewal = check("key_rotation_interval_hours")(rules.renewed_before_expiry)

    @property
    def production(self) -> bool:
        """True where real people are served."""
        return self.app_env == "production"

    @property
    def registration_mode(self) -> str:
        """Who may sign up: closed, invite, approval or open."""
        return self.registration if self.registration != "auto" else "invite" if self.production else "open"

    @property
    def user_share(self) -> int:
        """Calls at once of one user, and of one client key, unless it is set."""
        return max(4, self.server_threads // 8)

    @property
    def address_share(self) -> int:
        """Calls at once from one address, unless it is set."""
        return max(4, self.server_threads // 2)

    @property
    def whole_drain_seconds(self) -> int:
        """From the word to stop until running answers are ended."""
        return self.drain_delay_seconds + self.drain_seconds

    @property
    def effective_log_level(self) -> str:
        """LOG_LEVEL, or DEBUG with FLASK_DEBUG."""
        return "DEBUG" if self.flask_debug else self.log_level

    @property
    def shows_api_docs(self) -> bool:
        """Whether anybody may read how the API works, here."""
        return self.api_docs == "on" or (self.api_docs == "auto" and not self.production)

    @property
    def listen_host(self) -> str:
        """The address to listen on: the loopback unless this is production or HOST says otherwise."""
        return self.host or ("0.0.0.0" if self.production else "127.0.0.1")  # noqa: S104 - inside a container

    @property
    def signing_keys(self) -> list[str]:
        """Keys of access tokens: the first signs, all are accepted."""
        return [secret.get_secret_value() for secret in (self.secret_key, *self.accepted_secret_keys)]

    @property
    def encryption_keys(self) -> list[str]:
        """Fernet keys, newest first."""
        return [key for key in re.split(r"[\s,]+", self.encryption_key.get_secret_value()) if key]

    def secret_values(self) -> list[str]:
        """Every secret text in use, for the log's redaction."""
        single = [self.secret_key, self.admin_token, self.db_password, self.openrouter_provision_key]
        single += [self.metrics_token, self.github_client_secret, self.linuxdo_client_secret, self.oidc_client_secret]
        addresses = self.database_url, self.redis_url, self.outbound_proxy
        urls = [urlsplit(u.get_secret_value()).password or "" for u in addresses if u]
        texts = [s.get_secret_value() for s in (*single, *self.accepted_secret_keys, *self.openrouter_api_keys) if s]
        listed = json.loads(self.upstreams.get_secret_value()) if self.upstreams else []
        keys = [key for item in listed if isinstance(key := item.get("api_key"), str)]
        found = {*texts, *keys, *self.encryption_keys, *urls, *map(unquote, urls)}
        return sorted(text for text in found if len(text) >= 8)


SECRET_NAMES = {name.upper() for name, field in Config.model_fields.items() if "SecretStr" in str(field.annotation)}
