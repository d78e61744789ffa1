"""Settings of gunicorn, which reads this file by itself: `gunicorn app:app` or SERVER=gunicorn."""

import logging
import multiprocessing
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # wherever gunicorn was started

from config.settings import IDLE_CONNECTIONS, LAST_WORDS_SECONDS, SPARE_THREADS
from config.sources import ConfigError, load
from foundation import logs
from foundation.signals import use_handlers
from serving import listeners
from serving.gunicorn import Worker

use_handlers()  # of signals that `python app.py` has blocked
try:
    _settings = load()
except ConfigError as error:
    sys.exit(str(error))
logs.set_up(_settings.effective_log_level, _settings.production, _settings.secret_values())


def _without_content(record: logging.LogRecord) -> bool:
    """What can't be read as a request may be the rest of somebody's body, and a body holds a prompt."""
    if record.getMessage().startswith("Invalid request from ip="):
        record.msg, record.args = "invalid_request", ()
    return True


logging.getLogger("gunicorn.error").addFilter(_without_content)


def on_starting(server: object) -> None:
    """Refuse a bad database or key before anything listens; migrate once, not in each worker.

    In a process of its own: this one lives as long as the service, and need not hold all of our modules. If this one
    was `python app.py`, that has been done.
    """
    if os.environ.get("OPENROUTER_PROXY_CHECKED") == str(os.getpid()):
        return
    check = multiprocessing.get_context("fork").Process(target=_check)
    check.start()
    check.join()
    if check.exitcode:
        sys.exit(1)


def _check() -> None:
    import app

    app.check(_settings)
    app.tell_of_few_files(_settings)


listeners.allow_open_files()
bind = f"{_settings.listen_host}:{_settings.port}"
worker_class = Worker
workers = _settings.server_workers
threads = _settings.server_threads + SPARE_THREADS
worker_connections = threads + IDLE_CONNECTIONS
keepalive = 75
graceful_timeout = _settings.whole_drain_seconds + LAST_WORDS_SECONDS
http_parser = "python"
# By itself gunicorn lets whoever connects from this machine set the path and the scheme by headers. Nobody may: not
# forwarded_allow_ips = "" but these, because it trusts the peers of Unix sockets in any case.
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}
control_socket_disable = True
accesslog = errorlog = None
# At DEBUG gunicorn logs every path, and people put secrets into paths.
loglevel = _settings.log_level.lower().replace("debug", "info")
# gunicorn's own lines go to our log, its first one included: nothing of ours is replaced, its handlers are not made.
_ours = {"gunicorn.error": {"propagate": True}}
logconfig_dict = {"version": 1, "incremental": True, "root": {}, "handlers": {}, "formatters": {}, "loggers": _ours}
