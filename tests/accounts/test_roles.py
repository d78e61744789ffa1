"""What each role may do is one table; no right is given by forgetting."""

from __future__ import annotations

from accounts.roles import RIGHTS, SCOPES, Right, TokenScope, rights_of
from accounts.users import MORE_THAN_USERS, UserRole


def test_an_auditor_reads_an_operator_changes_too_and_others_do_neither():
    assert rights_of(UserRole.AUDITOR) == {Right.READ}
    assert rights_of(UserRole.ADMIN) == set(Right)
    assert rights_of(UserRole.USER) == rights_of(UserRole.SERVICE) == rights_of(None) == frozenset()


def test_a_token_appoints_nobody_whatever_its_scope():
    assert SCOPES.keys() == set(TokenScope)
    assert SCOPES[TokenScope.READ] == {Right.READ}
    assert SCOPES[TokenScope.EVERYTHING] == {Right.READ, Right.CHANGE}


def test_every_role_with_a_right_is_known_in_memory():
    assert set(MORE_THAN_USERS) == set(RIGHTS)
