"""Settings of the service itself: its secrets, server, database, and who may connect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr

from config import checks
from config.kinds import Seconds, split


class ServiceSettings(BaseModel):
    """Server, database, network."""

    app_env: Literal["development", "production"] = Field(
        "development", description="production refuses missing or weak secrets; development generates them"
    )
    secret_key: SecretStr = Field(SecretStr(""), description="signs access tokens; at least 32 characters")
    accepted_secret_keys: Annotated[tuple[SecretStr, ...], BeforeValidator(split)] = Field(
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
    admin_addresses: Annotated[tuple[str, ...], BeforeValidator(split), AfterValidator(checks.networks)] = Field(
        (), description="networks from which operators work, separated by commas, or `unix`; none for any address"
    )
    metrics_token: SecretStr | None = Field(
        None, description="bearer token with which Prometheus reads /metrics; without it there are none"
    )
    otel_exporter_otlp_endpoint: Annotated[str, AfterValidator(checks.url)] | None = Field(
        None, description="OpenTelemetry collector to which traces of calls go, by OTLP over HTTP; without it, none do"
    )
    otel_exporter_otlp_headers: SecretStr | None = Field(
        None, description="headers sent to it, as `name=value`, separated by commas"
    )
    otel_service_name: str = Field("openrouter-proxy", min_length=1, max_length=255, description="this service there")
    otel_traces_sampler_arg: float = Field(
        1.0, ge=0, le=1, allow_inf_nan=False, description="which share of traces is sent"
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
    trusted_hosts: Annotated[tuple[str, ...], BeforeValidator(split)] = Field(
        (), description="names that pages and API answer to, .example.com for all below it; none for any"
    )
    cors_allowed_origins: Annotated[tuple[str, ...], BeforeValidator(split), AfterValidator(checks.origins)] = Field(
        (),
        description="origins whose pages may call the API, as https://app.example; `*` for any that has a token: then "
        "log-in and sign-up still need theirs to be named",
    )
    public_url: str = Field(
        "",
        description="this gateway's own address as browsers see it, https://host; log-ins elsewhere return to it",
    )
    trusted_proxies: Annotated[tuple[str, ...], BeforeValidator(split), AfterValidator(checks.networks)] = Field(
        (), description="networks whose X-Forwarded-For is believed, separated by commas; `unix` for a Unix socket"
    )
    max_body_bytes: int = Field(48 * 1024 * 1024, ge=1024, description="largest request body")
    body_budget_bytes: int = Field(
        128 * 1024 * 1024,
        ge=2048,
        description="memory of each process for the bodies of calls in flight; one of them may have half of it",
    )
