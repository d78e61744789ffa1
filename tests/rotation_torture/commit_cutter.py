"""Stands between the rotators and the database server and ends a connection at a chosen COMMIT."""

from __future__ import annotations

import os
import selectors
import socket
import threading

from tests.rotation_torture.rotator import Shared, fork

COMMIT = b"\x03COMMIT"


class CommitCutter:
    """A process that hands everything on, but for the COMMIT that `shared.cut_at` counts."""

    def __init__(self, shared: Shared, server_port: int) -> None:
        self._shared = shared
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.process_id = fork(shared, self._serve)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            client, _ = self._listener.accept()
            threading.Thread(target=self._hand_on, args=(client,), daemon=True).start()

    def _hand_on(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._server_port)) as server:
            selector = selectors.DefaultSelector()
            selector.register(client, selectors.EVENT_READ, server)
            selector.register(server, selectors.EVENT_READ, client)
            cut = False
            while True:
                for ready, _ in selector.select():
                    try:
                        data = ready.fileobj.recv(65536)  # type: ignore[union-attr]
                    except OSError:
                        return
                    if not data or (cut and ready.fileobj is server):  # the server has committed; nobody hears of it
                        return
                    if ready.fileobj is client and data.endswith(COMMIT) and self._is_the_one():
                        if not self._shared.cut_after:
                            return
                        cut = True
                    ready.data.sendall(data)

    def _is_the_one(self) -> bool:
        if not self._shared.counting:
            return False
        self._shared.commits += 1
        return self._shared.commits == self._shared.cut_at

    def stop(self) -> None:
        """End the process."""
        os.kill(self.process_id, 9)
        os.waitpid(self.process_id, 0)
