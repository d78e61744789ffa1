"""What settings must be like beside others: each returns the value, or raises ValueError with what is accepted.

`info.data` has the settings that stand before this one and are themselves in order.
"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from pydantic import SecretStr, ValidationInfo

from config import checks
from foundation.guesses import guesses_log10

SECRET_GUESSES_LOG10 = 20.0  # of what signs or opens all: tried offline against one token
PASSWORD_GUESSES_LOG10 = 9.0  # of a database's user, which is asked over the network


def _in_production(info: ValidationInfo) -> bool:
    return bool(info.data.get("app_env") == "production")


def required_in_production(value: SecretStr, info: ValidationInfo) -> SecretStr:
    """A secret that development generates."""
    if not value.get_secret_value() and _in_production(info):
        how = "openssl rand -base64 48" if info.field_name == "secret_key" else "openssl rand -base64 32 | tr +/ -_"
        raise ValueError(f"is missing; production generates no secrets. Make one with `{how}` and keep a copy")
    return value


def unguessable_in_production(value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
    """A secret that withstands all guesses that an attacker could make without asking anybody."""
    text = value.get_secret_value() if value else ""
    if text and _in_production(info) and guesses_log10(text) < SECRET_GUESSES_LOG10:
        raise ValueError(
            "is guessable: it is made of words, names, dates or patterns; make one with `openssl rand -base64 48`"
        )
    return value


def off_in_production(value: bool, info: ValidationInfo) -> bool:
    """A switch for development."""
    if value and _in_production(info):
        raise ValueError("must not be on in production")
    return value


def database_password(value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
    """DB_PASSWORD beside DB_HOST."""
    needed = _in_production(info) and info.data.get("db_host")
    if needed and _is_weak(value.get_secret_value() if value else ""):
        raise ValueError("is missing or weak; use at least 10 characters that nobody would guess")
    return value


def _is_weak(password: str) -> bool:
    return checks.is_weak_password(password) or guesses_log10(password) < PASSWORD_GUESSES_LOG10


def has_authority(value: str, info: ValidationInfo) -> str:
    """DB_SSL_MODE beside DB_SSL_CA."""
    if value.startswith("verify") and info.data.get("db_ssl_ca", "") is None:
        raise ValueError("needs DB_SSL_CA, a file with the authorities' certificates")
    return value


def database_url(value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
    """DATABASE_URL beside DB_HOST and DB_PASSWORD."""
    if not value:
        if info.data.get("db_password") and not info.data.get("db_host"):
            raise ValueError("is missing and DB_HOST too, though DB_PASSWORD is set: the data would go to SQLite")
        return value
    if info.data.get("db_host"):
        raise ValueError("is set and DB_HOST too; give one of them")
    parts = checks.database_url(value)
    by_network = parts.scheme != "sqlite" and "unix_socket=" not in parts.query
    if by_network and _in_production(info) and _is_weak(unquote(parts.password or "")):
        raise ValueError("has no password or a weak one; use at least 10 characters that nobody would guess")
    return value


def url(value: str, info: ValidationInfo) -> str:
    """An address without `/` at the end; that of OpenRouter's API by https."""
    value = checks.url(value)
    if info.field_name == "openrouter_api_url" and not checks.is_safe_to_call(value):
        raise ValueError("must use https: keys and prompts would cross the network in clear")
    return value.rstrip("/")


def sign_on_url(value: str, info: ValidationInfo) -> str:
    """An address of log-ins, or nothing; without `/` at the end, but for an issuer, which is compared as it is."""
    if not value:
        return value
    value = checks.own_address(value) if info.field_name == "public_url" else checks.url(value)
    if _in_production(info) and urlsplit(value).scheme != "https":
        raise ValueError("must use https in production: log-ins would cross the network in clear")
    return value if info.field_name == "oidc_issuer" else value.rstrip("/")


def has_callback(value: str, info: ValidationInfo) -> str:
    """A client's id beside PUBLIC_URL, and OIDC_ISSUER."""
    if value and info.data.get("public_url") == "":
        raise ValueError("needs PUBLIC_URL too: callbacks are made from it")
    if value and info.field_name == "oidc_client_id" and info.data.get("oidc_issuer") == "":
        raise ValueError("needs OIDC_ISSUER too")
    return value


def goes_with_id(value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
    """A client's secret beside its id."""
    name = str(info.field_name).replace("secret", "id")
    has_secret = bool(value and value.get_secret_value())
    if name in info.data and has_secret != bool(info.data[name]):
        raise ValueError(f"goes with {name.upper()}: set both, or neither")
    return value


def bounded_if_open(value: float | None, info: ValidationInfo) -> float | None:
    """QUOTA_USD beside REGISTRATION."""
    is_open = info.data.get("registration") == "open" and _in_production(info)
    if value is None and is_open and not info.data.get("allow_open_without_quota"):
        raise ValueError(
            "must not be none with REGISTRATION=open: any stranger could spend all there is. "
            "If that is what you want, set ALLOW_OPEN_WITHOUT_QUOTA=true too"
        )
    return value


def below_the_quota(value: float | None, info: ValidationInfo) -> float | None:
    """QUOTA_SOFT_USD beside QUOTA_USD."""
    limit = info.data.get("quota_usd")
    if value is not None and limit is not None and value > limit:
        raise ValueError("must not be above QUOTA_USD: no call would ever get that far")
    return value


def steady_recovery(value: str, info: ValidationInfo) -> str:
    """QUOTA_RECOVERY beside QUOTA_USD and QUOTA_PERIOD."""
    if value == "steady" and (info.data.get("quota_usd") is None or info.data.get("quota_period") == "none"):
        raise ValueError("can be steady only with QUOTA_USD and a QUOTA_PERIOD other than none")
    return value


def renewed_before_expiry(value: float, info: ValidationInfo) -> float:
    """KEY_ROTATION_INTERVAL_HOURS beside KEY_LIFETIME_HOURS."""
    lifetime = info.data.get("key_lifetime_hours")
    if lifetime is not None and value + 1 > lifetime:
        raise ValueError("must be at least one hour shorter than KEY_LIFETIME_HOURS: keys would expire in use")
    return value


def webhook_by_https(value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
    """ALERT_WEBHOOK_URL beside ALLOW_PRIVATE_UPSTREAMS."""
    is_plain = value and urlsplit(value.get_secret_value()).scheme != "https"
    if is_plain and not info.data.get("allow_private_upstreams"):
        raise ValueError("must begin with https://; only the setting ALLOW_PRIVATE_UPSTREAMS lets http in")
    return value


def goes_with_url(value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
    """ALERT_WEBHOOK_SECRET beside ALERT_WEBHOOK_URL."""
    if "alert_webhook_url" in info.data and bool(value) != bool(info.data["alert_webhook_url"]):
        raise ValueError("goes with ALERT_WEBHOOK_URL: set both, or neither")
    return value


def needed_for_mail(value: str, info: ValidationInfo) -> str:
    """What e-mail can't be sent without, beside ALERT_EMAIL_TO."""
    if not value and info.data.get("alert_email_to"):
        raise ValueError("is missing, and ALERT_EMAIL_TO is set: no e-mail could be sent")
    return value


def goes_with_user(value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
    """SMTP_PASSWORD beside SMTP_USER."""
    if "smtp_user" in info.data and bool(value and value.get_secret_value()) != bool(info.data["smtp_user"]):
        raise ValueError("goes with SMTP_USER: set both, or neither")
    return value
