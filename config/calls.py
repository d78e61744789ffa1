"""Settings of OpenRouter, its keys, and the calls that go through them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr

from config import checks
from config.kinds import Limit, Seconds, split


class CallSettings(BaseModel):
    """OpenRouter, its keys, and calls."""

    app_hostname: str = Field("https://myapp.com", description="sent to OpenRouter as HTTP-Referer")
    app_title: Annotated[str, AfterValidator(checks.header_text)] = Field(
        "MyApp", max_length=200, description="sent to OpenRouter as X-Title and X-OpenRouter-Title"
    )
    openrouter_api_url: str = Field("https://openrouter.ai/api/v1", description="OpenRouter's API")
    openrouter_provision_key: SecretStr | None = Field(
        None, description="OpenRouter management key; only key_rotation.py needs it, give it to nothing else"
    )
    openrouter_api_keys: Annotated[tuple[SecretStr, ...], BeforeValidator(split)] = Field(
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
    response_cache_seconds: int = Field(
        300, ge=0, le=86_400, description="how long answers are kept for client keys with a response cache; 0: for none"
    )
    response_cache_bytes: int = Field(
        64 * 1024 * 1024, ge=2048, description="memory of each process for the answers that are kept"
    )
    response_cache_user_bytes: int = Field(
        8 * 1024 * 1024, ge=2048, description="the most of it that one user's answers may take"
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
