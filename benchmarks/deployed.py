"""A server of this tree under test: its address, what it counts, and what its processes hold."""

import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.crowd import Place, ask, get
from benchmarks.launch import running
from benchmarks.peers import Peer

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Footprint:
    """What one process holds."""

    descriptors: int
    threads: int
    memory: int  # bytes: PSS where Linux tells, else RSS


class Counts:
    """One reading of /metrics."""

    def __init__(self, text: str) -> None:
        self._samples = re.findall(r"^tokenloom:(\w+)\{(.*)\} (\S+)$", text, re.MULTILINE)

    def sum(self, name: str, **labels: str) -> float:
        """Of the samples that have these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(
            float(value)
            for found, has, value in self._samples
            if found == name and all(part in has for part in wanted)
        )

    @property
    def is_idle(self) -> bool:
        """No request has a row, waits for one, or holds a block."""
        return not any(
            self.sum(name) for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
        )


@dataclass(frozen=True, slots=True)
class Deployed:
    """A server that answers."""

    place: Place
    process: psutil.Process

    async def counts(self) -> Counts:
        told = await ask(self.place, get("/metrics"), keeps=True)
        if told.status != 200:
            raise ValueError(f"/metrics answered with status {told.status}")
        return Counts(told.body.decode())

    def footprints(self) -> dict[str, Footprint]:
        """By the name that ps shows; of the processes that belong to the server itself."""
        family = [self.process, *self.process.children()]
        return {
            _name(process, self.process): _footprint(process)
            for process in family
            if _name(process, self.process)
        }


def _name(process: psutil.Process, parent: psutil.Process) -> str:
    """Empty for helpers that multiprocessing starts."""
    if process == parent:
        return "supervisor"
    name = process.name()
    return name if name.startswith("loom-") else ""


def _footprint(process: psutil.Process) -> Footprint:
    full = process.memory_full_info()
    memory = int(full.pss) if hasattr(full, "pss") else int(full.rss)
    return Footprint(process.num_fds(), process.num_threads(), memory)


@contextmanager
def deployed(flags: dict[str, object], log: Path) -> Iterator[Deployed]:
    """Started with these flags, on the CPU, at a free port. Raises launch.StartFailed."""
    port = _free_port()
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    fixed = ["--host", HOST, "--port", str(port), "--device", "cpu"]
    peer = Peer("tokenloom", (sys.executable, "-m", "server", "serve", *fixed, *words), port)
    with running(peer, log) as server:
        yield Deployed(Place(HOST, port), server.process)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])
