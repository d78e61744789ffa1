"""The program: create_app() wires configuration, services and routes together; `python app.py` serves.

`gunicorn app:app`, `granian app:app` and `flask --app app ...` find the application as the attribute `app`, which is
made when it is first asked for: importing this file does no work.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

from flask import Flask

import cli
import config
import logs
import routes
from crypto import SealBroken
from db import DatabaseError
from proxy_wsgi import ProxyDoor
from services import Services, build

DRAIN_SECONDS = 120  # how long running answers may take to finish once the service is told to stop


def create_app(services: Services) -> Flask:
    """The WSGI application over these services."""
    app = Flask(__name__, static_folder=None)
    app.extensions["services"] = services
    routes.register_all(app)
    cli.register(app)
    # Flask documents replacing `wsgi_app` as the place for middleware.
    app.wsgi_app = ProxyDoor(app.wsgi_app, services)  # type: ignore[method-assign]
    return app


def start() -> Services:
    """Configuration, logging, services. Prints what is wrong and exits with 1 if they can't be had."""
    try:
        settings = config.load()
        level = "DEBUG" if settings.flask_debug else settings.log_level
        logs.set_up(level, as_json=settings.production, secrets=settings.secret_values())
        return build(settings)
    except config.ConfigError as error:
        refuse(str(error))
    except SealBroken as error:
        refuse(f"Cannot start: {error}. Was it sealed with another ENCRYPTION_KEY? Nothing was written.")
    except (DatabaseError, TimeoutError) as error:
        refuse(f"Cannot start: the database does not answer ({logs.redact(str(error).splitlines()[0])})")


def refuse(message: str) -> NoReturn:
    """Say why the program can't start, and exit."""
    sys.stderr.write(f"{message}\n")
    raise SystemExit(1)


def serve() -> None:
    """Check everything that can be wrong, then listen."""
    settings = start().config
    if settings.server == "gunicorn":
        os.execv(sys.executable, [sys.executable, "-m", "gunicorn", "app:app"])  # settings: gunicorn.conf.py
    from granian import Granian
    from granian.constants import HTTPModes, Interfaces

    Granian(
        "app:app",
        address=settings.listen_host,
        port=settings.port,
        interface=Interfaces.WSGI,
        http=HTTPModes.http1,
        websockets=False,
        workers=settings.server_workers,
        blocking_threads=settings.server_threads,
        backpressure=settings.server_threads,
        backlog=4096,
        respawn_failed_workers=True,
        workers_kill_timeout=DRAIN_SECONDS,
        log_access=False,
        log_dictconfig={"version": 1, "disable_existing_loggers": False},
    ).serve()


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(name)
    globals()["app"] = create_app(start())
    return globals()["app"]


if __name__ == "__main__":
    serve()
