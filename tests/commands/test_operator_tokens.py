"""Operator tokens by command: made, listed without their text, revoked, and written down."""

from __future__ import annotations

from tests.support.operator_commands import lines, refusal


def test_a_token_is_made_listed_and_revoked(command, services):
    [made] = lines(command("operator-tokens", "create", "report", "--days", 2))
    assert services.operator_tokens.live.find(made["token"]).actor == "token/report"
    [other] = lines(command("operator-tokens", "create", "deploy", "--scope", "everything"))
    listed = lines(command("operator-tokens", "list"))
    assert [(one["name"], one["scope"], one["state"]) for one in listed] == [
        ("deploy", "everything", "active"),
        ("report", "read", "active"),
    ]
    assert not any("token" in one for one in listed)
    [gone] = lines(command("operator-tokens", "revoke", made["id"]))
    assert gone["state"] == "revoked"
    assert services.operator_tokens.live.find(made["token"]) is None
    assert services.operator_tokens.live.find(other["token"])
    found = [(entry.actor, entry.action, entry.subject) for entry in services.audit.page(1, 10)[0]]
    assert found == [
        ("cli", "operator_token_revoked", "token/report"),
        ("cli", "operator_token_made", "token/deploy"),
        ("cli", "operator_token_made", "token/report"),
    ]


def test_what_makes_no_sense_is_refused(command):
    assert "name must be" in refusal(command("operator-tokens", "create", "A b"))
    assert refusal(command("operator-tokens", "revoke", 99)) == "Error: There is no operator token 99\n"
    for words in (["--scope", "root"], ["--days", 0], ["--days", 366]):
        assert command("operator-tokens", "create", "x", *words).exit_code == 2
