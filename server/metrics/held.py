"""What a server process holds for its clients: nothing of it may stay when they are gone."""

import asyncio

import psutil

from engine.metrics.family import MetricFamily
from server.metrics import catalogue


class HeldGauges:
    """Tasks and descriptors of this process."""

    def __init__(self, family: MetricFamily, process: str) -> None:
        self._tasks = family.gauges(catalogue.TASKS).labels(*family.values, process)
        self._descriptors = family.gauges(catalogue.DESCRIPTORS).labels(*family.values, process)
        self._process = psutil.Process()

    def sample(self) -> None:
        """To be called in the event loop."""
        self._tasks.set(len(asyncio.all_tasks()))
        self._descriptors.set(self._process.num_fds())
