"""Settings of gunicorn, which reads this file by itself: `gunicorn app:app` or SERVER=gunicorn."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

sys.path.insert(0, str(Path(__file__).parent))  # wherever gunicorn was started

from config.settings import DRAIN_SECONDS, IDLE_CONNECTIONS, ROOT
from config.sources import ConfigError, load
from foundation import logs
from foundation.signals import use_handlers
from serving import ending

use_handlers()  # of signals that `python app.py` has blocked
try:
    _settings = load()
except ConfigError as error:
    sys.exit(str(error))
logs.set_up(_settings.effective_log_level, _settings.production, _settings.secret_values())


class Worker(ThreadWorker):  # type: ignore[misc]
    """gthread, but a client that lingers after `Connection: close` costs one thread, not the accept loop.

    gunicorn 26 and 27 close such connections gracefully, for up to two seconds, in the thread that accepts.
    """

    def handle(self, conn: Any) -> Any:
        result = super().handle(conn)
        if result is False:
            conn.close(graceful=True)
            conn.close = lambda graceful=False: None
        return result

    def handle_exit(self, sig: int, frame: Any) -> None:
        """End once all calls have: not after what lasts for itself."""
        ending.tell()
        super().handle_exit(sig, frame)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """End at once, without gunicorn's call of the thread pool from within the signal's handler.

        If the signal comes while the pool is being given a request, that call waits for ever for a lock of its own.
        """
        super(ThreadWorker, self).handle_quit(sig, frame)


def _without_content(record: logging.LogRecord) -> bool:
    """What can't be read as a request may be the rest of somebody's body, and a body holds a prompt."""
    if record.getMessage().startswith("Invalid request from ip="):
        record.msg, record.args = "invalid_request", ()
    return True


logging.getLogger("gunicorn.error").addFilter(_without_content)


def on_starting(server: object) -> None:
    """Refuse a bad database or key before anything listens; migrate once, not in each worker.

    In a process of its own: this one lives as long as the service, and need not hold all of our modules.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    checked = subprocess.run([sys.executable, "-c", "import app; app.start()"], env=environment, check=False)
    if checked.returncode:
        sys.exit(checked.returncode)


bind = f"{_settings.listen_host}:{_settings.port}"
worker_class = Worker
workers = _settings.server_workers
threads = _settings.server_threads
worker_connections = threads + IDLE_CONNECTIONS
keepalive = 75
graceful_timeout = DRAIN_SECONDS
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
