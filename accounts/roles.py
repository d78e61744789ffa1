"""What each role may do where operators work: the one table that the API and the pages go by.

A role that is not in it may do nothing there. A route names the right that it takes; one that names none to those who
only read takes the right to change, so that what is forgotten stays shut.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from accounts.users import UserRole


class Right(StrEnum):
    """read: see all that operators see, secrets aside. change: all that operators do."""

    READ = "read"
    CHANGE = "change"


RIGHTS: Mapping[UserRole, frozenset[Right]] = {
    UserRole.AUDITOR: frozenset({Right.READ}),
    UserRole.ADMIN: frozenset({Right.READ, Right.CHANGE}),
}
NONE: frozenset[Right] = frozenset()


def rights_of(role: UserRole | None) -> frozenset[Right]:
    """What this role may do. role: None for nobody's."""
    return RIGHTS.get(role, NONE) if role else NONE
