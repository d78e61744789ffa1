"""What single sign-on asks of a provider, and what it is told, whichever the provider.

Apart from accounts/sign_on/providers.py, whose libraries a gateway without providers need not load.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from foundation.errors import Forbidden, UpstreamFailed


class ProviderFailed(UpstreamFailed):
    """The provider refused, did not answer, or said something that proves nothing."""

    def __init__(self, title: str) -> None:
        super().__init__(f"{title} did not confirm who you are; try again")


@dataclass(frozen=True)
class ProviderProfile:
    """Somebody at a provider. subject: the provider's own lasting id, never a name or an e-mail address.

    issuer: the provider's address: at another one, behind the same name, the same subject is somebody else.
    display_name: at most 100 printable characters. avatar_url: https, for browsers; nothing here ever fetches it.
    trust_level: 0 to 4, None where the provider has no such thing. email_domain: of an address that the provider has
    verified, in lower case; groups: at GitHub, those of the wanted organisations that somebody is an active member of.
    """

    subject: str
    display_name: str | None = None
    avatar_url: str | None = None
    is_active: bool = True
    is_silenced: bool = False
    trust_level: int | None = None
    email_domain: str | None = None
    groups: frozenset[str] = frozenset()
    issuer: str = ""


class NotAllowedThere(Forbidden):
    """The account at the provider is none that the operator lets in."""

    type = "not_allowed_at_provider"


@dataclass(frozen=True)
class SignOnRule:
    """What the operator asks of a provider's people, at each log-in. What a provider does not say counts as the worse.

    domains: of e-mail addresses that the provider has verified, in lower case. groups: one of which somebody has to be
    in; at GitHub, organisations. Empty: anybody.
    """

    domains: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    min_trust_level: int = 0

    def check(self, title: str, profile: ProviderProfile) -> None:
        """Refuse who is not let in, without a word about who is. title: the provider's. Raises NotAllowedThere."""
        if self.domains and profile.email_domain not in self.domains:
            lacking = "has no verified e-mail address of a domain that is let in"
        elif self.groups and not self.groups & profile.groups:
            lacking = "is in no group that is let in"
        elif (profile.trust_level or 0) < self.min_trust_level:
            lacking = f"has a trust level below {self.min_trust_level}"
        else:
            return
        raise NotAllowedThere(f"Your account at {title} {lacking} here")


ANYBODY = SignOnRule()


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

    @property
    def rule(self) -> SignOnRule:
        """Whom of its people we let in."""

    def authorize_url(self, attempt: SignOnAttempt, state: str) -> str:
        """Where the browser goes. Raises ProviderFailed."""

    def profile(self, attempt: SignOnAttempt, code: str) -> ProviderProfile:
        """Who came back with this code. Raises ProviderFailed."""
