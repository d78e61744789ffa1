"""Everything but model calls that speaks HTTP: one file per family of URLs. This is their table of contents."""

from __future__ import annotations

from flask import Flask

from routes import (
    admin_api,
    admin_audit_api,
    admin_check_api,
    admin_key_api,
    admin_quota_api,
    admin_upstream_api,
    admin_usage_api,
    admin_user_api,
    auth_api,
    client_key_api,
    connect_api,
    health_api,
    http,
    openrouter_api,
    password_api,
    personal_key_api,
    plugin_api,
    profile_api,
    quota_api,
    session_api,
    sso_api,
    token_api,
    upstream_api,
    usage_api,
)


def register_all(app: Flask) -> None:
    """Add every route and the error handlers to the application."""
    http.register(app)
    app.register_blueprint(auth_api.routes)
    app.register_blueprint(password_api.routes)
    app.register_blueprint(session_api.routes)
    app.register_blueprint(profile_api.routes)
    app.register_blueprint(sso_api.routes)
    app.register_blueprint(health_api.routes)
    app.register_blueprint(quota_api.routes)
    app.register_blueprint(admin_api.routes)
    app.register_blueprint(admin_usage_api.routes)
    app.register_blueprint(usage_api.routes)
    app.register_blueprint(admin_quota_api.routes)
    app.register_blueprint(admin_check_api.routes)
    app.register_blueprint(admin_upstream_api.routes)
    app.register_blueprint(admin_user_api.routes)
    app.register_blueprint(admin_audit_api.routes)
    app.register_blueprint(upstream_api.routes)
    app.register_blueprint(connect_api.routes)
    app.register_blueprint(openrouter_api.routes)
    app.register_blueprint(client_key_api.routes)
    app.register_blueprint(token_api.routes)
    app.register_blueprint(personal_key_api.routes)
    app.register_blueprint(plugin_api.routes)
    app.register_blueprint(admin_key_api.routes)
