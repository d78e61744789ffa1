"""The OpenAPI document over HTTP, and two readers of it: Swagger UI, to try requests out, and Redoc, to read.

Everything comes from this machine. Off in production unless API_DOCS is on.
"""

from __future__ import annotations

import secrets
from functools import cache

import orjson
from flask import Blueprint, Flask, Response, current_app

from config.settings import ROOT
from services import Services
from web.openapi import document as openapi
from web.operation import Who, operation

routes = Blueprint("documentation", __name__, url_prefix="/api")

# By the names that pages ask for. They hold their version, so that browsers may keep them.
ASSETS = {
    "swagger-ui-5.35.0.css": ("web/static/vendor/swagger-ui-5.35.0.css", "text/css"),
    "swagger-ui-5.35.0.bundle.js": ("web/static/vendor/swagger-ui-5.35.0.bundle.js", "text/javascript"),
    "redoc-3.0.1.standalone.js": ("web/static/vendor/redoc-3.0.1.standalone.js", "text/javascript"),
    "api-docs.js": ("web/static/api-docs.js", "text/javascript"),
}
FOR_A_YEAR, FOR_AN_HOUR = "public, max-age=31536000, immutable", "public, max-age=3600"
HEAD = '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>API of the OpenRouter Proxy</title>\n'
HEAD += '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
SWAGGER_UI = f"""{HEAD}<link rel="stylesheet" href="docs/assets/swagger-ui-5.35.0.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/assets/swagger-ui-5.35.0.bundle.js"></script>
<script src="docs/assets/api-docs.js"></script>
</body>
</html>
"""
# Redoc makes its styles at run time and marks them with the page's nonce.
REDOC = f"""{HEAD}<meta property="csp-nonce" content="NONCE">
</head>
<body>
<redoc spec-url="openapi.json" disable-telemetry="true"></redoc>
<script type="module" src="docs/assets/redoc-3.0.1.standalone.js"></script>
</body>
</html>
"""
# Nothing from elsewhere, and no connection to elsewhere: Redoc would report its use to its makers.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-NONCE'; img-src 'self' data:; "
    "font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@routes.get("/openapi.json")
@operation("This document", Who.ANYBODY, answers={200: ("application/json",)})
def document() -> Response:
    """OpenAPI 3.1."""
    return Response(_document(), mimetype="application/json")


@routes.get("/docs")
@operation("Swagger UI", Who.ANYBODY, answers={200: ("text/html",)})
def swagger_ui() -> Response:
    """Read this document in a browser, and try requests out."""
    return _page(SWAGGER_UI)


@routes.get("/redoc")
@operation("Redoc", Who.ANYBODY, answers={200: ("text/html",)})
def redoc() -> Response:
    """Read this document in a browser."""
    return _page(REDOC)


@routes.get(f"/docs/assets/<any({', '.join(map(repr, ASSETS))}):name>")
@operation("Their scripts and styles", Who.ANYBODY, answers={200: ("text/javascript", "text/css")})
def asset(name: str) -> Response:
    """What the two pages consist of."""
    path, kind = ASSETS[name]
    keep = FOR_A_YEAR if "vendor" in path else FOR_AN_HOUR
    return Response((ROOT / path).read_bytes(), mimetype=kind, headers={"Cache-Control": keep})


def _page(html: str) -> Response:
    nonce = secrets.token_urlsafe(16)
    headers = {"Content-Security-Policy": POLICY.replace("NONCE", nonce), "X-Frame-Options": "DENY"}
    return Response(html.replace("NONCE", nonce), mimetype="text/html", headers=headers)


def register(app: Flask) -> None:
    """Add these pages to the application, if they are switched on; after all other routes."""
    services: Services = app.extensions["services"]
    if services.config.shows_api_docs:
        app.register_blueprint(routes)


@cache
def _document() -> bytes:
    return orjson.dumps(openapi.document(current_app))
