"""What stands in front of replicas: a plain TCP balancer that asks them for readiness, and Debian's nginx, which asks nobody."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import signal
import subprocess
import threading
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import requests

from tests.support.gateway import free_port, wait_for

CHECK_SECONDS = 0.1


class TcpBalancer:
    """Passes bytes to and fro between its port and that of a replica whose /readyz said 200, in turn.

    It knows nothing of HTTP. A replica that refuses a connection is passed over, as in all of its kind.
    """

    def __init__(self, ports: Sequence[int], folder: Path) -> None:
        self.port = free_port()
        self._ready = dict.fromkeys(ports, True)
        self._turn = itertools.count()
        self._loop = asyncio.new_event_loop()
        self._stopping = threading.Event()
        started = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(started,), daemon=True),
            *(threading.Thread(target=self._check, args=(port,), daemon=True) for port in ports),
        ]
        for thread in self._threads:
            thread.start()
        assert started.wait(60)

    def _check(self, port: int) -> None:
        while not self._stopping.wait(CHECK_SECONDS):
            try:
                self._ready[port] = requests.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200
            except requests.RequestException:
                self._ready[port] = False

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=512))
        started.set()
        self._loop.run_forever()
        server.close()
        passing = asyncio.all_tasks(self._loop)
        for task in passing:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*passing, return_exceptions=True))
        self._loop.run_until_complete(asyncio.sleep(0))  # in which what was closed is let go
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ports = sorted(self._ready, key=lambda port: not self._ready[port])
        ready = sum(self._ready.values()) or len(ports)
        begin = next(self._turn) % ready
        with closing(writer):
            for port in [*ports[begin:ready], *ports[:begin], *ports[ready:]]:
                with suppress(OSError):
                    there, back = await asyncio.open_connection("127.0.0.1", port)
                    await asyncio.gather(_pass_on(reader, back), _pass_on(there, writer))
                    break

    def close(self) -> None:
        self._stopping.set()
        self._loop.call_soon_threadsafe(self._loop.stop)
        for thread in self._threads:
            thread.join(60)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with closing(writer), suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


class Nginx:
    """nginx as docs/upgrading.md sets it up: connections to replicas are kept, and no replica is left out for a refusal."""

    CONFIGURATION = """
worker_processes 1;
pid {folder}/pid;
error_log {folder}/errors;
events {{ worker_connections 2048; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream gateway {{
    {servers}
    keepalive 16;
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://gateway;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 300s;
      proxy_next_upstream error timeout;
    }}
  }}
}}
"""

    def __init__(self, ports: Sequence[int], folder: Path) -> None:
        self.port = free_port()
        self.folder = folder / "nginx"
        self.folder.mkdir()
        servers = "\n    ".join(f"server 127.0.0.1:{port} max_fails=0;" for port in ports)
        configuration = self.folder / "nginx.conf"
        configuration.write_text(self.CONFIGURATION.format(folder=self.folder, servers=servers, port=self.port))
        program = shutil.which("nginx") or "/usr/sbin/nginx"
        command = [program, "-p", str(self.folder), "-c", str(configuration), "-g", "daemon off;"]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wait_for(self._answers)

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self.folder / "errors").read_text()
        try:
            requests.get(f"http://127.0.0.1:{self.port}/livez", timeout=5)
        except requests.ConnectionError:
            return False
        return True

    def close(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)
