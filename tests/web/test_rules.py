"""Rules that compile what builds addresses when somebody builds one."""

from __future__ import annotations

from flask import Flask

from web.rules import Rule


def test_addresses_are_built_as_by_other_rules():
    made = []
    for kind in (Flask.url_rule_class, Rule):
        app = Flask("app")
        app.url_rule_class = kind
        app.add_url_rule("/users/<int:user_id>", "user", lambda user_id: f"{user_id}")
        assert app.test_client().get("/users/3").text == "3"
        with app.test_request_context():
            made.append([app.url_for("user", user_id=3), app.url_for("user", user_id=4, page="a b", _anchor="top")])
    assert made[0] == made[1] == ["/users/3", "/users/4?page=a+b#top"]
