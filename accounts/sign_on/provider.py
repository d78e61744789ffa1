"""What single sign-on asks of a provider, and what it is told, whichever the provider.

Apart from accounts/sign_on/providers.py, whose libraries a gateway without providers need not load.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from foundation.errors import UpstreamFailed


class ProviderFailed(UpstreamFailed):
    """The provider refused, did not answer, or said something that proves nothing."""

    def __init__(self, title: str) -> None:
        super().__init__(f"{title} did not confirm who you are; try again")


@dataclass(frozen=True)
class ProviderProfile:
    """Somebody at a provider. subject: the provider's own lasting id, never a name or an e-mail address.

    issuer: the provider's address: at another one, behind the same name, the same subject is somebody else.
    display_name: at most 100 printable characters. avatar_url: https, for browsers; nothing here ever fetches it.
    trust_level: 0 to 4, None where the provider has no such thing.
    """

    subject: str
    display_name: str | None = None
    avatar_url: str | None = None
    is_active: bool = True
    is_silenced: bool = False
    trust_level: int | None = None
    issuer: str = ""


@dataclass(frozen=True)
class SignOnAttempt:
    """What one log-in is bound to. callback: our own address, which the provider compares with the registered one."""

    callback: str
    verifier: str
    nonce: str


class IdentityProvider(Protocol):
    """Where people can prove who they are."""

    @property
    def title(self) -> str:
        """Its name for people."""

    def authorize_url(self, attempt: SignOnAttempt, state: str) -> str:
        """Where the browser goes. Raises ProviderFailed."""

    def profile(self, attempt: SignOnAttempt, code: str) -> ProviderProfile:
        """Who came back with this code. Raises ProviderFailed."""
