"""What a measure cost: CPU seconds of the target, the stand-in, the load, and of strangers on the same cores."""

from __future__ import annotations

import time

import psutil

from bench.set_up import Bench, Target

# Not "guest", which is within "user". The kernel books network interrupts on the process that they interrupt.
BUSY = ("user", "nice", "system", "irq", "softirq", "steal")


class Meter:
    """Reads the clocks at both ends of a `with` block; the attributes are the differences, in seconds."""

    def __init__(self, target: Target, bench: Bench) -> None:
        self._target = target.program
        self._stand_in = bench.stand_in.program
        self._cores = [core for core in (bench.cores.gateway, bench.cores.load) if core is not None]
        self.target = self.stand_in = self.load = self.wall = self.machine = 0.0

    def __enter__(self) -> Meter:
        self._before = self._read()
        return self

    def __exit__(self, *_error: object) -> None:
        spent = [after - before for before, after in zip(self._before, self._read(), strict=True)]
        self.wall, self.machine, self.target, self.stand_in, self.load = spent

    @property
    def others_percent(self) -> float:
        """The share of the two cores that programs which are not ours took: how noisy the figures are."""
        ours = self.stand_in + self.load + (self.target if self._target is not self._stand_in else 0)
        count = len(self._cores) or psutil.cpu_count() or 1
        return max(0.0, 100 * (self.machine - ours) / (self.wall * count))

    def _read(self) -> tuple[float, float, float, float, float]:
        cores = psutil.cpu_times(percpu=True)
        chosen = [cores[number] for number in self._cores] or cores
        busy = sum(getattr(core, kind, 0.0) for core in chosen for kind in BUSY)
        ours = self._target.cpu_seconds(), self._stand_in.cpu_seconds(), time.process_time()
        return (time.perf_counter(), busy, *ours)
