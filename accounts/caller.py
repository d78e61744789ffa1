"""Who sent a request, and what proved it. auth.py makes these; whoever serves the request reads them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from accounts.allow_lists import AllowLists
from accounts.api_tokens import ApiToken
from accounts.client_keys import ClientKey
from accounts.sessions import hold
from accounts.teams import Team
from db import Transaction


class Credential(StrEnum):
    """What somebody proves with who they are. The last two are made for the pages and their scripts."""

    ACCESS_TOKEN = "access token"
    CLIENT_KEY = "client key"
    API_TOKEN = "API token"
    PAGE_TOKEN = "page token"
    CALL_TOKEN = "call token"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request, as a verified credential says.

    session_id: that of a session's token, else empty. expires_at: of the credential, seconds since 1970. client_key,
    api_token: if one was used. session_token: the kind of token if neither was. team: whose member this is now.
    """

    user_id: int
    session_id: str
    expires_at: float
    client_key: ClientKey | None = None
    api_token: ApiToken | None = None
    session_token: Credential = Credential.ACCESS_TOKEN
    team: Team | None = None

    @property
    def client_key_id(self) -> int | None:
        """The id of the client key, if one was used."""
        return self.client_key.id if self.client_key else None

    @property
    def team_id(self) -> int:
        """The team that is charged for calls beside the user; 0 for none."""
        return self.team.id if self.team else 0

    @property
    def allow_lists(self) -> list[AllowLists]:
        """What calls may use: all of these hold."""
        return [lists for lists in (self.client_key, self.team) if lists]

    def hold(self, tx: Transaction) -> None:
        """For what is written by a session and outlives it. Raises Unauthorized if it has ended."""
        hold(tx, self.session_id, self.user_id)

    @property
    def credential(self) -> Credential:
        """The kind of credential that was used."""
        if self.client_key:
            return Credential.CLIENT_KEY
        return Credential.API_TOKEN if self.api_token else self.session_token
