"""A server process: the HTTP application on a socket that was bound already, and a client of the engine."""

import asyncio
import contextlib
import signal
import socket
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from engine.checkpoint import CheckpointError
from engine.client.client import EngineClient
from engine.process.environment import (
    exit_orphaned,
    ignore_interrupts,
    name_process,
    outlive_output,
    share_metrics,
)
from server.admin.carry_out import carry_out
from server.admin.commands import Command
from server.auth.key import Key
from server.config import Config
from server.logs import configure_logs
from server.process.control import (
    Answer,
    Ask,
    Done,
    Drain,
    EngineDown,
    EngineSeen,
    EngineUnloading,
    EngineUp,
    FromWorker,
    Order,
    Serving,
    ToWorker,
)
from server.text.errors import ModelTextError

SAMPLE_SECONDS = 5.0
DRAIN_POLL_SECONDS = 0.05
MEET_SECONDS = 5.0  # for an engine that is there to be heard


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """What one server process is given."""

    index: int
    endpoint: str
    directory: Path  # private to the deployment; metrics lie in it
    sock: socket.socket
    pipe: "Connection[FromWorker, ToWorker]"  # typed in the stubs only
    engine_works: bool  # at the time this process was started
    keys: tuple[Key, ...] = ()
    began: float = 0.0  # when the deployment did, seconds since 1970


def run_worker(config: Config, place: WorkerPlace) -> None:
    """The entry of a server process; returns after a drain."""
    name_process(f"loom-server-{place.index}")
    outlive_output()
    ignore_interrupts()
    share_metrics(place.directory)
    configure_logs(config.server.log_level, config.server.log_format)
    try:
        worker = Worker(config, place)
    except (CheckpointError, ModelTextError) as error:
        sys.exit(f"error: {error}")
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(worker.run())


class Worker:
    """Owns the client, the application and the HTTP server of this process."""

    def __init__(self, config: Config, place: WorkerPlace) -> None:
        self._config = config
        self._place = place
        self._client = EngineClient(place.endpoint, place.index)
        # What follows brings in prometheus_client, which share_metrics must come before.
        from server.process.assemble import Here, assemble
        from server.process.http_server import HttpServer

        here = Here(place.directory, place.index, place.keys, place.began)
        self._served = assemble(config, self._client, here, self._ask)
        self._server = HttpServer(self._served.app, self._report_serving, config.server)
        self._draining: asyncio.Task[None] | None = None

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        pipe = self._place.pipe.fileno()
        self._client.start()
        loop.add_reader(pipe, self._read_control)
        loop.add_signal_handler(signal.SIGTERM, self._drain)
        tasks = [asyncio.create_task(self._sample()), asyncio.create_task(self._report_engine())]
        if self._place.engine_works:
            await self._meet_engine()
        await self._server.serve(sockets=[self._place.sock])
        for task in tasks:
            task.cancel()
        loop.remove_reader(pipe)
        self._client.close()
        if self._served.tracer is not None:
            self._served.tracer.close()

    async def _meet_engine(self) -> None:
        """The successor of a process that died refuses nothing for want of an engine: connections wait for it."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._client.ready(), MEET_SECONDS)

    def _report_serving(self) -> None:
        self._place.pipe.send(Serving(self._served.model))

    async def _report_engine(self) -> None:
        await self._client.ready()
        self._place.pipe.send(EngineSeen())

    def _read_control(self) -> None:
        try:
            while self._place.pipe.poll():
                self._obey(self._place.pipe.recv())
        except (EOFError, ConnectionError):
            exit_orphaned(self._place.directory)

    def _obey(self, message: ToWorker) -> None:
        match message:
            case EngineUp(epoch):
                has_died = epoch > 1 and self._client.state != "unloaded"
                if has_died and self._place.index == 0:  # one of the processes counts
                    self._served.metrics.engine_restarted()
                self._client.up(epoch)
            case EngineDown(cause):
                self._client.down(cause)
            case EngineUnloading():
                self._client.unload()
            case Drain():
                self._drain()
            case Order(number, command):
                self._place.pipe.send(Done(number, carry_out(command, self._served.access)))
            case Answer(number, outcomes):
                self._served.desk.answer(number, outcomes)

    def _ask(self, number: int, command: Command) -> None:
        self._place.pipe.send(Ask(number, command))

    def _drain(self) -> None:
        if self._draining is None:
            self._client.drain()
            self._draining = asyncio.create_task(self._finish())

    async def _finish(self) -> None:
        """Let the requests end, by the deadline at the latest, then stop the HTTP server."""
        deadline = time.monotonic() + self._config.server.drain_seconds
        while self._client.num_streams and time.monotonic() < deadline:
            await asyncio.sleep(DRAIN_POLL_SECONDS)
        self._client.abort_all("shutdown", "the server is shutting down")
        self._server.should_exit = True

    async def _sample(self) -> None:
        while True:
            self._served.metrics.sample_process()
            await asyncio.sleep(SAMPLE_SECONDS)
