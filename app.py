"""The program: create_app() wires configuration, services and routes together; `python app.py` serves.

`gunicorn app:app`, `granian app:app` and `flask --app app ...` find the application as the attribute `app`, which is
made when it is first asked for: importing this file does no work.
"""

from __future__ import annotations

import gc

from foundation.signals import Listener

if __name__ == "__main__":  # before all else is loaded, which takes its time
    listener = Listener()
    gc.disable()  # until exec: what is loaded stays, and to look through it takes a fifth of the time

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from config import sources
from config.settings import IDLE_CONNECTIONS, LAST_WORDS_SECONDS, ROOT, SPARE_THREADS, Config
from foundation import logs

if TYPE_CHECKING:
    from flask import Flask, Response

    from services import Services

log = logging.getLogger("app")

# A thousand threads each keep what their allocators hold for reuse. Without granian's per-thread caches (it brings
# jemalloc) and with two arenas for Python's, a stream takes 80 kB instead of 130; and Argon2's 19 MiB go back at once.
MEMORY_SETTINGS = {
    "_RJEM_MALLOC_CONF": "tcache:false",
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(1024 * 1024),
}
# Each thread that waits for the interpreter wakes up once in this interval to ask for it. At Python's 5 ms, a short
# pause with hundreds of open streams makes so many wake that they take all of the core, and the pause lasts for
# seconds. Our threads give the interpreter up by themselves: they wait for sockets more than they compute.
SWITCH_INTERVAL_SECONDS = 0.1
CHECKED = "OPENROUTER_PROXY_CHECKED"
"""In the environment of the server that `python app.py` becomes: its process id, as this program's was."""
FLASKS_OWN = {"routes", "run", "shell"}
"""Commands of Flask's command line that work with the routes."""


def create_app(services: Services) -> Flask:
    """The WSGI application over these services."""
    from flask import Flask

    from serving.door import ProxyDoor
    from web.api.table import register_api
    from web.openapi import readers
    from web.pages.table import register_pages
    from web.rules import Rule

    app = Flask(__name__, static_folder=None, template_folder="web/templates")
    app.url_rule_class = Rule
    app.url_map.merge_slashes = False  # one path, one meaning: no redirects to where a client may have wanted to go
    if names := services.config.trusted_hosts:
        app.config["TRUSTED_HOSTS"] = [*names, "127.0.0.1", "localhost"]  # health checks ask from within
    app.extensions["services"] = services
    if services.config.public_url.startswith("https://"):
        app.after_request(_over_https_alone)
    register_api(app)
    register_pages(app)
    readers.register(app)
    # Flask documents replacing `wsgi_app` as the place for middleware.
    app.wsgi_app = ProxyDoor(app.wsgi_app, services)  # type: ignore[method-assign]
    return app


def _over_https_alone(response: Response) -> Response:
    response.headers["Strict-Transport-Security"] = "max-age=31536000"
    return response


def create_command_line(services: Services) -> Flask:
    """The application that operator commands run in: without routes, which take longer to load than most commands."""
    from flask import Flask

    from commands import groups

    app = Flask(__name__, static_folder=None)
    app.extensions["services"] = services
    groups.register(app)
    return app


def configure() -> Config:
    """The configuration, with which logging is set up. Prints what is wrong with it and exits with 1."""
    try:
        settings = sources.load()
    except sources.ConfigError as error:
        refuse(str(error))
    logs.set_up(settings.effective_log_level, settings.production, settings.secret_values())
    return settings


def start() -> Services:
    """Configuration, logging, services. Prints what is wrong and exits with 1 if they can't be had."""
    settings = configure()
    # Loaded by who works with them: a process that only checks begins in half of the time.
    from services import build
    from start_up import CannotStart

    try:
        return build(settings)
    except CannotStart as error:
        refuse(f"Cannot start: {error}")


def check(settings: Config) -> None:
    """Check and prepare what services need, without making them. Prints what is wrong and exits with 1."""
    from billing.journal import make_folder
    from billing.rehearsal import rehearse
    from start_up import CannotStart, prepare, told_in_one_line

    try:
        prepare(settings, rehearse)
        with told_in_one_line():
            make_folder(settings.data_dir / "journal")
    except CannotStart as error:
        refuse(f"Cannot start: {error}")


def tell_of_few_files(settings: Config) -> None:
    """Say so if this process may not open as many files as SERVER_THREADS takes: calls would be refused for it."""
    from serving import listeners

    files, needed = listeners.allow_open_files(), listeners.files_of(settings.server_threads)
    if files < needed:
        logs.event(
            log, "few_files", logging.WARNING, files=files, needed=needed, server_threads=settings.server_threads
        )


def refuse(message: str) -> NoReturn:
    """Say why the program can't start, and exit."""
    sys.stderr.write(f"{message}\n")
    raise SystemExit(1)


def serve(listener: Listener) -> None:
    """Check everything that can be wrong, then become the server, which gets the signals that come meanwhile.

    exec, and not a call: the server's parent process then holds none of our modules, which saves 50 MB.
    """
    from serving import listeners

    settings = configure()
    if reason := listeners.why_not(settings.listen_host, settings.port):
        refuse(f"Cannot start: {reason}")
    check(settings)
    tell_of_few_files(settings)
    _greet_first_operator(settings)
    url = f"http://{settings.listen_host}:{settings.port}"
    logs.event(log, "serving", url=url, server=settings.server, environment=settings.app_env)
    command, environment = server_process(settings, os.environ)
    listener.hand_over()
    os.execve(sys.executable, command, environment)


def _greet_first_operator(settings: Config) -> None:
    """Say on the terminal how the first operator comes in; not in the log, where a link would stay.

    Nothing if there is one, or ADMIN_TOKEN, which invites whom it wants; or if the database is away.
    """
    if settings.admin_token:
        return
    from accounts.invitations import Invitations
    from db import Database, DatabaseError, database_url
    from foundation.clock import Clock

    db, clock = Database(database_url(settings)), Clock()
    try:
        db.set_clock(clock)
        text = Invitations(db, clock).offer_first_operator()
    except DatabaseError:
        return
    finally:
        db.close()
    if text:
        address = settings.public_url or f"http://127.0.0.1:{settings.port}"
        sys.stderr.write(
            "There is no operator yet. Whoever opens this link first, within a day, signs up as one:\n"
            f"  {address}/register#invitation={text}\n"
        )


def server_process(settings: Config, environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """The server's command and its environment, made of ours."""
    command = gunicorn_command() if settings.server == "gunicorn" else granian_command(settings)
    search_path = os.pathsep.join(filter(None, [str(ROOT), environ.get("PYTHONPATH")]))
    checked = {CHECKED: str(os.getpid())}  # exec keeps it
    return [sys.executable, "-m", *command], {**MEMORY_SETTINGS, **environ, **checked, "PYTHONPATH": search_path}


def gunicorn_command() -> list[str]:
    """Its settings are in gunicorn.conf.py, so that `gunicorn app:app` has them too."""
    return ["gunicorn", "--config", str(ROOT / "gunicorn.conf.py"), "app:app"]


def granian_command(settings: Config) -> list[str]:
    """granian with one thread for each request in flight; its own chatter off, its errors on."""
    options = {
        "interface": "wsgi",
        "http": "1",
        "host": settings.listen_host,
        "port": settings.port,
        "workers": settings.server_workers,
        "blocking-threads": settings.server_threads + SPARE_THREADS,
        "backpressure": settings.server_threads + IDLE_CONNECTIONS,
        "backlog": 4096,
        "workers-kill-timeout": settings.whole_drain_seconds + LAST_WORDS_SECONDS,
        "log-level": "error",
    }
    flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return ["serving.granian", *flags, "--no-ws", "--respawn-failed-workers", "app:app"]


def _suit_interpreter_to_many_threads() -> None:
    """Short pauses for the collector, and none that grows: see SWITCH_INTERVAL_SECONDS."""
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    gc.freeze()  # what exists by now stays: to look through it again and again would stop all streams for some 70 ms


def _end_with_the_server() -> None:
    """End this worker of granian's when its parent is gone: an orphan would hold the port against its successor.

    gunicorn's workers look after this themselves.
    """
    server = multiprocessing.parent_process()
    if not server:
        return

    def watch() -> None:
        server.join()
        logs.event(log, "server_lost", logging.ERROR)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="server-watch", daemon=True).start()


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(name)
    gc.disable()
    try:
        globals()["app"] = _make_for_flasks_command_line() if _is_flasks_command_line() else _make_server_app()
    finally:
        gc.enable()
    return globals()["app"]


def _is_flasks_command_line() -> bool:
    """True if Flask's command line asks; it sets this variable for its programs to look at."""
    return os.environ.get("FLASK_RUN_FROM_CLI") == "true"


def _make_for_flasks_command_line() -> Flask:
    if not FLASKS_OWN & set(sys.argv):
        return create_command_line(start())
    from commands import groups

    made = _make_server_app()
    groups.register(made)  # the word may be an argument of a command of ours
    return made


def _make_server_app() -> Flask:
    _end_with_the_server()
    made = create_app(start())
    _suit_interpreter_to_many_threads()
    return made


if __name__ == "__main__":
    serve(listener)
