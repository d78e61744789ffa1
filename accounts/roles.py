"""What each role, and each operator token, may do where operators work: the table that the API and the pages go by.

A role that is not in it may do nothing there. A route names the right that it takes; one that names none to those who
only read takes the right to change, so that what is forgotten stays shut.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from accounts.users import UserRole


class Right(StrEnum):
    """read: see all that operators see, secrets aside. change: what operators do. appoint: say who may do all this.

    A token appoints nobody, or what it has made would outlive it.
    """

    READ = "read"
    CHANGE = "change"
    APPOINT = "appoint"


class TokenScope(StrEnum):
    """What an operator token is for."""

    READ = "read"
    EVERYTHING = "everything"


RIGHTS: Mapping[UserRole, frozenset[Right]] = {
    UserRole.AUDITOR: frozenset({Right.READ}),
    UserRole.ADMIN: frozenset(Right),
}
SCOPES: Mapping[TokenScope, frozenset[Right]] = {
    TokenScope.READ: frozenset({Right.READ}),
    TokenScope.EVERYTHING: frozenset({Right.READ, Right.CHANGE}),
}
NONE: frozenset[Right] = frozenset()


def rights_of(role: UserRole | None) -> frozenset[Right]:
    """What this role may do. role: None for nobody's."""
    return RIGHTS.get(role, NONE) if role else NONE
