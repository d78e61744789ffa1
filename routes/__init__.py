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
    connect_pages,
    dashboard_pages,
    favourite_api,
    health_api,
    http,
    key_pages,
    model_pages,
    openrouter_api,
    operator_live_pages,
    operator_pages,
    operator_pool_pages,
    operator_quota_pages,
    operator_system_pages,
    operator_upstream_pages,
    operator_user_pages,
    pages,
    password_api,
    personal_key_api,
    playground_pages,
    plugin_api,
    profile_api,
    profile_pages,
    quota_api,
    session_api,
    session_pages,
    sso_api,
    static_files,
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
    app.register_blueprint(favourite_api.routes)
    app.register_blueprint(client_key_api.routes)
    app.register_blueprint(token_api.routes)
    app.register_blueprint(personal_key_api.routes)
    app.register_blueprint(plugin_api.routes)
    app.register_blueprint(admin_key_api.routes)


def register_pages(app: Flask) -> None:
    """Add the pages that people see in a browser, and what they consist of. The API's document has none of them."""
    pages.register(app)
    app.register_blueprint(static_files.routes)
    app.register_blueprint(session_pages.routes)
    app.register_blueprint(dashboard_pages.routes)
    app.register_blueprint(key_pages.routes)
    app.register_blueprint(operator_pages.routes)
    app.register_blueprint(operator_pool_pages.routes)
    app.register_blueprint(operator_user_pages.routes)
    app.register_blueprint(operator_quota_pages.routes)
    app.register_blueprint(operator_system_pages.routes)
    app.register_blueprint(operator_upstream_pages.routes)
    app.register_blueprint(operator_live_pages.routes)
    app.register_blueprint(profile_pages.routes)
    app.register_blueprint(connect_pages.routes)
    app.register_blueprint(model_pages.routes)
    app.register_blueprint(playground_pages.routes)
