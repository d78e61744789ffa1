"""Two Galera nodes that both take writes, one for each replica: what the one commits, the other certifies or refuses."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.money_soak.engines import Server
from tests.support.gateway import free_port, wait_for
from tests.support.mariadb import DatabaseServer

LIBRARIES = ("/usr/lib/galera/libgalera_smm.so", "/usr/lib64/galera-4/libgalera_smm.so")


def library() -> str:
    """Galera's library; empty if there is none."""
    return next((path for path in LIBRARIES if Path(path).exists()), "")


class Node(DatabaseServer):
    """One of two. others: addresses of those that it joins; the first node begins alone."""

    def __init__(self, folder: Path, own_port: int, others: str = "") -> None:
        address = f"127.0.0.1:{own_port}"
        # A node that was away gets what it has missed from the other's cache: no state is ever transferred as a whole.
        provider = f"gmcast.listen_addr=tcp://{address};ist.recv_addr=127.0.0.1:{free_port()};gcache.size=256M"
        super().__init__(
            folder,
            "--wsrep-on=ON",
            f"--wsrep-provider={library()}",
            "--wsrep-cluster-name=soak",
            f"--wsrep-cluster-address=gcomm://{others}",
            f"--wsrep-node-address={address}",
            f"--wsrep-provider-options={provider}",
            f"--wsrep-sst-receive-address=127.0.0.1:{free_port()}",
            "--binlog-format=ROW",
            "--innodb-autoinc-lock-mode=2",
        )

    def _install(self, options: list[str]) -> list[str]:
        data = self.folder / "data"
        is_copied = data.exists()
        program = [shutil.which("mariadbd") or "/usr/sbin/mariadbd"] if is_copied else super()._install(options)
        # What a node has missed it gets from rsync's server, which gives up root's rights before it writes.
        data.chmod(0o777)
        for folder in (self.folder, self.folder.parent):
            folder.chmod(0o711)
        return program

    def wait_until_synced(self) -> None:
        """Until it is a member of the cluster and has what the other has."""
        wait_for(lambda: self.execute("SHOW STATUS LIKE 'wsrep_local_state_comment'")[0][1] == "Synced")


class Galera(Server):
    """What is done to the database is done to the second node; the first is never away, so that there is a cluster."""

    def __init__(self, folder: Path) -> None:
        ports = free_port(), free_port()
        first, second = folder / "first", folder / "second"
        self.first = Node(first, ports[0])
        self._make_database(self.first)
        self.first.stop()
        shutil.copytree(first / "data", second / "data")
        self.first.start()
        self.server = Node(second, ports[1], f"127.0.0.1:{ports[0]}")
        self.server.wait_until_synced()
        self.urls = [self.url_at(self.first), self.url_at(self.server)]

    @contextmanager
    def stopped(self) -> Iterator[None]:
        with super().stopped():
            yield
        self.server.wait_until_synced()

    def close(self) -> None:
        self.server.stop()
        self.first.stop()
