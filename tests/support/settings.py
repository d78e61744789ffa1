"""Settings as an environment has them, and what is said against them."""

from __future__ import annotations

from config import sources

STRONG = "q8Zr2mVtXw5LkYp0NsHd7BfJc3GuEa9RiToQ4lKx"
FERNET = "b2xkLWZhc2hpb25lZC1idXQtMzItYnl0ZXMtbG9uZyE="
OTHER_FERNET = "N3NYZl9wTGs2UTJ3RTh0WTR1STBvUDFhUzNkRjVnSDc="
OPENROUTER_KEY = "sk-or-v1-" + "0123456789abcdef" * 4
PRODUCTION = {"APP_ENV": "production", "SECRET_KEY": STRONG, "ENCRYPTION_KEY": FERNET}
CLIENT_SECRETS = ["GITHUB_CLIENT_SECRET", "LINUXDO_CLIENT_SECRET", "OIDC_CLIENT_SECRET"]
SIGN_ON = {
    "PUBLIC_URL": "https://gateway.test",
    "OIDC_ISSUER": "https://login.test/realm/",
    "GITHUB_CLIENT_ID": "gh-1",
    "LINUXDO_CLIENT_ID": "ld-1",
    "OIDC_CLIENT_ID": "oidc-1",
} | dict.fromkeys(CLIENT_SECRETS, "kZ4-pw9!")


def faults(**values: object) -> list[str]:
    return sources.problems({name: str(value) for name, value in values.items()})


def fault(**values: object) -> str:
    """The only fault of these settings."""
    found = faults(**values)
    assert len(found) == 1, found
    return found[0]
