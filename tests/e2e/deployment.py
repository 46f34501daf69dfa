"""A server under test: its processes, what it prints, and that nothing of it is left behind."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import httpx
import psutil

ROOT = Path(__file__).parents[2]
START_SECONDS = 60.0  # on a busy machine
Found = TypeVar("Found")


def wait_until(condition: Callable[[], Found], seconds: float = 15.0) -> Found:
    """What the condition gave when it held."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


class Deployment:
    """Started with a private temporary folder, so that what is left behind shows.

    `within`: a command that becomes the one it is given.
    """

    def __init__(self, directory: Path, command: list[str], within: tuple[str, ...] = ()) -> None:
        self.directory = directory
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [*within, sys.executable, "-m", *command],
            cwd=ROOT,
            env=os.environ | {"TMPDIR": str(directory), "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        return "".join(self.lines)

    @property
    def url(self) -> str:
        """Waits until it serves."""
        wait_until(lambda: " is served on " in self.output or self.process.poll() is not None, START_SECONDS)
        found = re.search(r"is served on (https?://\S+)", self.output)
        assert found is not None, self.output
        return found[1]

    def find(self, name: str) -> psutil.Process | None:
        """A living child process by the name that ps shows."""
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):  # it may end while one asks
                if child.name() == name and child.status() != psutil.STATUS_ZOMBIE:
                    return child
        return None

    def child(self, name: str) -> psutil.Process:
        child = wait_until(lambda: self.find(name))
        assert child is not None
        return child

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if re.match(rf"tokenloom:{name}[{{ ]", line))

    def wait(self, seconds: float = 20.0) -> int:
        """The exit status, once it has ended and all that it printed was read."""
        status = self.process.wait(seconds)
        self._reader.join(seconds)
        return status

    def close(self) -> None:
        """Whatever still runs is killed; may be called again."""
        if self.process.poll() is None:
            for process in [*self.family(), psutil.Process(self.process.pid)]:
                process.kill()
        self.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)


def start_scripted(directory: Path, step_seconds: float = 0.01, **settings: object) -> Deployment:
    """`settings` are the server's; the runner has no model."""
    settings = {"port": 0, "served_model_name": "scripted", **settings}
    command = ["tests.e2e.scripted_server", json.dumps(settings), str(step_seconds)]
    return Deployment(directory, command)
