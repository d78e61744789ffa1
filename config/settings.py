"""All settings together: what each must be like beside the others, and what follows from several.

Each is declared once in a section: name, type, default, help.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import ConfigDict
from pydantic import field_validator as check

from config import checks, rules
from config.accounts import AccountSettings
from config.alerts import AlertSettings
from config.calls import CallSettings
from config.service import ServiceSettings
from config.spending import SpendingSettings

ROOT = Path(__file__).resolve().parents[1]
# Connections that a worker keeps open between requests. Both servers count them among those that they serve, and would
# accept no new one once clients and reverse proxies keep as many as there are threads.
IDLE_CONNECTIONS = 8000
# Threads beside those for model calls: for log-ins, for all other requests, and for what is answered at once.
LANE_THREADS = 64
SPARE_THREADS = 2 * LANE_THREADS + 32
# The server ends its processes so much later than calls are ended: by then each has said its last words.
LAST_WORDS_SECONDS = 5

SECTIONS = ServiceSettings, AccountSettings, CallSettings, SpendingSettings, AlertSettings


# The fields of the last base come first: what follows APP_ENV is checked against it.
class Config(AlertSettings, SpendingSettings, CallSettings, AccountSettings, ServiceSettings):
    """The settings, checked and frozen. Field names are the variables' names in lower case."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True, validate_default=True, str_strip_whitespace=True)

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

    _webhook = check("alert_webhook_url")(rules.webhook_by_https)
    _webhook_secret = check("alert_webhook_secret")(rules.goes_with_url)
    _mail = check("alert_email_from", "smtp_host")(rules.needed_for_mail)
    _smtp_password = check("smtp_password")(rules.goes_with_user)

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
        single += [self.alert_webhook_url, self.alert_webhook_secret, self.smtp_password]
        single += [self.otel_exporter_otlp_headers]
        addresses = self.database_url, self.redis_url, self.outbound_proxy
        urls = [urlsplit(u.get_secret_value()).password or "" for u in addresses if u]
        texts = [s.get_secret_value() for s in (*single, *self.accepted_secret_keys, *self.openrouter_api_keys) if s]
        listed = json.loads(self.upstreams.get_secret_value()) if self.upstreams else []
        keys = [key for item in listed if isinstance(key := item.get("api_key"), str)]
        found = {*texts, *keys, *self.encryption_keys, *urls, *map(unquote, urls)}
        return sorted(text for text in found if len(text) >= 8)


SECRET_NAMES = {name.upper() for name, field in Config.model_fields.items() if "SecretStr" in str(field.annotation)}
