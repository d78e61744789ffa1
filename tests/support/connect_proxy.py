"""An HTTP proxy on the loopback: tunnels by CONNECT, forwards what has an absolute URL, asks for a password if told to."""

from __future__ import annotations

import asyncio
import base64
import threading
from urllib.parse import urlsplit


class ConnectProxy:
    """Listens on a free port. hosts: by name, where the proxy's own resolver leads. refuse: a status for everybody."""

    def __init__(self, user: str = "", password: str = "", hosts: dict[str, str] | None = None) -> None:
        self.refuse = 0
        self.tunnels: list[str] = []
        """Host and port of each tunnel, and the URL of each request that was forwarded."""
        self._expected = base64.b64encode(f"{user}:{password}".encode()).decode() if user else ""
        self._hosts = hosts or {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop)
        self._server = server.result(10)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://{user}:{password}@127.0.0.1:{self.port}" if user else f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            await self._answer(head.decode("latin-1"), reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request, *lines = head.split("\r\n")
        method, target, _ = request.split(" ")
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
        if self._expected and fields.get("proxy-authorization") != f"Basic {self._expected}":
            _refuse(writer, 407)
            return
        if self.refuse:
            _refuse(writer, self.refuse)
            return
        self.tunnels.append(target)
        parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
        host = self._hosts.get(parts.hostname or "", parts.hostname)
        try:
            up_reader, up_writer = await asyncio.open_connection(host, parts.port or 80)
        except OSError:
            _refuse(writer, 502)
            return
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n")
        else:
            rest = [line for line in lines if line and not line.lower().startswith("proxy-")]
            path = parts.path + (f"?{parts.query}" if parts.query else "")
            up_writer.write("\r\n".join([f"{method} {path} HTTP/1.1", *rest, "", ""]).encode("latin-1"))
        await asyncio.gather(_pipe(reader, up_writer), _pipe(up_reader, writer))


def _refuse(writer: asyncio.StreamWriter, status: int) -> None:
    writer.write(f"HTTP/1.1 {status} No\r\nContent-Length: 2\r\n\r\nno".encode())


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
