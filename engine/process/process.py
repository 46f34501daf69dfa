"""The engine's process: builds the runner, takes messages, does steps, sleeps when there is none to do."""

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import msgspec
import zmq

from engine import wire
from engine.config import EngineConfig
from engine.process import environment
from engine.process.heartbeat import Heartbeat
from engine.process.intake import Intake
from engine.process.load import Loaded, LoadedEncoder, ModelRefused, RunnerFactory, load_model, make_engine
from engine.request import Emit, EngineInfo, LoadPhase, Status
from engine.startup import StartupReport

if TYPE_CHECKING:
    from engine.loop.encoder_loop import EncoderEngine
    from engine.loop.loop import Engine
    from engine.metrics.metrics import EngineMetrics

logger = logging.getLogger(__name__)

REST_MS = 1000  # nothing came for so long: there is time to check the books before a long sleep
LINGER_MS = 2000  # the last tokens may still be on their way when a drain is over


@dataclass(frozen=True, slots=True)
class Place:
    """Where one life of the engine lives."""

    endpoint: str  # of its sockets, without the epoch
    epoch: int
    directory: Path  # private to the deployment; metrics lie in it
    model_name: str = ""  # in the metrics; "": the model's own
    set_up_logs: Callable[[], None] | None = (
        None  # called before anything is logged; importable, as a factory is
    )


def run_engine(config: EngineConfig, place: Place, factory: RunnerFactory | None = None) -> None:
    """The entry of the engine's process; returns after a drain.

    `factory` must be importable by a spawned process; None builds the model's own runner. Exits with a
    message if the settings or the model are refused.
    """
    environment.name_process("loom-engine")
    environment.outlive_output()
    if place.set_up_logs is not None:
        place.set_up_logs()
    environment.ignore_interrupts()
    environment.set_threads(config.threads)
    environment.share_metrics(place.directory)
    host = EngineHost(config, place)
    try:
        host.load(factory or load_model)
        host.serve()
    except ModelRefused as error:
        sys.exit(f"error: {error}")
    except Exception:
        logger.critical("the engine failed", exc_info=True)
        host.close()
        os._exit(1)  # a broken device's step may never end, and would be waited for
    finally:
        host.close()


class EngineHost:
    """Owns the engine and its sockets."""

    def __init__(self, config: EngineConfig, place: Place) -> None:
        self._config = config
        self._place = place
        self._state = "loading"
        self._engine: Engine | EncoderEngine | None = None
        self._metrics: EngineMetrics | None = None
        self._encode = msgspec.msgpack.Encoder().encode
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = wire.open_socket(self._context, zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        self._socket.setsockopt(
            zmq.ROUTER_HANDOVER, 1
        )  # a restarted server process takes its predecessor's place
        self._socket.bind(wire.requests_address(place.endpoint, place.epoch))
        self._intake = Intake(self._socket)
        status_address = wire.status_address(place.endpoint, place.epoch)
        self._heartbeat = Heartbeat(self._context, status_address, self._read_status, place.directory)

    def load(self, factory: RunnerFactory) -> None:
        """Build the engine. Raises ModelRefused."""
        report = StartupReport(
            lambda name, seconds: self._heartbeat.tell(LoadPhase(name=name, seconds=seconds))
        )
        from engine.metrics.metrics import EngineMetrics

        loaded = factory(self._config, report)
        self._metrics = EngineMetrics(self._place.model_name or loaded.model_name)
        self._engine = make_engine(loaded, self._publish, self._metrics)
        info = self._describe(loaded, report)
        self._metrics.on_loaded(info, self._config.prefix_cache)
        self._state = "ready"
        self._heartbeat.announce(info)

    def serve(self) -> None:
        """Steps while there is work, sleeps while there is none. Returns once drained, after SIGTERM."""
        assert self._engine is not None, "load comes first"
        wake_out, wake_in = socket.socketpair()
        wake_in.setblocking(False)
        signal.set_wakeup_fd(wake_in.fileno())
        signal.signal(signal.SIGTERM, self._on_terminate)
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(wake_out, zmq.POLLIN)
        step_seconds = 0.0
        while self._state != "draining" or self._engine.has_work:
            if not self._engine.has_work and not poller.poll(REST_MS):
                self._engine.idle()
                poller.poll()
            if (patience := self._engine.patience) > 0:
                time.sleep(patience)
            self._intake.take(self._engine, step_seconds)
            began = time.perf_counter()
            self._engine.step()
            step_seconds = time.perf_counter() - began
        signal.set_wakeup_fd(-1)
        wake_in.close()
        wake_out.close()

    def close(self) -> None:
        self._heartbeat.stop()
        self._socket.close()
        self._context.term()

    def _publish(self, client: int, emit: Emit) -> None:
        self._socket.send_multipart((wire.identity(client), self._encode(emit)), zmq.NOBLOCK)

    def _on_terminate(self, signum: int, frame: FrameType | None) -> None:
        """The first drains, the second ends at once."""
        if self._state == "draining" or self._engine is None:
            os._exit(128 + signum)
        self._state = "draining"
        self._engine.drain()
        self._heartbeat.beat()

    def _read_status(self) -> Status:
        """Called by the heart-beat's thread: reads counts, changes nothing."""
        engine = self._engine if self._state != "loading" else None
        status = Status(
            epoch=self._place.epoch,
            state=self._state,
            step=engine.num_steps if engine else 0,
            num_running=engine.num_running if engine else 0,
            num_waiting=engine.num_waiting if engine else 0,
            kv_usage=engine.kv_usage if engine else 0.0,
        )
        if self._metrics is not None:
            self._metrics.on_status(status)
        return status

    def _describe(self, loaded: Loaded | LoadedEncoder, report: StartupReport) -> EngineInfo:
        block_size = loaded.config.block_size if isinstance(loaded, Loaded) else 0
        return EngineInfo(
            epoch=self._place.epoch,
            max_model_len=loaded.max_model_len,
            max_requests=loaded.config.max_requests,
            kv_tokens=loaded.runner.num_blocks * block_size if isinstance(loaded, Loaded) else 0,
            block_size=block_size,
            dtype=loaded.dtype,
            device=loaded.device,
            phases=report.phases,
            memory=report.memory,
            task="generate" if isinstance(loaded, Loaded) else loaded.runner.task,
        )
