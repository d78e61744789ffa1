"""Every route of the API but model calls, one file per family of URLs: this is their table of contents."""

from __future__ import annotations

from flask import Flask

from web import http
from web.api import (
    admin_alerts,
    admin_aliases,
    admin_audit,
    admin_check,
    admin_client_keys,
    admin_invitations,
    admin_model_rules,
    admin_pool,
    admin_quotas,
    admin_settings,
    admin_teams,
    admin_tokens,
    admin_upstreams,
    admin_usage,
    admin_users,
    auth,
    catalogue,
    client_keys,
    connect,
    favourites,
    health,
    latency,
    metrics,
    models,
    openrouter,
    own_data,
    passkeys,
    password,
    plugins,
    profile,
    quotas,
    recovery,
    second_factors,
    sessions,
    shares,
    sign_on,
    sign_on_names,
    step_up,
    teams,
    tokens,
    upstreams,
    usage,
    videos,
    watched_keys,
)


def register_api(app: Flask) -> None:
    """Add every route of the API and the error handlers to the application."""
    http.register(app)
    app.register_blueprint(auth.routes)
    app.register_blueprint(password.routes)
    app.register_blueprint(sessions.routes)
    app.register_blueprint(recovery.routes)
    app.register_blueprint(second_factors.routes)
    app.register_blueprint(passkeys.routes)
    app.register_blueprint(step_up.routes)
    app.register_blueprint(profile.routes)
    app.register_blueprint(own_data.routes)
    app.register_blueprint(sign_on.routes)
    app.register_blueprint(sign_on_names.routes)
    app.register_blueprint(health.routes)
    app.register_blueprint(metrics.routes)
    app.register_blueprint(quotas.routes)
    app.register_blueprint(teams.routes)
    app.register_blueprint(admin_pool.routes)
    app.register_blueprint(admin_usage.routes)
    app.register_blueprint(usage.routes)
    app.register_blueprint(shares.routes)
    app.register_blueprint(latency.routes)
    app.register_blueprint(admin_quotas.routes)
    app.register_blueprint(admin_check.routes)
    app.register_blueprint(admin_settings.routes)
    app.register_blueprint(admin_alerts.routes)
    app.register_blueprint(admin_upstreams.routes)
    app.register_blueprint(admin_aliases.routes)
    app.register_blueprint(admin_model_rules.routes)
    app.register_blueprint(admin_users.routes)
    app.register_blueprint(admin_invitations.routes)
    app.register_blueprint(admin_teams.routes)
    app.register_blueprint(admin_tokens.routes)
    app.register_blueprint(admin_audit.routes)
    app.register_blueprint(upstreams.routes)
    app.register_blueprint(connect.routes)
    app.register_blueprint(openrouter.routes)
    app.register_blueprint(videos.routes)
    app.register_blueprint(models.routes)
    app.register_blueprint(catalogue.routes)
    app.register_blueprint(favourites.routes)
    app.register_blueprint(client_keys.routes)
    app.register_blueprint(tokens.routes)
    app.register_blueprint(watched_keys.routes)
    app.register_blueprint(plugins.routes)
    app.register_blueprint(admin_client_keys.routes)
