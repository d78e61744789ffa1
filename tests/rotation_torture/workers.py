"""Runs schedules in several processes, each with its own stand-in and databases."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.rotation_torture.schedules import Schedule
from tests.rotation_torture.world import Place
from tests.support.mariadb import DatabaseServer

WORKERS = 2


def work(addresses: Any, results: Any) -> None:
    """One worker: takes addresses until None comes, and gives back (address, points, passes, violations)."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # its children end with it
    logging.disable()  # the rotators' lines; violations are what counts
    with tempfile.TemporaryDirectory(prefix="rotation-torture-", dir=memory_folder()) as folder:
        server = DatabaseServer(Path(folder))
        place = Place(Path(folder), server.new_database)
        try:
            while address := addresses.get():
                try:
                    world = place.run(Schedule.parse(address))
                    results.put((address, world.shared.point, world.passes, world.invariants.violations))
                except Exception as error:  # noqa: BLE001 - reported with its schedule
                    results.put((address, 0, 0, [f"the harness failed: {error!r}"]))
        except KeyboardInterrupt:
            pass
        finally:
            place.close()
            server.stop()


def memory_folder() -> str | None:
    """Where files cost no disk access, if there is such a place."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def run(addresses: list[str]) -> Iterator[tuple[str, int, int, list[str]]]:
    """Run the schedules, in any order."""
    context = multiprocessing.get_context("spawn")  # a worker that is to fork has no threads of its own
    waiting, results = context.Queue(), context.SimpleQueue()
    count = min(WORKERS, len(addresses))
    workers = [context.Process(target=work, args=(waiting, results)) for _ in range(count)]
    for address in [*addresses, *[""] * len(workers)]:
        waiting.put(address)
    for worker in workers:
        worker.start()
    try:
        for _ in addresses:
            yield results.get()
    except BaseException:
        for worker in workers:
            worker.terminate()
        raise
    finally:
        for worker in workers:
            worker.join()
