"""Logging in through somebody else: to the provider, back with a code, and in with the tokens of a session.

    browser                     gateway                               provider
    GET  /sso/github        →   notes state, verifier, nonce      →   asks whoever sits there
    GET  /sso/github/callback ← ..................................... sends the browser back with state and code
                                checks the state, exchanges the code  says who it is
    page#sso=CODE           ←   notes a code of our own
    POST /sso/token CODE    →   opens the session, answers with its tokens: they never stand in a URL

Every step is bound to a cookie of the browser that began, and each text works once (accounts/one_time_states.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from accounts.one_time_states import OneTimeState, OneTimeStates
from accounts.registration import Registration
from accounts.sessions import hold
from accounts.sign_on.identities import Entered, ProviderIdentities
from accounts.sign_on.provider import IdentityProvider, ProviderProfile, SignOnAttempt
from accounts.step_up import Act, StepUp
from accounts.users import Users
from foundation.crypto import new_token
from foundation.errors import BadRequest, Forbidden, NotFound

CODE_LIFE = timedelta(minutes=5)  # time to type a second factor
SESSION = "session"  # in the place of a provider: of a code that opens a session


class InactiveThere(Forbidden):
    """The provider says that the account there is not active."""

    type = "inactive_at_provider"


@dataclass(frozen=True)
class BegunSignOn:
    """A log-in that is under way. url: where the browser goes. browser: what its cookie holds meanwhile."""

    url: str
    browser: str


class SingleSignOn:
    """The flow, whichever the provider."""

    def __init__(
        self,
        providers: Mapping[str, IdentityProvider],
        public_url: str,
        states: OneTimeStates,
        identities: ProviderIdentities,
        users: Users,
        step_up: StepUp,
        registration: Registration,
    ) -> None:
        """providers: by the name that stands in their paths. public_url: our own address, without `/` at its end."""
        self.providers = providers
        self.identities = identities
        self._public_url = public_url
        self._states = states
        self._users = users
        self._step_up = step_up
        self._registration = registration

    def provider(self, name: str) -> IdentityProvider:
        """The provider of this name. Raises NotFound."""
        found = self.providers.get(name)
        if found is None:
            known = ", ".join(self.providers) or "none: its operator has configured no provider"
            raise NotFound(f"Logging in through that is not possible here; providers: {known}")
        return found

    def provider_name(self, wanted: str) -> str:
        """The provider that is meant: the only one, if none is named. Raises BadRequest."""
        if not wanted and len(self.providers) > 1:
            raise BadRequest(f"provider must be one of {', '.join(self.providers)}")
        return wanted or next(iter(self.providers), "")

    def provider_of(self, state: str) -> str:
        """The name of the provider that somebody comes back from with this state. Raises BadRequest."""
        return self._states.provider_of(state)

    def begin(self, name: str, next_path: str, invitation: str = "") -> BegunSignOn:
        """Begin a log-in. next_path: where the browser ends up. Raises NotFound, ProviderFailed.

        invitation: the text of one, for somebody who has no account yet.
        """
        return self._begin(name, None, None, next_path, invitation)

    def begin_link(self, name: str, user_id: int, session_id: str, next_path: str) -> BegunSignOn:
        """Begin to link an account, from its session. Raises NotFound, ProviderFailed; SessionNotFresh."""
        self._step_up.check(user_id, session_id, Act.LINK_LOG_IN)
        return self._begin(name, user_id, session_id, next_path)

    def _begin(
        self, name: str, user_id: int | None, session_id: str | None, next_path: str, invitation: str = ""
    ) -> BegunSignOn:
        provider, browser = self.provider(name), new_token()
        secrets = {"verifier": new_token(), "nonce": new_token(), "invitation": invitation}
        state = self._states.begin(name, browser, OneTimeState(secrets, user_id, session_id, next_path))
        return BegunSignOn(provider.authorize_url(self._attempt(name, secrets), state), browser)

    def consume(self, name: str, browser: str, state: str) -> OneTimeState:
        """What was noted at the begin, once. Raises NotFound, BadRequest."""
        self.provider(name)
        return self._states.consume(name, browser, state)

    def log_in(self, name: str, noted: OneTimeState, provider_code: str, browser: str) -> tuple[str, Entered]:
        """Find or make the account of whoever came back with the provider's code.

        Returns a code of ours that opens a session within five minutes, and the account. Raises ProviderFailed,
        InactiveThere, NotAllowedThere; for somebody new whatever Registration.admit raises.
        """
        profile = self._profile(name, noted, provider_code)
        entered = self.identities.enter(name, profile, lambda: self._registration.admit(noted.secrets["invitation"]))
        if entered.is_silenced or entered.is_new:
            self._users.reload()  # here at once
        noted = OneTimeState({"method": name}, entered.user_id, None, None)
        return self._states.begin(SESSION, browser, noted, CODE_LIFE), entered

    def link(self, name: str, noted: OneTimeState, provider_code: str) -> int:
        """Link whoever came back to the account that began; returns its id.

        Raises ProviderFailed, InactiveThere, NotAllowedThere, Conflict; Unauthorized if the session has ended
        meanwhile.
        """
        user_id, session_id = noted.user_id, noted.session_id
        assert user_id is not None  # noqa: S101 - as begin_link has noted it
        assert session_id is not None  # noqa: S101
        profile = self._profile(name, noted, provider_code)
        self.identities.link(user_id, name, profile, lambda tx: hold(tx, session_id, user_id))
        return user_id

    def redeem(self, browser: str, code: str, check: Callable[[int], object]) -> tuple[int, str]:
        """Whose session our code opens, and the name of the provider. Raises BadRequest.

        check: asked first with the account's id; if it raises, the code is not used up.
        """
        check(self._states.user_of(SESSION, browser, code))
        noted = self._states.consume(SESSION, browser, code)
        assert noted.user_id is not None  # noqa: S101 - as log_in has noted it
        return noted.user_id, noted.secrets["method"]

    def _profile(self, name: str, noted: OneTimeState, provider_code: str) -> ProviderProfile:
        provider = self.provider(name)
        profile = provider.profile(self._attempt(name, noted.secrets), provider_code)
        if not profile.is_active:
            raise InactiveThere(f"Your account at {provider.title} is not active")
        provider.rule.check(provider.title, profile)
        return profile

    def _attempt(self, name: str, secrets: Mapping[str, str]) -> SignOnAttempt:
        callback = f"{self._public_url}/api/auth/sso/{name}/callback"
        return SignOnAttempt(callback, secrets["verifier"], secrets["nonce"])
