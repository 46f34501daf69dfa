"""The parent of the engine and the server processes: it computes and serves nothing, and so outlives both."""

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
from rich.console import Console

from engine.process.environment import outlive_output
from engine.process.load import RunnerFactory
from engine.process.process import Place
from engine.request import EngineInfo
from server.admin.commands import Outcome
from server.auth.key_file import KeyFileError, keys_of
from server.cli.report import StartReport
from server.config import Config
from server.logs import configure_logs
from server.process.control import Drain, ToWorker
from server.process.descriptors import TooFewDescriptors, fit_connections
from server.process.engine_keeper import EngineKeeper
from server.process.keeper import LOG, ChildFailed, Keeper
from server.process.listen import bind_sockets, is_loopback, url_of
from server.process.orders import Orders
from server.process.vigil import Vigil
from server.process.worker_keeper import Common, WorkerKeeper

CLOSE_SECONDS = 10.0  # beyond the drain's own deadline, for a process to end before it is killed
OPEN_TO_ALL = (
    "warning: {host} is reachable from other machines and no key is asked for: whoever reaches it may use the model; "
    "set --api-key or --key-file"
)
MAX_DIRECTORY_LENGTH = 64  # a Unix socket's path has about 100 bytes


def serve(config: Config, factory: RunnerFactory | None = None) -> int:
    """Serve until SIGTERM or SIGINT. `factory` builds the engine's runner in its process; None: the model's.

    Returns the exit status: 0 after a drain, 1 if something failed, 128 + a second signal that cut it short.
    """
    began = time.perf_counter()
    outlive_output()
    try:
        keys = keys_of(config.server)
        settings, warning = fit_connections(config.server)
    except (KeyFileError, TooFewDescriptors) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    config = replace(config, server=settings)
    configure_logs(settings.log_level, settings.log_format)
    if warning:
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    try:
        sockets = bind_sockets(config.server.host, config.server.port, config.server.api_workers)
    except OSError as error:
        print(f"error: cannot listen on {config.server.host}:{config.server.port}: {error}", file=sys.stderr)
        return 1
    if not keys and not is_loopback(sockets[0]):
        print(OPEN_TO_ALL.format(host=config.server.host), file=sys.stderr, flush=True)
    directory = make_directory()
    common = Common(keys, config.server.log_level, time.time())
    try:
        return asyncio.run(Supervisor(config, common, directory, sockets, factory, began).run())
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        for sock in sockets:
            sock.close()


def make_directory() -> Path:
    """A private place for sockets and metrics (mode 0700)."""
    base = tempfile.gettempdir()
    if len(os.fsencode(base)) > MAX_DIRECTORY_LENGTH:
        base = "/tmp"
    return Path(tempfile.mkdtemp(prefix="tokenloom-", dir=base))


class Supervisor:
    """One deployment, from its start to its end."""

    def __init__(
        self,
        config: Config,
        common: Common,
        directory: Path,
        sockets: list[socket.socket],
        factory: RunnerFactory | None,
        began: float,
    ) -> None:
        endpoint = f"ipc://{directory}/engine"
        set_up_logs = partial(configure_logs, config.server.log_level, config.server.log_format)
        place = Place(endpoint, 1, directory, config.server.served_model_name, set_up_logs)
        self._drain_seconds = config.server.drain_seconds
        self._sockets = sockets
        self._began = began
        self._url = url_of(sockets[0], bool(config.server.tls_cert))
        self._report = StartReport(Console(), bool(common.keys))
        self._announced = self._is_draining = False
        self._phases: set[str] = set()  # printed
        self._signals: asyncio.Queue[int] = asyncio.Queue()
        self._engine = EngineKeeper(
            config.engine,
            place,
            factory,
            self._tell,
            self._on_phase,
            self._on_engine_ready,
            Vigil(config.server.progress_seconds),
        )
        self._workers: list[WorkerKeeper] = []
        self._orders = Orders(config.server, common, self._workers, self._engine, self._start_drain)
        self._workers += [
            WorkerKeeper(
                config,
                index,
                endpoint,
                directory,
                sock,
                self._engine,
                common,
                self._announce,
                self._orders.on_word,
            )
            for index, sock in enumerate(sockets)
        ]

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._signals.put_nowait, signum)
        loop.add_signal_handler(signal.SIGHUP, self._orders.reload_keys, _report_keys)
        keepers: list[Keeper] = [self._engine, *self._workers]
        tasks = [asyncio.create_task(keeper.keep()) for keeper in keepers]
        first_signal = asyncio.create_task(self._signals.get())
        await asyncio.wait([first_signal, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for keeper in keepers:
            keeper.stop()
        has_failed = any(task.done() for task in tasks)
        status = 1 if has_failed else await self._drain(tasks[0], tasks[1:])
        for keeper in keepers:
            keeper.kill()
        first_signal.cancel()
        _report_failures(await asyncio.gather(*tasks, return_exceptions=True))
        self._engine.close()
        return status

    async def _drain(self, engine: asyncio.Task[None], workers: list[asyncio.Task[None]]) -> int:
        """The exit status. A second signal cuts it short."""
        self._is_draining = True
        second_signal = asyncio.create_task(self._signals.get())
        ending = asyncio.create_task(self._end_in_order(engine, workers))
        await asyncio.wait([second_signal, ending], return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            ending.cancel()
            return 128 + second_signal.result()
        second_signal.cancel()
        return 0 if ending.result() else 1

    async def _end_in_order(self, engine: asyncio.Task[None], workers: list[asyncio.Task[None]]) -> bool:
        """Requests finish, the server processes end, then the engine. False if one had to be killed."""
        self._tell(Drain())
        for sock in self._sockets:
            sock.close()
        _, late = await asyncio.wait(workers, timeout=self._drain_seconds + CLOSE_SECONDS)
        for worker in self._workers:
            worker.kill()
        self._engine.terminate()
        _, stuck = await asyncio.wait([engine], timeout=CLOSE_SECONDS)
        return not late and not stuck

    def _start_drain(self) -> None:
        """As a first signal; a second one from outside still cuts it short."""
        if not self._is_draining and self._signals.empty():
            self._signals.put_nowait(signal.SIGTERM)

    def _tell(self, message: ToWorker) -> None:
        for worker in self._workers:
            worker.tell(message)

    def _on_phase(self, name: str, seconds: float) -> None:
        if not self._announced and name not in self._phases:
            self._phases.add(name)
            self._report.phase(name, seconds)

    def _on_engine_ready(self, info: EngineInfo) -> None:
        if info.epoch == 1:
            unseen = {name: seconds for name, seconds in info.phases.items() if name not in self._phases}
            self._report.engine_ready(msgspec.structs.replace(info, phases=unseen))
        else:
            LOG.info("the engine is ready again (start %d)", info.epoch)
        self._announce()  # the server processes may have heard of it sooner

    def _announce(self) -> None:
        """Says where it listens, once, when everything is there."""
        is_ready = all(worker.works and worker.sees_engine for worker in self._workers)
        if self._engine.works and is_ready and not self._announced:
            self._announced = True
            self._report.listening(self._url, self._workers[0].model, time.perf_counter() - self._began)


def _report_keys(outcomes: tuple[Outcome, ...]) -> None:
    """After SIGHUP."""
    for outcome in outcomes:
        if outcome.refusal:
            LOG.error("the keys stay as they were: %s", outcome.refusal)
            return
    LOG.info("the keys were read again")


def _report_failures(results: list[None | BaseException]) -> None:
    """Each fault once, though several processes may have met it."""
    for message in dict.fromkeys(str(result) for result in results if isinstance(result, ChildFailed)):
        print(message, file=sys.stderr, flush=True)
    for result in results:
        if isinstance(result, Exception) and not isinstance(result, ChildFailed):
            raise result
