"""The pages that people see in a browser, and what they consist of: this is their table of contents."""

from __future__ import annotations

from flask import Flask

from web.pages import (
    connect,
    dashboard,
    first_steps,
    keys,
    models,
    operator,
    operator_alerts,
    operator_aliases,
    operator_invitations,
    operator_latency,
    operator_live,
    operator_model_rules,
    operator_pool,
    operator_quotas,
    operator_system,
    operator_teams,
    operator_tokens,
    operator_upstreams,
    operator_users,
    playground,
    profile,
    requests,
    sessions,
    shares,
    static_files,
    team,
    views,
)


def register_pages(app: Flask) -> None:
    """Add every page to the application. The API's document has none of them."""
    views.register(app)
    app.register_blueprint(static_files.routes)
    app.register_blueprint(sessions.routes)
    app.register_blueprint(dashboard.routes)
    app.register_blueprint(first_steps.routes)
    app.register_blueprint(requests.routes)
    app.register_blueprint(shares.routes)
    app.register_blueprint(keys.routes)
    app.register_blueprint(team.routes)
    app.register_blueprint(operator.routes)
    app.register_blueprint(operator_pool.routes)
    app.register_blueprint(operator_latency.routes)
    app.register_blueprint(operator_users.routes)
    app.register_blueprint(operator_invitations.routes)
    app.register_blueprint(operator_tokens.routes)
    app.register_blueprint(operator_teams.routes)
    app.register_blueprint(operator_quotas.routes)
    app.register_blueprint(operator_system.routes)
    app.register_blueprint(operator_upstreams.routes)
    app.register_blueprint(operator_aliases.routes)
    app.register_blueprint(operator_alerts.routes)
    app.register_blueprint(operator_model_rules.routes)
    app.register_blueprint(operator_live.routes)
    app.register_blueprint(profile.routes)
    app.register_blueprint(connect.routes)
    app.register_blueprint(models.routes)
    app.register_blueprint(playground.routes)
